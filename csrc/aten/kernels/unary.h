// Device kernels of one input: out[i] = op(in[i]).
#pragma once

#include <cstdint>

#include "aten/kernels/kernel.h"

namespace openreg::kernels {

enum class UnaryOp : uint8_t { neg, abs, relu, sqrt, rsqrt, reciprocal };
constexpr int kUnaryOps = 6;

struct UnaryArgs {
  void* out;
  const void* in;
  uint64_t count;  // elements
};

// The kernel of an operator for an element type: f32 and f64 have all, f16 and bf16 neg, abs and relu, i32 and i64 neg and abs and
// relu; null for the rest.
Function unary_kernel(UnaryOp op, DType dtype);

}  // namespace openreg::kernels
