// Tensors as the operands of the next launch: see runtime/operands.h.
#pragma once

#include <ATen/core/TensorBase.h>

#include "runtime/operands.h"

namespace openreg {

// Notes a strided tensor of this device. Nothing while nobody wants ranges.
inline void note_tensor(const at::TensorBase& tensor, Touch touch, uint32_t flags = 0, uint64_t token = 0) {
  if (C10_LIKELY(!wants_ranges())) return;
  note_operand(tensor.const_data_ptr(), tensor.scalar_type(), tensor.sizes(), tensor.strides(), touch, flags, token);
}

}  // namespace openreg
