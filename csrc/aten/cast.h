// Conversions and copies between contiguous tensors of one device, by device kernels.
#pragma once

#include <ATen/core/Tensor.h>

namespace openreg {

// dst <- src on the device's current stream, when a kernel covers it: same device and sizes, both contiguous without conjugate and
// negative bits, types that kernels have, disjoint memory or the same array with elements of one size, and not so large that all intra-op
// threads would be faster. False, and nothing done, otherwise.
bool cast_on_device(const at::Tensor& dst, const at::Tensor& src);

}  // namespace openreg
