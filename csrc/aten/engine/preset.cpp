// Preset outputs: the offer, and the two allocating operators that answer with it.
#include "aten/engine/preset.h"

#include <ATen/Context.h>
#include <ATen/EmptyTensor.h>
#include <ATen/ops/empty_ops.h>
#include <ATen/ops/empty_strided_ops.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/DefaultDtype.h>
#include <c10/core/MemoryFormat.h>
#include <c10/util/strides.h>
#include <torch/library.h>

#include <utility>

namespace openreg::engine {

namespace {

thread_local PresetOutputs* current = nullptr;

bool is_plain_request(std::optional<c10::Layout> layout, std::optional<c10::Device> device, std::optional<bool> pin_memory) {
  return layout.value_or(c10::kStrided) == c10::kStrided && device.value_or(c10::kCPU).is_cpu() && !pin_memory.value_or(false);
}

caffe2::TypeMeta type_of(std::optional<c10::ScalarType> dtype) { return dtype ? c10::scalarTypeToTypeMeta(*dtype) : c10::get_default_dtype(); }

constexpr c10::DispatchKeySet after_offer(c10::DispatchKeySet keys) {
  return keys & c10::DispatchKeySet(c10::DispatchKeySet::FULL_AFTER, c10::DispatchKey::DeferredInit);
}

at::Tensor empty(c10::DispatchKeySet keys, c10::SymIntArrayRef size, std::optional<c10::ScalarType> dtype, std::optional<c10::Layout> layout,
                 std::optional<c10::Device> device, std::optional<bool> pin_memory, std::optional<c10::MemoryFormat> format) {
  const auto sizes = c10::asIntArrayRefSlowOpt(size);
  if (current != nullptr && sizes && is_plain_request(layout, device, pin_memory)) {
    at::Tensor tensor;
    switch (format.value_or(c10::MemoryFormat::Contiguous)) {
      case c10::MemoryFormat::Contiguous: tensor = current->take(*sizes, c10::contiguous_strides(*sizes), type_of(dtype)); break;
      case c10::MemoryFormat::ChannelsLast:
        if (sizes->size() == 4) tensor = current->take(*sizes, c10::get_channels_last_strides_2d(*sizes), type_of(dtype));
        break;
      case c10::MemoryFormat::ChannelsLast3d:
        if (sizes->size() == 5) tensor = current->take(*sizes, c10::get_channels_last_strides_3d(*sizes), type_of(dtype));
        break;
      default: break;
    }
    if (tensor.defined()) return tensor;
  }
  return at::_ops::empty_memory_format::redispatch(after_offer(keys), size, dtype, layout, device, pin_memory, format);
}

at::Tensor empty_strided(c10::DispatchKeySet keys, c10::SymIntArrayRef size, c10::SymIntArrayRef stride, std::optional<c10::ScalarType> dtype,
                         std::optional<c10::Layout> layout, std::optional<c10::Device> device, std::optional<bool> pin_memory) {
  const auto sizes = c10::asIntArrayRefSlowOpt(size), strides = c10::asIntArrayRefSlowOpt(stride);
  if (current != nullptr && sizes && strides && sizes->size() == strides->size() && is_plain_request(layout, device, pin_memory)) {
    at::Tensor tensor = current->take(*sizes, *strides, type_of(dtype));
    if (tensor.defined()) return tensor;
  }
  return at::_ops::empty_strided::redispatch(after_offer(keys), size, stride, dtype, layout, device, pin_memory);
}

bool contains(const at::Tensor& block, const void* address) {
  const auto* begin = static_cast<const char*>(block.const_data_ptr());
  return address >= begin && address < begin + block.nbytes();
}

}  // namespace

PresetOutputs::PresetOutputs(c10::SmallVector<at::Tensor, 4> blocks, int scratch_first)
    : blocks_(std::move(blocks)),
      taken_(blocks_.size(), false),
      scratch_first_(scratch_first),
      outer_(current),
      key_(c10::DispatchKey::DeferredInit) {
  current = this;
}

PresetOutputs::~PresetOutputs() { current = outer_; }

at::Tensor PresetOutputs::take(at::IntArrayRef sizes, at::IntArrayRef strides, caffe2::TypeMeta dtype) {
  const size_t bytes = at::detail::computeStorageNbytes(sizes, strides, dtype.itemsize());
  if (bytes == 0) return {};
  const auto fits = [&](size_t i) {
    return !taken_[i] && blocks_[i].defined() && blocks_[i].nbytes() == bytes && blocks_[i].dtype() == dtype && blocks_[i].is_non_overlapping_and_dense();
  };
  size_t found = 0;
  while (found < blocks_.size() && !fits(found)) ++found;
  auto& context = at::globalContext();
  if (found == blocks_.size() || (context.deterministicAlgorithms() && context.deterministicFillUninitializedMemory())) return {};
  if (found == 0 && scratch_first_-- > 0) return {};
  taken_[found] = true;
  // A storage of its own: the kernel may give it other memory.
  auto storage = c10::make_intrusive<c10::StorageImpl>(c10::StorageImpl::use_byte_size_t(), c10::SymInt(static_cast<int64_t>(bytes)),
                                                       c10::DataPtr(blocks_[found].mutable_data_ptr(), c10::kCPU), c10::GetDefaultCPUAllocator(), true);
  at::Tensor tensor = at::detail::make_tensor<c10::TensorImpl>(c10::Storage(std::move(storage)), c10::DispatchKeySet(c10::DispatchKey::CPU), dtype);
  tensor.unsafeGetTensorImpl()->set_sizes_and_strides(sizes, strides);
  return tensor;
}

bool PresetOutputs::in_some_block(const at::Tensor& tensor) const {
  for (size_t i = 0; i < blocks_.size(); ++i) {
    if (taken_[i] && contains(blocks_[i], tensor.storage().data())) return true;
  }
  return false;
}

bool PresetOutputs::place(at::ArrayRef<at::Tensor> results) {
  current = nullptr;  // the copies below allocate as ever
  c10::SmallVector<std::pair<size_t, at::Tensor>, 4> elsewhere;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const at::Tensor& result = results[i];
    if (!blocks_[i].defined() || blocks_[i].numel() == 0) continue;
    if (result.const_data_ptr() == blocks_[i].const_data_ptr() && result.strides() == blocks_[i].strides()) continue;
    elsewhere.emplace_back(i, in_some_block(result) ? result.clone() : result);
  }
  for (const auto& [i, result] : elsewhere) blocks_[i].copy_(result);
  return !elsewhere.empty();
}

TORCH_LIBRARY_IMPL(_, DeferredInit, m) { m.fallback(torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(aten, DeferredInit, m) {
  m.impl("empty.memory_format", TORCH_FN(empty));
  m.impl("empty_strided", TORCH_FN(empty_strided));
}

}  // namespace openreg::engine
