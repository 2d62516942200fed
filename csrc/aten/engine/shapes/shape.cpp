// The table of shape functions and what they share.
#include "aten/engine/shapes/shape.h"

#include <ATen/EmptyTensor.h>
#include <ATen/ExpandUtils.h>
#include <ATen/core/Reduction.h>
#include <c10/core/DefaultDtype.h>
#include <c10/core/MemoryFormat.h>
#include <c10/util/strides.h>

#include <algorithm>
#include <string>
#include <unordered_map>

namespace openreg::engine::shapes {

namespace {

using Table = std::unordered_map<std::string, Function>;

const Table& table() {
  static const Table* rules = [] {
    auto* all = new Table;
    for (const auto list : {attention_rules(), convolution_rules(), fft_rules(), indexing_rules(), linalg_rules(), list_rules(), normalization_rules(),
                            pointwise_rules(), pooling_rules(), reduction_rules()}) {
      for (const Rule& rule : list) all->emplace(std::string("aten::") + rule.name, rule.function);
    }
    return all;
  }();
  return *rules;
}

}  // namespace

Function find(std::string_view name) {
  const auto found = table().find(std::string(name));
  return found == table().end() ? nullptr : found->second;
}

ResultMeta strided(at::IntArrayRef sizes, at::IntArrayRef strides, c10::ScalarType dtype) {
  ResultMeta meta;
  meta.sizes.assign(sizes.begin(), sizes.end());
  meta.strides.assign(strides.begin(), strides.end());
  meta.dtype = dtype;
  meta.bytes = at::detail::computeStorageNbytes(sizes, strides, c10::elementSize(dtype));
  return meta;
}

ResultMeta contiguous(at::IntArrayRef sizes, c10::ScalarType dtype, c10::MemoryFormat format) {
  if (format == c10::MemoryFormat::ChannelsLast) return strided(sizes, c10::get_channels_last_strides_2d(sizes), dtype);
  if (format == c10::MemoryFormat::ChannelsLast3d) return strided(sizes, c10::get_channels_last_strides_3d(sizes), dtype);
  return strided(sizes, c10::contiguous_strides(sizes), dtype);
}

ResultMeta like(const at::Tensor& tensor) {
  const bool dense = tensor.is_non_overlapping_and_dense();
  return strided(tensor.sizes(), dense ? tensor.strides().vec() : at::infer_dense_strides(tensor.sizes(), tensor.strides()), tensor.scalar_type());
}

ResultMeta contiguous_if(bool given, at::IntArrayRef sizes, c10::ScalarType dtype) { return given ? contiguous(sizes, dtype) : undefined(); }

bool plain_gradient(const at::Tensor& grad, c10::MemoryFormat format) {
  return grad.is_contiguous(format) || std::all_of(grad.strides().begin(), grad.strides().end(), [](int64_t stride) { return stride == 0; });
}

bool is_reduction(const Arguments& in, size_t place) { return in.integer(place) >= at::Reduction::None && in.integer(place) < at::Reduction::END; }

bool give(MemoEntry& entry, std::initializer_list<ResultMeta> results) {
  entry.results.assign(results);
  return true;
}

bool give_out(const Arguments& in, size_t index, const ResultMeta& result, MemoEntry& entry) {
  const at::Tensor& out = in.tensor(index);
  entry.results.emplace_back();
  if (out.sizes() == at::IntArrayRef(result.sizes)) return true;
  if (out.numel() != 0) return false;
  entry.resized.emplace_back(static_cast<int>(index), contiguous(result.sizes, out.scalar_type()));
  entry.resized.back().second.strides = result.strides;
  return true;
}

c10::ScalarType floating(c10::ScalarType dtype) {
  return c10::isIntegralType(dtype, true) ? c10::typeMetaToScalarType(c10::get_default_dtype()) : dtype;
}

}  // namespace openreg::engine::shapes
