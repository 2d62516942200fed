// Device kernels of two inputs: out[i] = op(a[i], b[i]), where either input may be one scalar for all i.
#pragma once

#include <cstdint>

#include "aten/kernels/kernel.h"

namespace openreg::kernels {

// add_scaled is a + alpha * b, rounded once for f32 and f64. The comparisons write bool. threshold_backward takes the gradient as
// a, the forward's input as b and the threshold as scalar, in the form tensors.
enum class BinaryOp : uint8_t { add, sub, add_scaled, mul, div, eq, ne, lt, le, gt, ge, threshold_backward };
constexpr int kBinaryOps = 12;

enum class BinaryForm : uint8_t { tensors, right_scalar, left_scalar };
constexpr int kBinaryForms = 3;

struct BinaryArgs {
  void* out;
  const void* a;   // unused in the form left_scalar
  const void* b;   // unused in the form right_scalar
  uint64_t count;  // elements
  Value scalar, alpha;
};

// The kernel of an operator, form and element type of the inputs. f32, f64, i32, i64: all but div and threshold_backward on integers. f16, bf16:
// all but add_scaled. add_scaled and threshold_backward have the form tensors only: beside a scalar, the CPU rounds the product of some elements by
// itself. The form left_scalar exists for sub and div; the others swap their operands. Null for the rest.
Function binary_kernel(BinaryOp op, BinaryForm form, DType dtype);

}  // namespace openreg::kernels
