// Linear algebra without a meta function in core: results in column order, as LAPACK leaves them.
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

// (matrix A, right-hand sides B, left, ...): batches of equal size
bool solve_triangular(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& a = in.tensor(0);
  const at::Tensor& b = in.tensor(1);
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

}  // namespace

at::ArrayRef<Rule> linalg_rules() {
  static constexpr Rule rules[] = {
      {"linalg_householder_product", householder_product},
      {"linalg_solve_triangular", solve_triangular},
      {"geqrf", geqrf},
  };
  return rules;
}

}  // namespace openreg::engine::shapes
