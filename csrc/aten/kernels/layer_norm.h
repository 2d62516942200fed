// Device kernels of layer normalization: the rows of a contiguous matrix, each with its own mean and deviation.
#pragma once

#include <cstdint>

#include "aten/kernels/kernel.h"

namespace openreg::kernels {

struct LayerNormArgs {
  void* out;
  void* mean;           // per row
  void* reciprocal;     // per row: 1 / sqrt(variance + epsilon)
  const void* in;
  const void* weight;   // per column; null: 1
  const void* bias;     // per column; null: 0
  uint64_t rows, columns;
  double epsilon;
};

// Outputs that nobody wants are null.
struct LayerNormBackwardArgs {
  void* grad_in;
  void* grad_weight;    // per column
  void* grad_bias;      // per column
  const void* grad_out;
  const void* in;
  const void* mean;
  const void* reciprocal;
  const void* weight;   // null: 1
  uint64_t rows, columns;
};

// The kernels for f32 or f64; null for the rest.
Function layer_norm_kernel(DType dtype);
Function layer_norm_backward_kernel(DType dtype);

}  // namespace openreg::kernels
