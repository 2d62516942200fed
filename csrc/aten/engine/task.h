// One engine task: the flat header and arguments that travel through the stream's queue, and the function that runs them.
#pragma once

#include <ATen/core/stack.h>
#include <c10/util/Exception.h>

#include <exception>
#include <memory>
#include <vector>

#include "aten/engine/arguments.h"
#include "aten/engine/launch_state.h"
#include "aten/engine/op_record.h"
#include "hal/openreg_hal.h"

namespace openreg::engine {

// What a waited call brings back. Shared by the caller and the task, because Ctrl-C may end the wait first.
struct WaitedCall {
  torch::jit::Stack arguments;  // CPU tensors over the kernel view, as the kernel left them
  torch::jit::Stack results;
  std::vector<c10::IValue> objects;  // see Encoder::objects()
  bool ran = false;  // false after the wait: the stream skipped it
  std::exception_ptr exception;
  std::vector<c10::Warning> warnings;
};

struct TaskHeader {
  const OpRecord* record;
  std::shared_ptr<WaitedCall>* waited;  // owned by the task; null for an asynchronous one
  LaunchState state;
  uint32_t arguments;
  uint32_t results;       // tensors that follow the arguments: outs to pass, or blocks that the results belong into
  uint8_t into_blocks;    // 0: pass them as outs, 1: bring the results into them
  uint8_t full_dispatch;  // dispatch by the tensors' keys instead of to the CPU kernel
  int8_t device;          // with token
  uint8_t unused[5];
  uint64_t token;         // under which the task tells what an index chose (chosen.h), or 0
};

constexpr size_t kHeaderWords = sizeof(TaskHeader) / sizeof(uint64_t);
static_assert(sizeof(TaskHeader) % sizeof(uint64_t) == 0);

// The host function of every engine launch; `args` are a TaskHeader and words.
openreg_status execute(void* args, openreg_error* error);

// Whether the calling thread runs an engine task.
bool in_task() noexcept;

// Releases what a waited task owns; the cleanup of waited launches.
void release_waited(void* args);

}  // namespace openreg::engine
