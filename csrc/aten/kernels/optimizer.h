// Device kernels that do a whole optimizer step over lists of parameters: Adam, AdamW and SGD, one pass over the memory.
#pragma once

#include <cstdint>

#include "aten/kernels/kernel.h"

namespace openreg::kernels {

struct AdamEntry {
  void* parameter;
  const void* gradient;
  void* average;          // of the gradient
  void* square_average;   // of its square
  void* largest_average;  // null without amsgrad
  const float* step;      // read when the kernel runs
  uint64_t count;         // elements
};

// Blocks of several capacities have one layout.
template <int capacity>
struct AdamArgs {
  double rate, beta1, beta2, weight_decay, epsilon;
  uint8_t decoupled;  // AdamW: the decay acts on the parameter, not on the gradient
  uint8_t maximize;
  uint64_t entries;
  AdamEntry entry[capacity];
};

struct SgdEntry {
  void* parameter;
  const void* gradient;
  void* momentum;  // null without momentum
  uint64_t count;  // elements
};

template <int capacity>
struct SgdArgs {
  double rate, momentum, weight_decay, dampening;
  uint8_t nesterov, maximize, first_step;
  uint64_t entries;
  SgdEntry entry[capacity];
};

// The kernels for f32 or f64, null for the rest. They take a block of any capacity.
Function adam_kernel(DType dtype);
Function sgd_kernel(DType dtype);

}  // namespace openreg::kernels
