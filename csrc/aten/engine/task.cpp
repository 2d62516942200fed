// Running engine tasks on a stream.
#include "aten/engine/task.h"

#include <ATen/ops/from_blob.h>

#include <optional>

#include "aten/engine/chosen.h"
#include "aten/engine/preset.h"
#include "runtime/driver.h"
#include "runtime/error.h"

namespace openreg::engine {

namespace {

class WarningCollector final : public c10::WarningHandler {
 public:
  explicit WarningCollector(std::vector<c10::Warning>* warnings) : warnings_(warnings) {}
  // Warnings of asynchronous tasks are dropped: the waited call of the same signature has given them already.
  void process(const c10::Warning& warning) override {
    if (warnings_ != nullptr) warnings_->push_back(warning);
  }

 private:
  std::vector<c10::Warning>* warnings_;
};

void call(const TaskHeader& task, torch::jit::Stack& stack) {
  if (task.full_dispatch) {
    task.record->op.callBoxed(&stack);
  } else {
    task.record->op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), &stack);
  }
}

// Calls a functional kernel whose results belong into blocks. See Note [Preset outputs].
void call_into_blocks(const TaskHeader& task, torch::jit::Stack& stack, Decoder& decoder) {
  c10::SmallVector<at::Tensor, 4> blocks, results;
  for (uint32_t i = 0; i < task.results; ++i) {
    const c10::IValue block = decoder.read();
    blocks.push_back(block.isTensor() ? block.toTensor() : at::Tensor());
  }
  PresetOutputs preset(blocks, task.record->scratch_first);
  call(task, stack);
  for (uint32_t i = 0; i < task.results; ++i) {
    results.push_back(blocks[i].defined() ? stack[i].toTensor() : at::Tensor());
    TORCH_INTERNAL_ASSERT(!blocks[i].defined() || (results[i].sizes() == blocks[i].sizes() && results[i].dtype() == blocks[i].dtype()), task.record->name,
                          ": result metadata depend on more than the memo key; take the operator off memo_ops.inc");
  }
  if (preset.place(results)) op_stats::count(task.record->counter.copied);
}

// Where a written tensor's block is. Kernels that take an out argument for scratch (losses with a reduction) resize it on the way, and it
// ends in CPU memory of its own.
struct Block {
  uint32_t index;
  char* data;
  c10::SmallVector<int64_t, 5> sizes, strides;
};

void note_block(c10::SmallVectorImpl<Block>& blocks, uint32_t index, const c10::IValue& value) {
  if (!value.isTensor() || !value.toTensor().defined() || !value.toTensor().has_storage()) return;
  const at::Tensor& tensor = value.toTensor();
  Block block{index, static_cast<char*>(tensor.mutable_data_ptr()), {}, {}};
  block.sizes.assign(tensor.sizes().begin(), tensor.sizes().end());
  block.strides.assign(tensor.strides().begin(), tensor.strides().end());
  blocks.push_back(std::move(block));
}

void bring_back(const TaskHeader& task, const Block& block, const at::Tensor& moved) {
  TORCH_INTERNAL_ASSERT(moved.sizes() == at::IntArrayRef(block.sizes), task.record->name,
                        ": a written tensor has another size than the engine expected; take the operator off memo_ops.inc");
  if (moved.numel() == 0) return;
  at::from_blob(block.data, block.sizes, block.strides, moved.options()).copy_(moved);
}

// What making a tensor of a kind warns of, the caller has been told when the device tensor was made.
void read_arguments(const TaskHeader& task, Decoder& decoder, torch::jit::Stack& stack) {
  WarningCollector silence(nullptr);
  std::optional<c10::WarningUtils::WarningHandlerGuard> silenced;
  if (task.waited != nullptr) silenced.emplace(&silence);
  for (uint32_t i = 0; i < task.arguments; ++i) stack.push_back(decoder.read());
}

void run_task(const TaskHeader& task, const uint64_t* words, torch::jit::Stack& stack) {
  Decoder decoder(words, task.waited ? &(*task.waited)->objects : nullptr);
  read_arguments(task, decoder, stack);
  if (C10_UNLIKELY(task.token != 0)) tell_chosen(choice_of(task.record->name), stack, kernel_delta(task.device), task.token);
  if (task.waited != nullptr) (*task.waited)->arguments = stack;
  if (!task.into_blocks) {
    for (uint32_t i = 0; i < task.results; ++i) stack.push_back(decoder.read());
    c10::SmallVector<Block, 4> blocks;
    c10::SmallVector<at::Tensor, 4> written;
    if (task.waited == nullptr) {
      for (const int i : task.record->written) note_block(blocks, i, stack[i]);
      for (const Block& block : blocks) written.push_back(stack[block.index].toTensor());
    }
    call(task, stack);
    for (size_t i = 0; i < blocks.size(); ++i) {
      if (written[i].storage().data() == nullptr || written[i].const_data_ptr() != blocks[i].data) bring_back(task, blocks[i], written[i]);
    }
  } else {
    call_into_blocks(task, stack, decoder);
  }
  if (task.waited != nullptr) (*task.waited)->results = std::move(stack);
}

thread_local bool running = false;

}  // namespace

bool in_task() noexcept { return running; }

openreg_status execute(void* args, openreg_error* error) {
  const auto& task = *static_cast<const TaskHeader*>(args);
  WaitedCall* waited = task.waited ? task.waited->get() : nullptr;
  static thread_local torch::jit::Stack stack;  // tasks do not nest
  openreg_status status = OPENREG_OK;
  if (waited) waited->ran = true;
  WarningCollector collector(waited ? &waited->warnings : nullptr);
  c10::WarningUtils::WarningHandlerGuard warnings(&collector);
  running = true;
  try {
    KernelScope scope(task.state);
    run_task(task, static_cast<const uint64_t*>(args) + kHeaderWords, stack);
  } catch (...) {
    if (waited != nullptr) {
      waited->exception = std::current_exception();
    } else {
      describe_current_exception(error);
      status = OPENREG_LAUNCH_FAILED;
    }
  }
  stack.clear();
  running = false;
  return status;
}

void release_waited(void* args) { delete static_cast<TaskHeader*>(args)->waited; }

}  // namespace openreg::engine
