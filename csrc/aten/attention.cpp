// Scaled dot product attention: the CPU's flash kernel on the stream where the CPU would take it, core's math formula elsewhere.
#define HAVE_AVX2_CPU_DEFINITION
#define HAVE_AVX512_CPU_DEFINITION
#include <ATen/SDPBackend.h>
#include <ATen/native/DispatchStub.h>
#include <ATen/native/transformers/attention.h>
#include <ATen/ops/_fused_sdp_choice_native.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <array>
#include <tuple>

#include "aten/engine/engine.h"

namespace openreg {

// The CPU's rules look at metadata only, so they answer for device tensors too.
static int64_t choose_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, const std::optional<at::Tensor>& mask, double dropout,
               bool causal, std::optional<double> scale, bool grouped) {
  // vmap, also around another transform, has no rule for the one operator that core offers a device; the decomposition has them.
  const c10::DispatchKeySet transforms({c10::DispatchKey::FuncTorchBatched, c10::DispatchKey::FuncTorchGradWrapper});
  bool transformed = false, forward = false;
  for (const at::Tensor* tensor : {&query, &key, &value}) {
    transformed = transformed || tensor->key_set().has_any(transforms);
    forward = forward || tensor->_fw_grad(/*level=*/0).defined();
  }
  // The CPU's fused kernel refuses forward derivatives, and so does core for the one operator.
  if (transformed && !forward) return static_cast<int64_t>(at::SDPBackend::math);
  const int64_t choice = at::native::_fused_sdp_choice_cpp(query, key, value, mask, dropout, causal, scale, grouped);
  const bool flash = choice == static_cast<int64_t>(at::SDPBackend::flash_attention);
  return static_cast<int64_t>(flash ? at::SDPBackend::overrideable : at::SDPBackend::math);
}

namespace {

using at::Tensor;

using Forward = std::tuple<Tensor, Tensor, Tensor, Tensor, c10::SymInt, c10::SymInt, Tensor, Tensor, Tensor>;
using Backward = std::tuple<Tensor, Tensor, Tensor, Tensor>;

Forward attention(const Tensor& query, const Tensor& key, const Tensor& value, const std::optional<Tensor>& mask, double dropout,
                  bool causal, bool, std::optional<double> scale) {
  static const auto op = engine::find_op("aten::_scaled_dot_product_flash_attention_for_cpu", "");
  const auto results = engine::call(op, query, key, value, dropout, causal, mask, scale);
  // Sequence offsets, random state and the debug mask belong to other fused kernels; backward below reads none of them.
  const Tensor nothing = at::empty({0}, query.options().dtype(at::kLong));
  return {results[0].toTensor(), results[1].toTensor(), nothing, nothing, query.size(2), key.size(2), nothing, nothing, nothing};
}

Backward attention_backward(const Tensor& grad, const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& mask,
                            std::array<bool, 4>, const Tensor& out, const Tensor& logsumexp, const Tensor&, const Tensor&, c10::SymInt,
                            c10::SymInt, double dropout, bool causal, const Tensor&, const Tensor&, std::optional<double> scale) {
  static const auto op = engine::find_op("aten::_scaled_dot_product_flash_attention_for_cpu_backward", "");
  const c10::IValue optional_mask = mask.defined() ? c10::IValue(mask) : c10::IValue();
  const auto results = engine::call(op, grad, query, key, value, out, logsumexp, dropout, causal, optional_mask, scale);
  return {results[0].toTensor(), results[1].toTensor(), results[2].toTensor(), Tensor()};
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("_scaled_dot_product_fused_attention_overrideable", attention);
  m.impl("_scaled_dot_product_fused_attention_overrideable_backward", attention_backward);
}

}  // namespace openreg

namespace at::native {
REGISTER_PRIVATEUSE1_DISPATCH(_fused_sdp_choice_stub, &openreg::choose_attention)
}
