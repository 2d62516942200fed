// Splitting list calls by device, and versions.
#include "aten/engine/lists.h"

#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

#include "aten/engine/engine.h"

namespace openreg::engine {

namespace {

using Places = std::vector<int64_t>;

// The elements of a list, or of a vector of one number per list entry, at `places`; anything else as it is.
c10::IValue at_places(const c10::IValue& value, size_t length, const Places& places) {
  if (value.isTensor() && value.toTensor().defined() && value.toTensor().dim() == 1 && value.toTensor().numel() == static_cast<int64_t>(length)) {
    return at::index_select(value.toTensor(), 0, at::tensor(places, value.toTensor().options().dtype(at::kLong)));
  }
  if (!value.isList() || value.toListRef().size() != length) return value;
  c10::impl::GenericList part(value.toList().elementType());
  for (const int64_t place : places) part.push_back(value.toListRef()[place]);
  return c10::IValue(part);
}

}  // namespace

bool run_by_device(const OpRecord& record, at::TensorList self, torch::jit::Stack* stack) {
  if (std::all_of(self.begin(), self.end(), [&](const at::Tensor& tensor) { return tensor.device() == self[0].device(); })) return false;
  std::vector<std::pair<c10::Device, Places>> groups;
  for (size_t i = 0; i < self.size(); ++i) {
    auto group = groups.begin();
    while (group != groups.end() && group->first != self[i].device()) ++group;
    if (group == groups.end()) group = groups.insert(group, {self[i].device(), {}});
    group->second.push_back(static_cast<int64_t>(i));
  }
  const std::vector<c10::IValue> arguments = torch::jit::last(*stack, record.arguments).vec();
  for (const auto& [device, places] : groups) {
    torch::jit::Stack part;
    for (const c10::IValue& argument : arguments) part.push_back(at_places(argument, self.size(), places));
    record.op.callBoxed(&part);
  }
  torch::jit::drop(*stack, record.arguments);
  return true;
}

void bump_versions(at::TensorList tensors) {
  for (const at::Tensor& tensor : tensors) {
    if (tensor.defined() && !tensor.is_inference()) tensor.unsafeGetTensorImpl()->bump_version();
  }
}

}  // namespace openreg::engine
