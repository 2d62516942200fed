// Factories, views, storages and resizing at PrivateUse1: what needs no kernel.
#include <ATen/Context.h>
#include <ATen/EmptyTensor.h>
#include <ATen/native/Resize.h>
#include <ATen/native/ResizeCommon.h>
#include <ATen/native/TensorFactories.h>
#include <ATen/ops/_efficientzerotensor_native.h>
#include <ATen/ops/_lazy_clone_native.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/is_set_to_native.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_as_complex_native.h>
#include <ATen/ops/view_as_real_native.h>
#include <ATen/ops/view_native.h>
#include <torch/library.h>

#include "aten/op_stats.h"
#include "aten/tensor.h"
#include "runtime/device.h"
#include "runtime/device_allocator.h"
#include "runtime/storage.h"
#include "runtime/stream.h"

namespace openreg {

namespace {

c10::DeviceIndex device_index(std::optional<c10::Device> device) {
  TORCH_CHECK(!device || device->type() == kDeviceType, "An openreg factory was called for ", *device, ".");
  const c10::DeviceIndex index = device && device->has_index() ? device->index() : current_device();
  check_device(index);
  return index;
}

void check_options(std::optional<c10::Layout> layout, std::optional<bool> pin_memory) {
  TORCH_CHECK(!layout || *layout == c10::kStrided, "An openreg tensor made by empty() is strided, not ", *layout, ".");
  TORCH_CHECK(!pin_memory || !*pin_memory, "Only dense CPU tensors can be pinned");
}

at::Tensor filled_if_deterministic(at::Tensor tensor) {
  const auto& context = at::globalContext();
  if (C10_UNLIKELY(context.deterministicAlgorithms() && context.deterministicFillUninitializedMemory())) {
    at::native::fill_empty_deterministic_(tensor);
  }
  return tensor;
}

at::Tensor empty(at::IntArrayRef sizes, std::optional<c10::ScalarType> dtype, std::optional<c10::Layout> layout,
                 std::optional<c10::Device> device, std::optional<bool> pin_memory, std::optional<c10::MemoryFormat> format) {
  static auto& counter = op_stats::counter("aten::empty.memory_format");
  check_options(layout, pin_memory);
  at::Tensor tensor = make_contiguous(device_index(device), sizes, c10::scalarTypeToTypeMeta(c10::dtype_or_default(dtype)));
  if (format && *format != c10::MemoryFormat::Contiguous) tensor.unsafeGetTensorImpl()->empty_tensor_restride(*format);
  op_stats::count(counter.native);
  return filled_if_deterministic(std::move(tensor));
}

at::Tensor empty_strided(at::IntArrayRef sizes, at::IntArrayRef strides, std::optional<c10::ScalarType> dtype,
                         std::optional<c10::Layout> layout, std::optional<c10::Device> device, std::optional<bool> pin_memory) {
  static auto& counter = op_stats::counter("aten::empty_strided");
  check_options(layout, pin_memory);
  at::detail::check_size_nonnegative(sizes);
  const auto meta = c10::scalarTypeToTypeMeta(c10::dtype_or_default(dtype));
  at::Tensor tensor = make_strided(device_index(device), sizes, strides, meta,
                                   at::detail::computeStorageNbytes(sizes, strides, meta.itemsize()));
  op_stats::count(counter.native);
  return filled_if_deterministic(std::move(tensor));
}

// A tensor of zeros that has no memory: autograd passes it through linear formulas.
at::Tensor efficient_zero_tensor(at::IntArrayRef sizes, std::optional<c10::ScalarType> dtype, std::optional<c10::Layout> layout,
                                 std::optional<c10::Device> device, std::optional<bool> pin_memory) {
  check_options(layout, pin_memory);
  const c10::Device where(kDeviceType, device_index(device));
  auto* allocator = new at::native::ZeroTensorAllocator(where);
  return at::detail::empty_generic(sizes, allocator, c10::DispatchKeySet({c10::DispatchKey::PrivateUse1, c10::DispatchKey::ZeroTensor}),
                                   c10::dtype_or_default(dtype), std::nullopt);
}

const at::Tensor& resize(const at::Tensor& self, at::IntArrayRef sizes, std::optional<c10::MemoryFormat> format) {
  at::detail::check_size_nonnegative(sizes);
  TORCH_CHECK(!format || *format != c10::MemoryFormat::Preserve, "Unsupported memory format", *format);
  c10::TensorImpl* impl = self.unsafeGetTensorImpl();
  const int64_t old_bytes = static_cast<int64_t>(self.storage().nbytes());
  if (impl->sizes() != sizes) {
    const size_t needed = at::detail::computeStorageNbytesContiguous(sizes, self.dtype().itemsize(), static_cast<size_t>(self.storage_offset()));
    if (self.numel() >= 0 && needed > self.storage().nbytes() && c10::multiply_integers(sizes) > 0) {
      resize_storage(self.storage().unsafeGetStorageImpl(), needed);
    }
    impl->set_sizes_contiguous(sizes);
  }
  if (format) impl->empty_tensor_restride(*format);
  const auto& context = at::globalContext();
  if (C10_UNLIKELY(context.deterministicAlgorithms() && context.deterministicFillUninitializedMemory())) {
    at::native::fill_resize_deterministic_(self, old_bytes);
  }
  return self;
}

at::Tensor& set_storage(at::Tensor& self, c10::Storage source, int64_t offset, at::IntArrayRef sizes, at::IntArrayRef strides) {
  // The memory first: when there is none, the tensor stays what it was.
  const size_t needed = at::detail::computeStorageNbytes(sizes, strides, self.dtype().itemsize(), static_cast<size_t>(offset));
  if (c10::multiply_integers(sizes) > 0 && source.device() == self.device() && needed > source.nbytes()) {
    resize_storage(source.unsafeGetStorageImpl(), needed);
  }
  at::native::checkSetStorage(self, source, offset, sizes, strides);
  self.unsafeGetTensorImpl()->set_sizes_and_strides(sizes, strides, offset);
  return self;
}

at::Tensor& set_nothing(at::Tensor& self) {
  auto storage = c10::make_intrusive<c10::StorageImpl>(c10::StorageImpl::use_byte_size_t(), c10::SymInt(0),
                                                       allocate_device_memory(self.device().index(), 0), device_allocator(), true);
  return set_storage(self, c10::Storage(std::move(storage)), 0, {0}, {1});
}

at::Tensor& set_whole_storage(at::Tensor& self, c10::Storage source) {
  const auto count = static_cast<int64_t>(source.nbytes() / self.dtype().itemsize());
  return set_storage(self, std::move(source), 0, {count}, {1});
}

at::Tensor lazy_clone(const at::Tensor& self) {
  bind_allocator_to_device(self.storage().unsafeGetStorageImpl());
  return at::native::_lazy_clone(self);
}

void record_stream(at::Tensor& self, c10::Stream stream) { device_allocator()->recordStream(self.storage().data_ptr(), stream); }

}  // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("_efficientzerotensor", efficient_zero_tensor);
  m.impl("resize_", resize);
  m.impl("set_", set_nothing);
  m.impl("set_.source_Storage", set_whole_storage);
  m.impl("set_.source_Storage_storage_offset", set_storage);
  m.impl("set_.source_Tensor", at::native::set_tensor_);
  m.impl("_lazy_clone", lazy_clone);
  m.impl("is_set_to", at::native::is_set_to);
  m.impl("record_stream", record_stream);
  m.impl("as_strided", at::native::as_strided_tensorimpl);
  m.impl("view", at::native::view);
  m.impl("_reshape_alias", at::native::_reshape_alias);
  m.impl("unfold", at::native::unfold);
  m.impl("view_as_real", at::native::view_as_real);
  m.impl("view_as_complex", at::native::view_as_complex);
}

TORCH_LIBRARY_IMPL(aten, ZeroTensor, m) { m.impl("_efficientzerotensor", efficient_zero_tensor); }

}  // namespace openreg
