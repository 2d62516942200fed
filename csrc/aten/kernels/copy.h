// Device kernels that copy contiguous arrays and convert the element type on the way.
//
// Conversions are those of the CPU's copy: to bool by comparison with zero, complex to real keeps the real part, real to
// complex has imaginary part 0, 16-bit floats go through float, floating to u8 goes through i64; of bool, every byte but 0 is true.
#pragma once

#include <cstdint>

#include "aten/kernels/kernel.h"

namespace openreg::kernels {

struct CopyArgs {
  void* out;
  const void* in;  // in place only when both types have the same size
  uint64_t count;  // elements
};

// The kernel for a pair of types; every pair has one.
Function copy_kernel(DType to, DType from);

}  // namespace openreg::kernels
