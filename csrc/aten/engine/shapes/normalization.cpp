// Layer, batch and group normalisation, forward and backward.
#include "aten/engine/shapes/shape.h"

namespace openreg::engine::shapes {

namespace {

using c10::ScalarType;

// Whether the parameters that are given have the input's type: mixed types have rules of their own.
bool one_type(const Arguments& in, ScalarType dtype, std::initializer_list<size_t> places) {
  for (const size_t i : places) {
    if (in.given(i) && in.tensor(i).scalar_type() != dtype) return false;
  }
  return true;
}

bool are_vectors(const Arguments& in, int64_t length, std::initializer_list<size_t> places) {
  for (const size_t i : places) {
    if (in.given(i) && (in.tensor(i).dim() != 1 || in.tensor(i).size(0) != length)) return false;
  }
  return true;
}

bool ends_with(at::IntArrayRef sizes, at::IntArrayRef end) {
  return !end.empty() && sizes.size() >= end.size() && sizes.slice(sizes.size() - end.size()) == end;
}

bool layer_norm(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& input = in.tensor(0);
  const Sizes shape = in.integers(1);
  const auto dtype = input.scalar_type();
  if (input.numel() == 0 || !ends_with(input.sizes(), shape) || !one_type(in, dtype, {2, 3})) return false;
  for (const size_t i : {2, 3}) {
    if (in.given(i) && in.tensor(i).sizes() != at::IntArrayRef(shape)) return false;
  }
  Sizes statistics = input.sizes().vec();
  for (size_t i = statistics.size() - shape.size(); i < statistics.size(); ++i) statistics[i] = 1;
  const ResultMeta moments = contiguous(statistics, dtype);
  return give(entry, {contiguous(input.sizes(), dtype), moments, moments});
}

bool layer_norm_backward(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& input = in.tensor(1);
  const Sizes shape = in.integers(2);
  const auto dtype = input.scalar_type();
  if (input.numel() == 0 || in.tensor(0).sizes() != input.sizes() || !ends_with(input.sizes(), shape) || !one_type(in, dtype, {0, 3, 4, 5, 6})) return false;
  for (const size_t i : {5, 6}) {
    if (in.given(i) && in.tensor(i).sizes() != at::IntArrayRef(shape)) return false;
  }
  return give(entry, {contiguous_if(in.mask(7, 0), input.sizes(), dtype), contiguous_if(in.mask(7, 1), shape, dtype),
                      contiguous_if(in.mask(7, 2), shape, dtype)});
}

bool dense(const at::Tensor& input) { return input.numel() != 0 && input.is_contiguous(input.suggest_memory_format()); }

ResultMeta dense_like(const at::Tensor& input) { return contiguous(input.sizes(), input.scalar_type(), input.suggest_memory_format()); }

// (input, weight, bias, mean, variance, ...): output, saved mean, saved inverse deviation.
bool batch_norm_results(const Arguments& in, bool training, bool with_reserve, MemoEntry& entry) {
  const at::Tensor& input = in.tensor(0);
  const auto dtype = input.scalar_type();
  if (input.dim() < 2 || !dense(input) || !one_type(in, dtype, {1, 2, 3, 4}) || !are_vectors(in, input.size(1), {1, 2, 3, 4})) return false;
  const ResultMeta saved = contiguous({training ? input.size(1) : 0}, dtype);
  if (with_reserve) return give(entry, {dense_like(input), saved, saved, contiguous({0}, ScalarType::Byte)});
  return give(entry, {dense_like(input), saved, saved});
}
bool batch_norm(const Arguments& in, MemoEntry& entry) { return batch_norm_results(in, in.flag(5), false, entry); }
bool batch_norm_with_update(const Arguments& in, MemoEntry& entry) { return batch_norm_results(in, true, true, entry); }

// (grad, input, weight, mean, variance, saved mean, saved inverse deviation, training, epsilon, mask, ...)
bool batch_norm_backward(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& input = in.tensor(1);
  const auto dtype = input.scalar_type();
  if (input.dim() < 2 || !dense(input) || in.tensor(0).sizes() != input.sizes() || !plain_gradient(in.tensor(0), input.suggest_memory_format())) return false;
  if (!one_type(in, dtype, {0, 2, 3, 4}) || !are_vectors(in, input.size(1), {2, 3, 4})) return false;
  if (in.flag(7) && (!in.given(5) || !in.given(6) || !are_vectors(in, input.size(1), {5, 6}))) return false;
  return give(entry, {in.mask(9, 0) ? dense_like(input) : undefined(), contiguous_if(in.mask(9, 1), {input.size(1)}, dtype),
                      contiguous_if(in.mask(9, 2), {input.size(1)}, dtype)});
}

bool groups_fit(const Arguments& in, const at::Tensor& input, size_t first) {
  const int64_t n = in.integer(first), c = in.integer(first + 1), area = in.integer(first + 2), groups = in.integer(first + 3);
  return dense(input) && input.numel() == n * c * area && groups > 0 && c % groups == 0;
}

bool group_norm(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& input = in.tensor(0);
  const auto dtype = input.scalar_type();
  if (!groups_fit(in, input, 3) || !one_type(in, dtype, {1, 2}) || !are_vectors(in, in.integer(4), {1, 2})) return false;
  const ResultMeta moments = contiguous({in.integer(3), in.integer(6)}, dtype);
  return give(entry, {dense_like(input), moments, moments});
}

bool group_norm_backward(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& input = in.tensor(1);
  const auto dtype = input.scalar_type();
  if (!groups_fit(in, input, 5) || in.tensor(0).sizes() != input.sizes()) return false;
  if (const int64_t moments = in.integer(5) * in.integer(8); in.tensor(2).numel() != moments || in.tensor(3).numel() != moments) return false;
  if (!one_type(in, dtype, {0, 2, 3, 4})) return false;
  if (!plain_gradient(in.tensor(0), input.suggest_memory_format()) || !are_vectors(in, in.integer(6), {4})) return false;
  return give(entry, {in.mask(9, 0) ? dense_like(input) : undefined(), contiguous_if(in.mask(9, 1), {in.integer(6)}, dtype),
                      contiguous_if(in.mask(9, 2), {in.integer(6)}, dtype)});
}

}  // namespace

at::ArrayRef<Rule> normalization_rules() {
  static constexpr Rule rules[] = {
      {"native_layer_norm", layer_norm},
      {"native_layer_norm_backward", layer_norm_backward},
      {"native_batch_norm", batch_norm},
      {"_native_batch_norm_legit", batch_norm},
      {"_batch_norm_with_update", batch_norm_with_update},
      {"native_batch_norm_backward", batch_norm_backward},
      {"batch_norm_backward", batch_norm_backward},
      {"native_group_norm", group_norm},
      {"native_group_norm_backward", group_norm_backward},
  };
  return rules;
}

}  // namespace openreg::engine::shapes
