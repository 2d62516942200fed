// Result metadata of a call that the engine has not seen with these sizes: by a shape function of this project, or by core's own C++
// meta function.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

#include <memory>

#include "aten/engine/memo.h"
#include "aten/engine/op_record.h"

namespace openreg::engine {

// A tensor without memory that has the metadata of a defined tensor.
at::Tensor meta_twin(const at::Tensor& tensor);

// The metadata of a result, or of an undefined one.
ResultMeta meta_of(const at::Tensor& tensor);

// Whether infer() can ever answer for the operator.
bool can_infer(const OpRecord& record);

// The metadata of the call's results, and of the written arguments that it resizes; null where only the CPU's kernel knows, or where it
// would warn or raise. Never throws for what is wrong with the call.
std::shared_ptr<MemoEntry> infer(const OpRecord& record, at::ArrayRef<c10::IValue> arguments);

// Whether OPENREG_CHECK_METADATA=1: every call is waited, and check_metadata() compares what infer() says with what the kernel returned.
bool checking_metadata();

// `learnt`: from the results of the same call. Raises with the operator's name and both answers when they differ.
void check_metadata(const OpRecord& record, const MemoEntry& inferred, const MemoEntry& learnt);

}  // namespace openreg::engine
