// Operators over lists of tensors that lie on several devices: one call for each device, as foreach operators do on any accelerator.
#pragma once

#include <ATen/core/stack.h>

#include "aten/engine/op_record.h"

namespace openreg::engine {

// Runs an in-place foreach call whose first list, `self`, lies on several devices, device by device, and pops its arguments. False when there
// is nothing to split. Raises like the calls themselves: those of earlier devices have happened then.
bool run_by_device(const OpRecord& record, at::TensorList self, torch::jit::Stack* stack);

// An in-place foreach operator counts as a change of every tensor in its list: autograd looks at versions. Below autograd, nobody else
// counts it.
void bump_versions(at::TensorList tensors);

}  // namespace openreg::engine
