// Device kernels over lists of arrays: out[i] = op(self[i], a[i], b[i], scalar) for every entry of a list, in one launch, as the steps
// of an optimizer need it.
#pragma once

#include <cstdint>

#include "aten/kernels/kernel.h"

namespace openreg::kernels {

// The operands beside self: none for add_scalar, mul_scalar, div_scalar and sqrt; a for add_scaled (self + scalar * a, rounded once), mul,
// div and lerp (scalar is the weight of a); a and b for addcmul (self + scalar * a * b) and addcdiv (self + scalar * a / b).
enum class ForeachOp : uint8_t { add_scalar, mul_scalar, div_scalar, sqrt, add_scaled, mul, div, lerp, addcmul, addcdiv };
constexpr int kForeachOps = 10;
constexpr int foreach_operands(ForeachOp op) { return op < ForeachOp::add_scaled ? 0 : op < ForeachOp::addcmul ? 1 : 2; }

struct ForeachEntry {
  void* out;
  const void* self;
  const void* a;
  const void* b;
  uint64_t count;  // elements
  double scalar;
};

// Blocks of several sizes have one layout, so that a launch copies little for a short list.
template <int capacity>
struct ForeachArgs {
  uint64_t entries;
  ForeachEntry entry[capacity];
};

// The kernel for f32 or f64; null for the rest. Takes a ForeachArgs of any capacity. Entries are done in order.
Function foreach_kernel(ForeachOp op, DType dtype);

}  // namespace openreg::kernels
