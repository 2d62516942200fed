// The CPU-kernel engine: all of ATen on the device, asynchronously, by running ATen's CPU kernels on the kernel view.
//
// Note [How a call runs]
// run() takes a boxed call whose tensors are on one openreg device.
// - A call whose result metadata is known (a memo entry for this operator and these argument metadata, or a shape function's or core's meta
//   function's answer) allocates its outputs, puts a flat description of the arguments on the device's current stream and returns. On the stream, the CPU kernel runs on tensors over
//   the kernel view: the out= overload when the CPU has one, else the functional one with its results copied into their blocks.
// - Any other call is a *waited* call: the same task, but the host waits for it, takes the CPU's exceptions and warnings as they are, and
//   learns the result metadata from the results. The first call of a signature is always a waited one, so that errors that follow from
//   metadata are raised at the call.
// - Shape functions (shapes/) and, for structured operators and out= overloads, core's own C++ meta functions know the metadata of a
//   signature that has run with other sizes, so that a changed size does not wait.
// - Where the host cannot map device memory, copies in stream order stage the storages through host buffers (staging.h).
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

#include "runtime/export.h"

namespace openreg::engine {

// Runs one call: pops the arguments from the stack and pushes the results. Throws what the CPU's kernel throws when the call is waited,
// NotImplementedError with the operator's name when it cannot run. Any thread with a current stream.
OPENREG_API void run(const c10::OperatorHandle& op, torch::jit::Stack* stack);

// run() with typed arguments; returns the results.
template <class... Args>
torch::jit::Stack call(const c10::OperatorHandle& op, Args&&... args) {
  torch::jit::Stack stack;
  stack.reserve(sizeof...(args));
  (stack.emplace_back(std::forward<Args>(args)), ...);
  run(op, &stack);
  return stack;
}

// run() as a boxed kernel for registrations.
void boxed(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack* stack);

// Puts ATen's CPU kernel of `op` on the current stream of the arguments' device and returns. For calls whose metadata are final: every
// tensor that the operator writes is among the arguments, has its final size, and the results are of no interest.
OPENREG_API void launch(const c10::OperatorHandle& op, torch::jit::Stack arguments);

// The handle of "aten::name" or "aten::name.overload"; keep it in a static.
OPENREG_API c10::OperatorHandle find_op(const char* name, const char* overload);

}  // namespace openreg::engine
