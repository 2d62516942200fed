// Device kernels of the negative log likelihood: rows of log probabilities, and for each row the class that was right.
#pragma once

#include <cstdint>

#include "aten/kernels/kernel.h"

namespace openreg::kernels {

// The numbers of at::Reduction.
enum class Reduction : int64_t { none, mean, sum };

struct NllLossArgs {
  void* out;            // reduction none: one per row; else one
  void* total_weight;   // one
  const void* in;       // (rows, classes)
  const int64_t* target;
  const void* weight;   // per class; null: 1
  int64_t rows, classes, ignored;
  Reduction reduction;
};

struct NllLossBackwardArgs {
  void* grad_in;         // (rows, classes)
  const void* grad_out;  // as the forward's out
  const int64_t* target;
  const void* weight;
  const void* total_weight;
  int64_t rows, classes, ignored;
  Reduction reduction;
};

// For float and double. Unlike the other kernels these may meet a value that they cannot take: they return false and the target that is
// neither a class nor `ignored`, and what the outputs hold is unspecified.
template <class T>
bool nll_loss(const NllLossArgs& args, int64_t* wrong);
template <class T>
bool nll_loss_backward(const NllLossBackwardArgs& args, int64_t* wrong);

}  // namespace openreg::kernels
