// Linear algebra: factorisations without a meta function in core, whose results are in column order, as LAPACK leaves them, and sums with a
// product, whose meta functions in core do not look at the first operand.
#include <ATen/ExpandUtils.h>
#include <c10/util/DimVector.h>
#include <c10/util/strides.h>

#include "aten/engine/shapes/shape.h"

namespace openreg::engine::shapes {

namespace {

// Batches of matrices whose columns are contiguous.
ResultMeta columns(at::IntArrayRef sizes, c10::ScalarType dtype) {
  c10::DimVector strides = c10::contiguous_strides(sizes);
  strides[sizes.size() - 2] = 1;
  strides[sizes.size() - 1] = std::max<int64_t>(sizes[sizes.size() - 2], 1);
  return strided(sizes, strides, dtype);
}

bool is_square(const at::Tensor& a) { return a.dim() >= 2 && a.numel() != 0 && a.size(-1) == a.size(-2); }

// (matrix, right-hand side or reflectors): a result like the first
bool householder_product(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& input = in.tensor(0);
  const at::Tensor& tau = in.tensor(1);
  if (input.dim() < 2 || input.numel() == 0 || input.size(-2) < input.size(-1) || input.size(-1) < tau.size(-1) || tau.dim() != input.dim() - 1) return false;
  if (tau.sizes().slice(0, tau.dim() - 1) != input.sizes().slice(0, input.dim() - 2)) return false;
  return give(entry, {columns(input.sizes(), input.scalar_type())});
}

// (matrix A, right-hand sides B, left, ...): batches of equal size. Of two dtypes the kernel refuses some and takes others.
bool solve_triangular(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& a = in.tensor(0);
  const at::Tensor& b = in.tensor(1);
  if (a.scalar_type() != b.scalar_type()) return false;
  if (!is_square(a) || b.numel() == 0 || a.dim() != b.dim() || a.sizes().slice(0, a.dim() - 2) != b.sizes().slice(0, b.dim() - 2)) return false;
  if (a.size(-1) != b.size(in.flag(3) ? -2 : -1)) return false;
  return give(entry, {columns(b.sizes(), b.scalar_type())});
}

bool geqrf(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& input = in.tensor(0);
  if (input.dim() < 2 || input.numel() == 0) return false;
  Sizes tau = input.sizes().vec();
  tau.pop_back();
  tau.back() = std::min(input.size(-1), input.size(-2));
  return give(entry, {columns(input.sizes(), input.scalar_type()), contiguous(tau, input.scalar_type())});
}

// (self, a, b, ...): self + a b, in place or not
bool is_product(const at::Tensor& a, const at::Tensor& b) { return a.dim() == 2 && b.dim() == 2 && a.size(1) == b.size(0); }
ResultMeta product(const Arguments& in) { return contiguous({in.tensor(1).size(0), in.tensor(2).size(1)}, in.tensor(0).scalar_type()); }
bool adds_product(const Arguments& in) {
  const at::Tensor& a = in.tensor(1);
  const at::Tensor& b = in.tensor(2);
  return is_product(a, b) && at::is_expandable_to(in.tensor(0).sizes(), {a.size(0), b.size(1)});
}
bool addmm(const Arguments& in, MemoEntry& entry) { return adds_product(in) && give(entry, {product(in)}); }
template <size_t out>
bool addmm_out(const Arguments& in, MemoEntry& entry) { return adds_product(in) && give_out(in, out, product(in), entry); }
bool addmm_in_place(const Arguments& in, MemoEntry& entry) {
  entry.results.emplace_back();
  return adds_product(in) && in.tensor(0).sizes() == at::IntArrayRef({in.tensor(1).size(0), in.tensor(2).size(1)});
}

}  // namespace

at::ArrayRef<Rule> linalg_rules() {
  static constexpr Rule rules[] = {
      {"addmm", addmm},
      {"addmm.out", addmm_out<5>},
      {"addmm_", addmm_in_place},
      {"_addmm_activation", addmm},
      {"_addmm_activation.out", addmm_out<6>},
      {"linalg_householder_product", householder_product},
      {"linalg_solve_triangular", solve_triangular},
      {"geqrf", geqrf},
  };
  return rules;
}

}  // namespace openreg::engine::shapes
