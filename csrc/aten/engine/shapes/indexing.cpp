// Selecting, moving and looking up elements.
#include <ATen/ExpandUtils.h>
#include <ATen/WrapDimUtils.h>

#include <algorithm>
#include <array>

#include "aten/engine/shapes/shape.h"

namespace openreg::engine::shapes {

namespace {

using c10::ScalarType;

bool index_select(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& self = in.tensor(0);
  const at::Tensor& index = in.tensor(2);
  if (self.dim() == 0 || index.dim() > 1) return false;
  Sizes sizes = self.sizes().vec();
  sizes[c10::maybe_wrap_dim(in.integer(1), self.dim())] = index.numel();
  return give(entry, {contiguous(sizes, self.scalar_type())});
}

bool embedding_dense_backward(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& grad = in.tensor(0);
  const at::Tensor& indices = in.tensor(1);
  if (grad.dim() != indices.dim() + 1 || grad.sizes().slice(0, indices.dim()) != indices.sizes()) return false;
  return give(entry, {contiguous({in.integer(2), grad.size(-1)}, grad.scalar_type())});
}

bool flip(const Arguments& in, MemoEntry& entry) {
  Sizes dims = in.integers(1);
  for (int64_t& dim : dims) dim = c10::maybe_wrap_dim(dim, in.tensor(0).dim());
  std::sort(dims.begin(), dims.end());
  if (std::adjacent_find(dims.begin(), dims.end()) != dims.end()) return false;
  return give(entry, {like(in.tensor(0))});
}

bool roll(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& self = in.tensor(0);
  if (self.dim() == 0 || self.numel() == 0 || !self.is_contiguous() || in.integers(1).size() != 1 || in.integers(2).size() > 1) return false;
  for (const int64_t dim : in.integers(2)) c10::maybe_wrap_dim(dim, self.dim());
  return give(entry, {contiguous(self.sizes(), self.scalar_type())});
}

bool take(const Arguments& in, MemoEntry& entry) {
  if (in.tensor(0).numel() == 0) return false;
  return give(entry, {contiguous(in.tensor(1).sizes(), in.tensor(0).scalar_type())});
}

// (gradient, sizes of the input, dimension, size, step): the gradient of windows that lie along the dimension
bool unfold_backward(const Arguments& in, MemoEntry& entry) {
  Sizes windows = in.integers(1);
  const int64_t size = in.integer(3), step = in.integer(4);
  if (windows.empty() || size < 1 || step < 1) return false;
  const int64_t dim = c10::maybe_wrap_dim(in.integer(2), static_cast<int64_t>(windows.size()));
  if (windows[dim] < size) return false;
  windows[dim] = (windows[dim] - size) / step + 1;
  windows.push_back(size);
  return in.tensor(0).sizes() == at::IntArrayRef(windows) && give(entry, {contiguous(in.integers(1), in.tensor(0).scalar_type())});
}

// (boundaries or sorted sequence, values, out_int32, ...)
ScalarType place_type(const Arguments& in) { return in.flag(2) ? ScalarType::Int : ScalarType::Long; }
bool bucketize(const Arguments& in, MemoEntry& entry) {
  return in.tensor(1).dim() == 1 && give(entry, {contiguous(in.tensor(0).sizes(), place_type(in))});
}
bool searchsorted(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& sequence = in.tensor(0);
  const at::Tensor& values = in.tensor(1);
  if (sequence.dim() == 0 || (in.given(5) && in.tensor(5).sizes() != sequence.sizes())) return false;
  if (sequence.dim() != 1 && (values.dim() != sequence.dim() || values.sizes().slice(0, values.dim() - 1) != sequence.sizes().slice(0, sequence.dim() - 1))) return false;
  return give(entry, {contiguous(values.sizes(), place_type(in))});
}

// In place: an index along a dimension, and a source of fitting sizes or a number.
bool index_fill(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& self = in.tensor(0);
  if (self.dim() == 0 || in.tensor(2).dim() > 1 || (in.given(3) && in.tensor(3).dim() != 0)) return false;
  c10::maybe_wrap_dim(in.integer(1), self.dim());
  entry.results.emplace_back();
  return true;
}

bool put(const Arguments& in, MemoEntry& entry) {
  entry.results.emplace_back();
  return in.tensor(1).numel() == in.tensor(2).numel() && in.tensor(0).numel() != 0;
}

bool masked_scatter(const Arguments& in, MemoEntry& entry) {
  entry.results.emplace_back();
  return in.tensor(0).sizes() == in.tensor(1).sizes();
}

// (self, indices, values, accumulate, ...), in place. A mask comes here only when it says where one value goes.
bool index_put(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& self = in.tensor(0);
  const c10::ArrayRef<c10::IValue> indices = in[1].toListRef();
  entry.results.emplace_back();
  if (static_cast<int64_t>(indices.size()) > self.dim()) return false;
  Sizes before, indexed, after;
  int64_t dim = 0, gaps = 0;
  bool found = false, was_index = false;
  for (const c10::IValue& element : indices) {
    if (!element.isTensor() || !element.toTensor().defined()) {
      (found ? after : before).push_back(self.size(dim++));
      was_index = false;
      continue;
    }
    const at::Tensor& index = element.toTensor();
    if (index.scalar_type() == ScalarType::Bool || index.scalar_type() == ScalarType::Byte) {
      return dim + index.dim() <= self.dim() && index.sizes() == self.sizes().slice(dim, index.dim());
    }
    indexed = found ? at::infer_size(indexed, index.sizes()) : index.sizes().vec();
    gaps += found && !was_index;
    found = was_index = true;
    ++dim;
  }
  while (dim < self.dim()) after.push_back(self.size(dim++));
  Sizes selected = gaps == 0 ? before : indexed;
  for (const Sizes* part : gaps == 0 ? std::array<const Sizes*, 2>{&indexed, &after} : std::array<const Sizes*, 2>{&before, &after}) {
    selected.insert(selected.end(), part->begin(), part->end());
  }
  return found && at::is_expandable_to(in.tensor(2).sizes(), selected);
}

// (a, b, p, mode)
bool cdist(const Arguments& in, MemoEntry& entry) {
  if (!in.none(3) && (in.integer(3) < 0 || in.integer(3) > 2)) return false;
  const at::Tensor& a = in.tensor(0);
  const at::Tensor& b = in.tensor(1);
  if (a.dim() < 2 || a.dim() != b.dim() || a.size(-1) != b.size(-1) || a.numel() == 0 || b.numel() == 0) return false;
  if (a.sizes().slice(0, a.dim() - 2) != b.sizes().slice(0, b.dim() - 2)) return false;
  Sizes sizes = a.sizes().vec();
  sizes.back() = b.size(-2);
  return give(entry, {contiguous(sizes, a.scalar_type())});
}

bool cdist_backward(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& a = in.tensor(1);
  const at::Tensor& b = in.tensor(2);
  if (a.dim() != b.dim() || a.numel() == 0 || b.numel() == 0 || a.sizes().slice(0, a.dim() - 2) != b.sizes().slice(0, b.dim() - 2)) return false;
  return in.tensor(4).sizes() == in.tensor(0).sizes() && give(entry, {contiguous(a.sizes(), a.scalar_type())});
}

// (elements, elements to look for, ...): the latter as one row, without a copy
bool isin(const Arguments& in, MemoEntry& entry) { return in.tensor(1).is_contiguous() && give(entry, {contiguous(in.tensor(0).sizes(), ScalarType::Bool)}); }

}  // namespace

at::ArrayRef<Rule> indexing_rules() {
  static constexpr Rule rules[] = {
      {"index_select", index_select},
      {"embedding_dense_backward", embedding_dense_backward},
      {"flip", flip},
      {"roll", roll},
      {"take", take},
      {"unfold_backward", unfold_backward},
      {"bucketize.Tensor", bucketize},
      {"searchsorted.Tensor", searchsorted},
      {"index_fill_.int_Scalar", index_fill},
      {"index_fill_.int_Tensor", index_fill},
      {"put_", put},
      {"index_put_", index_put},
      {"_index_put_impl_", index_put},
      {"masked_scatter_", masked_scatter},
      {"_cdist_forward", cdist},
      {"_cdist_backward", cdist_backward},
      {"isin.Tensor_Tensor", isin},
  };
  return rules;
}

}  // namespace openreg::engine::shapes
