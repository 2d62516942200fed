// Inferring result metadata.
#include "aten/engine/infer.h"

#include <ATen/EmptyTensor.h>
#include <ATen/ops/empty_strided.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <cstdlib>
#include <sstream>
#include <string_view>

#include "aten/engine/arguments.h"
#include "aten/tensor.h"

namespace openreg::engine {

namespace {

using torch::jit::Stack;

// Notes whether core warned.
class WarningWatch final : public c10::WarningHandler {
 public:
  void process(const c10::Warning&) override { warned = true; }
  bool warned = false;
};

c10::IValue twin_of(const c10::IValue& argument) {
  if (argument.isTensor()) return is_device_tensor(argument.toTensor()) ? c10::IValue(meta_twin(argument.toTensor())) : argument;
  if (argument.isTensorList()) {
    c10::List<at::Tensor> twins;
    for (const at::Tensor& tensor : argument.toTensorVector()) twins.push_back(meta_twin(tensor));
    return twins;
  }
  if (is_optional_tensor_list(argument)) {
    c10::List<std::optional<at::Tensor>> twins;
    for (const auto& element : argument.toListRef()) {
      const bool given = element.isTensor() && element.toTensor().defined();
      twins.push_back(given ? std::optional<at::Tensor>(meta_twin(element.toTensor())) : std::nullopt);
    }
    return twins;
  }
  return argument;
}

std::shared_ptr<MemoEntry> by_core(const OpRecord& record, at::ArrayRef<c10::IValue> arguments) {
  c10::impl::ForceDispatchKeyGuard keys(c10::default_included_set,
                                        c10::default_excluded_set | c10::autograd_dispatch_keyset_with_ADInplaceOrView);
  WarningWatch watch;
  c10::WarningUtils::WarningHandlerGuard warnings(&watch);
  Stack twins, stack;
  for (const auto& argument : arguments) twins.push_back(twin_of(argument));
  stack = twins;
  record.meta->callBoxed(record.op, c10::DispatchKeySet(c10::DispatchKey::Meta), &stack);
  if (watch.warned) return nullptr;
  auto entry = std::make_shared<MemoEntry>();
  for (int i = 0; i < record.returns; ++i) {
    entry->results.push_back(record.return_alias[i] >= 0 ? ResultMeta() : meta_of(stack[i].toTensor()));
  }
  for (const int i : record.written) {
    if (!arguments[i].isTensor() || !arguments[i].toTensor().defined()) continue;
    const at::Tensor& before = arguments[i].toTensor();
    const at::Tensor& after = twins[i].toTensor();
    if (after.sizes() == before.sizes() && after.strides() == before.strides()) continue;
    if (before.numel() != 0) return nullptr;
    entry->resized.emplace_back(i, meta_of(after));
  }
  return entry;
}

std::string described(const ResultMeta& meta) {
  std::ostringstream text;
  text << at::IntArrayRef(meta.sizes) << " strides " << at::IntArrayRef(meta.strides) << " " << meta.dtype;
  return text.str();
}

}  // namespace

at::Tensor meta_twin(const at::Tensor& tensor) {
  if (!tensor.defined()) return tensor;
  at::Tensor twin = at::empty_strided(tensor.sizes(), tensor.strides(), tensor.options().device(at::kMeta));
  if (tensor.is_conj()) twin._set_conj(true);
  if (tensor.is_neg()) twin._set_neg(true);
  if (tensor.unsafeGetTensorImpl()->is_wrapped_number()) twin.unsafeGetTensorImpl()->set_wrapped_number(true);
  return twin;
}

ResultMeta meta_of(const at::Tensor& tensor) {
  ResultMeta meta;
  if (!tensor.defined()) return meta;
  meta.sizes.assign(tensor.sizes().begin(), tensor.sizes().end());
  meta.strides.assign(tensor.strides().begin(), tensor.strides().end());
  meta.dtype = tensor.scalar_type();
  meta.bytes = at::detail::computeStorageNbytes(tensor.sizes(), tensor.strides(), tensor.dtype().itemsize());
  return meta;
}

bool can_infer(const OpRecord& record) { return record.shape != nullptr || record.meta.has_value(); }

std::shared_ptr<MemoEntry> infer(const OpRecord& record, at::ArrayRef<c10::IValue> arguments) {
  try {
    if (record.shape == nullptr) return record.meta ? by_core(record, arguments) : nullptr;
    auto entry = std::make_shared<MemoEntry>();
    return record.shape(shapes::Arguments(arguments), *entry) ? entry : nullptr;
  } catch (const c10::Error&) {
    return nullptr;  // the CPU's kernel says what is wrong
  }
}

bool checking_metadata() {
  static const bool checking = [] {
    const char* value = std::getenv("OPENREG_CHECK_METADATA");
    return value != nullptr && std::string_view(value) == "1";
  }();
  return checking;
}

void check_metadata(const OpRecord& record, const MemoEntry& inferred, const MemoEntry& learnt) {
  // The step along a dimension of one element has no meaning, and kernels leave any.
  const auto same = [&](const ResultMeta& a, const ResultMeta& b) {
    if (a.dtype != b.dtype || a.sizes != b.sizes || a.strides.size() != b.strides.size()) return false;
    for (size_t i = 0; i < a.strides.size(); ++i) {
      if (a.sizes[i] != 1 && a.strides[i] != b.strides[i]) return false;
    }
    return true;
  };
  for (int i = 0; i < record.returns; ++i) {
    if (record.return_alias[i] >= 0) continue;
    TORCH_CHECK(same(inferred.results[i], learnt.results[i]), record.name, ": result ", i, " is ", described(learnt.results[i]), ", but ",
                record.shape ? "its shape function" : "core's meta function", " says ", described(inferred.results[i]), ".");
  }
  TORCH_CHECK(inferred.resized.size() == learnt.resized.size(), record.name, ": the call resized ", learnt.resized.size(),
              " of its arguments, but its metadata say ", inferred.resized.size(), ".");
  for (size_t i = 0; i < inferred.resized.size(); ++i) {
    TORCH_CHECK(inferred.resized[i].first == learnt.resized[i].first && same(inferred.resized[i].second, learnt.resized[i].second), record.name,
                ": argument ", learnt.resized[i].first, " became ", described(learnt.resized[i].second), ", but its metadata say ",
                described(inferred.resized[i].second), ".");
  }
}

}  // namespace openreg::engine
