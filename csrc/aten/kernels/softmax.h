// Device kernels of softmax and log_softmax over the rows of a contiguous matrix.
#pragma once

#include <cstdint>

#include "aten/kernels/kernel.h"

namespace openreg::kernels {

// safe: as softmax, and a row of which all is -infinity becomes 0.
enum class SoftmaxOp : uint8_t { softmax, log_softmax, safe_softmax };

struct SoftmaxArgs {
  void* out;
  const void* in;
  uint64_t rows, columns;
};

struct MaskedSoftmaxArgs {
  void* out;
  const void* in;
  const uint8_t* mask;  // rows of `columns` bytes; where it is not 0, the probability is 0
  uint64_t rows, columns;
  uint64_t rows_per_mask, masks;  // row r has the mask row (r / rows_per_mask) % masks
};

// The kernels for f32, f64, f16 and bf16; null for the rest. 16-bit rows are computed in float.
Function softmax_kernel(SoftmaxOp op, DType dtype);
Function masked_softmax_kernel(DType dtype);

}  // namespace openreg::kernels
