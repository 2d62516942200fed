// Copies between and within devices, in stream order.
#pragma once

#include <ATen/core/Tensor.h>

#include "runtime/export.h"

namespace openreg {

// dst <- src with broadcasting, conversion and conj/neg bits; either side may be on the CPU or on another device. A copy from pageable host
// memory has read it when the call returns; one to the host waits, unless `non_blocking` and the host memory is pinned.
OPENREG_API void copy_tensor(const at::Tensor& dst, const at::Tensor& src, bool non_blocking);

}  // namespace openreg
