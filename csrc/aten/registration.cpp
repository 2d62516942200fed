// The engine's registrations: the fallback for everything without a kernel, and the operators that core would decompose or compute
// through a slower composite although the CPU has a kernel of its own.
#include "aten/registration.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <string_view>
#include <utility>
#include <vector>

#include "aten/engine/arguments.h"
#include "aten/engine/engine.h"
#include "aten/engine/op_record.h"

namespace openreg {

namespace {

using c10::DispatchKey;

bool starts_with(std::string_view text, std::string_view prefix) { return text.substr(0, prefix.size()) == prefix; }

bool is_view(const c10::FunctionSchema& schema) {
  for (const auto& result : schema.returns()) {
    if (result.alias_info() != nullptr && !result.alias_info()->isWrite()) return true;
  }
  return false;
}

bool takes_device(const c10::FunctionSchema& schema) { return schema.argumentIndexWithName("device").has_value(); }

bool takes_tensor(const c10::FunctionSchema& schema) {
  for (const auto& argument : schema.arguments()) {
    if (argument.type()->isSubtypeOf(*c10::TensorType::get()) || argument.type()->isSubtypeOf(*c10::ListType::ofTensors())) return true;
  }
  return false;
}

bool is_foreach_in_place(const c10::OperatorName& name) {
  return starts_with(name.name, "aten::_foreach_") && name.name.back() == '_';
}

// Structured operators without an out argument: core would compute their metadata, allocate and call the out= overload.
// Those that only change metadata in place are core's business on every device, and so are those that core makes of other operators.
bool is_structured_front(const c10::OperatorHandle& op) {
  return !op.hasTag(at::Tag::inplace_view) && op.hasKernelForDispatchKey(DispatchKey::CPU) &&
         op.hasKernelForDispatchKey(DispatchKey::CompositeExplicitAutogradNonFunctional);
}

// The CPU has a kernel of its own, and core would take a composite for any other device. An implicit composite gives way only where
// autograd has a formula for the operator as a whole.
bool is_hidden_by_composite(const c10::OperatorHandle& op) {
  if (!op.hasKernelForDispatchKey(DispatchKey::CPU)) return false;
  return op.hasKernelForDispatchKey(DispatchKey::CompositeExplicitAutograd) ||
         (op.hasKernelForDispatchKey(DispatchKey::CompositeImplicitAutograd) && op.hasKernelForDispatchKey(DispatchKey::Autograd));
}

// Core's composites that reach a dispatch stub, name the devices that they know, or (addr_) ask whether two arguments are one object.
bool is_composite_of_known_devices(const c10::OperatorHandle& op) {
  const c10::OperatorName& name = op.operator_name();
  return name.name == "aten::conj_physical_" || (name.name == "aten::mode" && name.overload_name == "values") || name.name == "aten::ldexp" ||
         name.name == "aten::ldexp_" || name.name == "aten::addr_";
}

bool engine_can_take(const c10::OperatorHandle& op, DispatchKey key) {
  return starts_with(op.operator_name().name, "aten::") && op.hasSchema() && !op.hasKernelForDispatchKey(key) &&
         !takes_device(op.schema()) && takes_tensor(op.schema());
}

bool wanted(const c10::OperatorHandle& op, DispatchKey key, DispatchKey cpu_key) {
  if (!engine_can_take(op, key)) return false;
  // A view of a sparse tensor is a tensor of its own.
  if (key != DispatchKey::PrivateUse1) return op.hasKernelForDispatchKey(cpu_key);
  if (is_view(op.schema())) return false;
  return is_structured_front(op) || is_hidden_by_composite(op) || is_composite_of_known_devices(op) || is_foreach_in_place(op.operator_name());
}

torch::CppFunction engine_kernel() { return torch::CppFunction::makeFromBoxedFunction<&engine::boxed>(); }

// The fallback of the sparse keys. A call without a sparse tensor (a factory with a sparse layout) has nothing that the CPU's kernel
// could see the layout from.
void sparse_boxed(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
  bool sparse = false;
  for (const auto& argument : torch::jit::last(*stack, op.schema().arguments().size())) {
    engine::for_each_tensor(argument, [&](const at::Tensor& tensor) { sparse = sparse || (tensor.defined() && tensor.layout() != at::kStrided); });
  }
  TORCH_CHECK_NOT_IMPLEMENTED(sparse, "Could not run '", op.operator_name(), "' on openreg: it does not make tensors with a sparse layout.");
  engine::boxed(op, keys, stack);
}

torch::CppFunction sparse_kernel() { return torch::CppFunction::makeFromBoxedFunction<&sparse_boxed>(); }

}  // namespace

// Called last, when every kernel of this library is registered, so that none is taken over.
void register_engine() {
  engine::follow_removed_operators();
  constexpr std::pair<DispatchKey, DispatchKey> kKeys[] = {{DispatchKey::PrivateUse1, DispatchKey::CPU},
                                                           {DispatchKey::SparsePrivateUse1, DispatchKey::SparseCPU},
                                                           {DispatchKey::SparseCsrPrivateUse1, DispatchKey::SparseCsrCPU},
                                                           {DispatchKey::QuantizedPrivateUse1, DispatchKey::QuantizedCPU},
                                                           {DispatchKey::NestedTensorPrivateUse1, DispatchKey::NestedTensorCPU}};
  std::vector<torch::Library*> libraries;  // leaked: registrations live with them
  for (const auto& [key, cpu_key] : kKeys) libraries.push_back(new torch::Library(torch::Library::IMPL, "aten", key, __FILE__, __LINE__));
  for (const auto& name : c10::Dispatcher::singleton().getAllOpNames()) {
    const auto op = c10::Dispatcher::singleton().findSchema(name);
    if (!op || !op->hasSchema()) continue;
    for (size_t i = 0; i < libraries.size(); ++i) {
      if (wanted(*op, kKeys[i].first, kKeys[i].second)) libraries[i]->impl(c10::toString(name).c_str(), engine_kernel());
    }
  }
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(engine_kernel()); }
TORCH_LIBRARY_IMPL(_, SparsePrivateUse1, m) { m.fallback(sparse_kernel()); }
TORCH_LIBRARY_IMPL(_, SparseCsrPrivateUse1, m) { m.fallback(sparse_kernel()); }
TORCH_LIBRARY_IMPL(_, QuantizedPrivateUse1, m) { m.fallback(engine_kernel()); }
TORCH_LIBRARY_IMPL(_, NestedTensorPrivateUse1, m) { m.fallback(engine_kernel()); }

}  // namespace openreg
