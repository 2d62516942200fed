// A callback before every operator, which tells the sanitizer when one of the CPU's kernels reads or writes pinned memory.
#include "aten/host_access.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/record_function.h>

#include <atomic>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "aten/engine/lists.h"
#include "aten/engine/task.h"
#include "runtime/driver.h"
#include "runtime/sanitizer.h"

namespace openreg {

namespace {

namespace sanitizer = layers::sanitizer;

// What of an operator's arguments its CPU kernel touches.
struct HostOp {
  bool touches = false;       // has a kernel of the CPU, and makes no view
  bool copies = false;        // a copy between the host and a device is the device's access
  std::vector<char> written;  // per argument
  std::vector<char> read;
  const char* name = "";      // lives as long as the operator is registered
};

HostOp examine(const c10::OperatorHandle& op) {
  HostOp host;
  const auto& schema = op.schema();
  const std::string& op_name = schema.name();
  host.name = op_name.c_str();
  // copy_ is one kernel for every device. tolist() has no operator of its own, and begins with resolve_conj.
  host.copies = op_name == "aten::copy_" || op_name == "aten::_foreach_copy_";
  host.touches = op.hasKernelForDispatchKey(c10::DispatchKey::CPU) || op_name == "aten::copy_";
  for (const auto& result : schema.returns()) host.touches = host.touches && (result.alias_info() == nullptr || result.alias_info()->isWrite());
  if (op_name == "aten::resolve_conj") {
    host.touches = true;
    host.name = "tolist() or resolve_conj()";
  }
  for (const char* name : {"aten::set_", "aten::resize_", "aten::resize_as_", "aten::empty_like", "aten::is_set_to", "aten::_resize_output_",
                           "aten::pin_memory", "aten::_pin_memory"}) {
    host.touches = host.touches && op_name != name;
  }
  for (const auto& argument : schema.arguments()) {
    const bool write = argument.alias_info() != nullptr && argument.alias_info()->isWrite();
    host.written.push_back(write);
    host.read.push_back(!argument.is_out() && !(write && op_name == "aten::copy_"));
  }
  return host;
}

const HostOp* host_op(const at::RecordFunction& call) {
  static thread_local std::unordered_map<std::string, HostOp> known;
  const auto name = call.operator_name();
  if (!name) return nullptr;
  const std::string key = name->name + "." + name->overload_name;
  auto found = known.find(key);
  if (found == known.end()) {
    const auto op = c10::Dispatcher::singleton().findSchema(*name);
    found = known.emplace(key, op ? examine(*op) : HostOp()).first;
  }
  return found->second.touches ? &found->second : nullptr;
}

void look_at(const HostOp& op, const at::Tensor& tensor, bool write, uint64_t* stack) {
  const uint64_t mark = current_sanitizer_mark();
  if (mark == kUnknownMark) return;  // what comes before the host function is not known
  if (*stack == 0) *stack = call_stack();
  const auto set = sanitizer::Footprint::elements(tensor.const_data_ptr(), tensor.itemsize(), static_cast<int>(tensor.dim()), tensor.sizes().data(),
                                                  tensor.strides().data());
  sanitizer::host_access(op.name, set, write, c10::toString(tensor.scalar_type()), *stack, mark);
}

std::unique_ptr<at::ObserverContext> before(const at::RecordFunction& call) {
  if (!sanitizer::watches_host_memory() || !driver_started() || engine::in_task()) return nullptr;
  const auto inputs = call.inputs();
  bool all_cpu = true, any = false;
  const auto is_watched = [](const at::Tensor& tensor) {
    return tensor.defined() && tensor.is_cpu() && tensor.layout() == at::kStrided && tensor.has_storage() && tensor.numel() != 0 &&
           sanitizer::is_host_block(tensor.storage().data());
  };
  for (const c10::IValue& input : inputs) {
    engine::for_each_tensor(input, [&](const at::Tensor& tensor) {
      if (!tensor.defined()) return;
      all_cpu = all_cpu && tensor.is_cpu();
      any = any || is_watched(tensor);
    });
  }
  if (!any) return nullptr;
  const HostOp* op = host_op(call);
  if (op == nullptr || (op->copies && !all_cpu)) return nullptr;
  uint64_t stack = 0;
  for (size_t i = 0; i < inputs.size() && i < op->written.size(); ++i) {
    if (!all_cpu && !inputs[i].isTensor()) continue;  // index tensors beside one of a device are copied there, in the order of the stream
    engine::for_each_tensor(inputs[i], [&](const at::Tensor& tensor) {
      if (!is_watched(tensor)) return;
      if (op->written[i]) look_at(*op, tensor, true, &stack);
      if (op->read[i] && !op->written[i]) look_at(*op, tensor, false, &stack);
    });
  }
  return nullptr;
}

std::atomic<bool> watching{false};
std::mutex watch_mutex;  // LOCK: callback
at::CallbackHandle callback = at::INVALID_CALLBACK_HANDLE;

}  // namespace

void watch_host_operators() {
  if ((sanitizing() & (sanitizer::kRaces | sanitizer::kLifetime)) == 0 || watching.load(std::memory_order_relaxed)) return;
  std::lock_guard<std::mutex> lock(watch_mutex);
  if (watching) return;
  callback = at::addGlobalCallback(at::RecordFunctionCallback(before).needsInputs(true).scopes({at::RecordScope::FUNCTION}));
  watching = true;
}

void stop_watching_host_operators() {
  std::lock_guard<std::mutex> lock(watch_mutex);
  if (!watching) return;
  at::removeCallback(callback);
  watching = false;
}

}  // namespace openreg
