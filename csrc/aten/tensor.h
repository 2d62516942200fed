// Making device tensors: allocation on a given device, whichever is current, with sizes and strides that are already known.
#pragma once

#include <ATen/core/Tensor.h>

#include "runtime/export.h"

namespace openreg {

constexpr c10::DeviceType kDeviceType = c10::DeviceType::PrivateUse1;

inline bool is_device_tensor(const at::TensorBase& tensor) { return tensor.defined() && tensor.device().type() == kDeviceType; }

// Whether the tensor has elements and its storage has no memory: untyped_storage().resize_(0) took it.
inline bool lacks_memory(const at::TensorBase& tensor) {
  return C10_UNLIKELY(tensor.storage().data_ptr().get() == nullptr) && tensor.numel() != 0 &&
         !tensor.key_set().has(c10::DispatchKey::ZeroTensor);
}

// Throws for a tensor that lacks memory: a kernel would follow a null pointer.
void check_memory(const at::TensorBase& tensor);

// A strided tensor on `device` with uninitialised memory, allocated on that device's current stream. `bytes` is what sizes and
// strides span (at::detail::computeStorageNbytes). Throws OutOfMemoryError.
OPENREG_API at::Tensor make_strided(c10::DeviceIndex device, at::IntArrayRef sizes, at::IntArrayRef strides, caffe2::TypeMeta dtype,
                                    size_t bytes);

// The same, with contiguous strides.
OPENREG_API at::Tensor make_contiguous(c10::DeviceIndex device, at::IntArrayRef sizes, caffe2::TypeMeta dtype);

// A tensor over the same storage as `base`, without autograd history.
at::Tensor make_alias(const at::Tensor& base, at::IntArrayRef sizes, at::IntArrayRef strides, int64_t storage_offset,
                      caffe2::TypeMeta dtype);

}  // namespace openreg
