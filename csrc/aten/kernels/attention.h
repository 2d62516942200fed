// Device kernel in front of attention: projections of queries, keys and values, side by side in rows, become one array of heads each.
#pragma once

#include <cstdint>

#include "aten/kernels/kernel.h"

namespace openreg::kernels {

struct SplitHeadsArgs {
  void* out[3];      // queries, keys, values: (batch, heads, length, width)
  const void* in;    // (batch, length, 3, heads, width)
  const void* bias;  // (3, heads, width)
  uint64_t batch, length, heads, width;
};

// out = in + bias, and queries times 1 / sqrt(width). The kernel for f32 or f64; null for the rest.
Function split_heads_kernel(DType dtype);

}  // namespace openreg::kernels
