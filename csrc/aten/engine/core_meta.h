// Core's own C++ meta functions of structured operators.
//
// The dispatcher's Meta entry is no way to them: importing torch replaces it by Python functions, which are slow, need the GIL and raise
// other errors than the CPU. The C++ kernels stay in the operator's list of registrations, which has no public accessor; this file is the
// only one that reads it. CAN REMOVE when core offers the kernels registered for a key.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>

namespace openreg::engine {

// The C++ kernel that core registered for `op` at the Meta key, or nothing. Valid as long as torch is loaded.
std::optional<c10::KernelFunction> core_meta_kernel(const c10::OperatorHandle& op);

}  // namespace openreg::engine
