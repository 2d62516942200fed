// Making device tensors.
#include "aten/tensor.h"

#include <ATen/EmptyTensor.h>

#include "runtime/device_allocator.h"

namespace openreg {

namespace {

at::Tensor wrap(c10::DeviceIndex device, caffe2::TypeMeta dtype, size_t bytes) {
  if (dtype == caffe2::TypeMeta::Make<c10::complex<c10::Half>>()) {
    TORCH_WARN_ONCE("ComplexHalf support is experimental and many operators don't support it yet.");
  }
  auto storage = c10::make_intrusive<c10::StorageImpl>(c10::StorageImpl::use_byte_size_t(), c10::SymInt(static_cast<int64_t>(bytes)),
                                                       allocate_device_memory(device, bytes), device_allocator(), true);
  return at::detail::make_tensor<c10::TensorImpl>(c10::Storage(std::move(storage)),
                                                  c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), dtype);
}

}  // namespace

void check_memory(const at::TensorBase& tensor) {
  TORCH_CHECK(!lacks_memory(tensor), "A tensor of shape ", tensor.sizes(), " on ", tensor.device(),
              " has no memory: its storage was resized to 0 bytes. Resize the storage and fill it before you use the tensor.");
}

at::Tensor make_strided(c10::DeviceIndex device, at::IntArrayRef sizes, at::IntArrayRef strides, caffe2::TypeMeta dtype,
                        size_t bytes) {
  at::Tensor tensor = wrap(device, dtype, bytes);
  if (sizes.size() != 1 || sizes[0] != 0 || strides[0] != 1) tensor.unsafeGetTensorImpl()->set_sizes_and_strides(sizes, strides);
  return tensor;
}

at::Tensor make_contiguous(c10::DeviceIndex device, at::IntArrayRef sizes, caffe2::TypeMeta dtype) {
  at::detail::check_size_nonnegative(sizes);
  at::Tensor tensor = wrap(device, dtype, at::detail::computeStorageNbytesContiguous(sizes, dtype.itemsize()));
  if (sizes.size() != 1 || sizes[0] != 0) tensor.unsafeGetTensorImpl()->set_sizes_contiguous(sizes);
  return tensor;
}

at::Tensor make_alias(const at::Tensor& base, at::IntArrayRef sizes, at::IntArrayRef strides, int64_t storage_offset,
                      caffe2::TypeMeta dtype) {
  at::Tensor tensor = at::detail::make_tensor<c10::TensorImpl>(c10::Storage(base.storage()),
                                                               c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), dtype);
  tensor.unsafeGetTensorImpl()->set_sizes_and_strides(sizes, strides, storage_offset);
  return tensor;
}

}  // namespace openreg
