// What an engine call touches, by its schema: for drivers and layers that want ranges.
#pragma once

#include <ATen/core/ivalue.h>
#include <c10/util/ArrayRef.h>

#include <cstdint>

#include "aten/engine/op_record.h"

namespace openreg::engine {

// Notes the operands of a launch of this call. `results`: one for each return of the operator, or none. `token`: of token_of, or 0 where
// the task cannot tell (staged operands).
void note_call(const OpRecord& record, at::ArrayRef<c10::IValue> arguments, at::ArrayRef<c10::IValue> results, uint64_t token);

// The token for a call that will be noted, 0 when it tells nothing.
uint64_t token_of(const OpRecord& record);

}  // namespace openreg::engine
