// Device kernels that write one value everywhere, by the value's size.
#pragma once

#include <cstdint>

#include "aten/kernels/kernel.h"

namespace openreg::kernels {

struct FillArgs {
  void* out;
  uint64_t count;                        // elements
  alignas(16) unsigned char pattern[16]; // the element's bytes, from the first
};

// The kernel for elements of 1, 2, 4, 8 or 16 bytes; null for another size.
Function fill_kernel(unsigned element_bytes);

}  // namespace openreg::kernels
