// Reductions that core computes without a meta function.
#include <ATen/WrapDimUtilsMulti.h>

#include "aten/engine/shapes/shape.h"

namespace openreg::engine::shapes {

namespace {

using c10::ScalarType;

ScalarType sum_type(ScalarType dtype) { return c10::isIntegralType(dtype, true) ? ScalarType::Long : dtype; }

// The argument that names a dtype, or the default of the operator.
ScalarType chosen(const Arguments& in, size_t place, ScalarType otherwise) {
  return in.none(place) ? otherwise : static_cast<ScalarType>(in.integer(place));
}

Sizes reduced(const at::Tensor& self, const c10::IValue& dims, bool keep) {
  const Sizes list = dims.isNone() ? Sizes{} : dims.toIntVector();
  const auto gone = list.empty() ? std::bitset<at::dim_bitset_size>().set() : at::dim_list_to_bitset(list, self.dim());
  Sizes sizes;
  for (int64_t i = 0; i < self.dim(); ++i) {
    if (!gone[i]) sizes.push_back(self.size(i));
    if (gone[i] && keep) sizes.push_back(1);
  }
  return sizes;
}

// All elements, to one.
bool whole(const Arguments& in, MemoEntry& entry) {
  return in.tensor(0).numel() != 0 && give(entry, {contiguous({}, in.tensor(0).scalar_type())});
}
bool prod(const Arguments& in, MemoEntry& entry) { return give(entry, {contiguous({}, chosen(in, 1, sum_type(in.tensor(0).scalar_type())))}); }
bool trace(const Arguments& in, MemoEntry& entry) {
  return in.tensor(0).dim() == 2 && give(entry, {contiguous({}, sum_type(in.tensor(0).scalar_type()))});
}
bool dot(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& a = in.tensor(0);
  return a.dim() == 1 && in.tensor(1).sizes() == a.sizes() && give(entry, {contiguous({}, a.scalar_type())});
}

// (self, dims, keep, dtype)
bool nansum(const Arguments& in, MemoEntry& entry) {
  return give(entry, {contiguous(reduced(in.tensor(0), in[1], in.flag(2)), chosen(in, 3, sum_type(in.tensor(0).scalar_type())))});
}

bool count_nonzero(const Arguments& in, MemoEntry& entry) {
  return give(entry, {contiguous(reduced(in.tensor(0), in[1], false), ScalarType::Long)});
}

// (self, dims, correction, keep)
ResultMeta moment(const Arguments& in, bool real) {
  const ScalarType dtype = in.tensor(0).scalar_type();
  return contiguous(reduced(in.tensor(0), in[1], in.flag(3)), real ? c10::toRealValueType(dtype) : dtype);
}
// Few elements warn of too few degrees of freedom, in words of their own.
bool enough(const Arguments& in) {
  const at::Tensor& self = in.tensor(0);
  int64_t kept = 1;
  for (const int64_t size : reduced(self, in[1], false)) kept *= size;
  return kept > 0 && self.numel() / kept > (in.none(2) ? 1 : in[2].toScalar().to<double>());
}
bool deviation(const Arguments& in, MemoEntry& entry) { return enough(in) && give(entry, {moment(in, true)}); }
bool deviation_and_mean(const Arguments& in, MemoEntry& entry) { return enough(in) && give(entry, {moment(in, true), moment(in, false)}); }

}  // namespace

at::ArrayRef<Rule> reduction_rules() {
  static constexpr Rule rules[] = {
      {"max", whole},
      {"min", whole},
      {"median", whole},
      {"nanmedian", whole},
      {"prod", prod},
      {"trace", trace},
      {"dot", dot},
      {"vdot", dot},
      {"nansum", nansum},
      {"count_nonzero.dim_IntList", count_nonzero},
      {"std.correction", deviation},
      {"var.correction", deviation},
      {"std_mean.correction", deviation_and_mean},
      {"var_mean.correction", deviation_and_mean},
  };
  return rules;
}

}  // namespace openreg::engine::shapes
