// Attention. Scaled dot product: the CPU's flash kernel on the stream where the CPU would take it, core's math formula elsewhere. In front of
// it, the split of projections into heads, which the fast path of multi-head attention calls, is a device kernel.
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
#include "aten/kernels/attention.h"
#include "aten/native_op.h"
#include "aten/tensor.h"
#include "runtime/stream.h"

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

using Three = std::tuple<Tensor, Tensor, Tensor>;

bool is_dense(const Tensor& tensor) { return is_device_tensor(tensor) && is_plain(tensor) && tensor.is_contiguous() && tensor.numel() > 0; }

Three split_heads(const Tensor& qkv, const Tensor& bias, int64_t heads) {
  static NativeOp native("aten::_transform_bias_rescale_qkv", "");
  static KernelSlot slots[kernels::kDTypes];
  Kernel* kernel = nullptr;
  if (is_dense(qkv) && is_dense(bias) && qkv.dim() == 3 && bias.dim() == 1 && bias.size(0) == qkv.size(2) && heads > 0 &&
      qkv.size(2) % (3 * heads) == 0 && qkv.device() == bias.device() && qkv.scalar_type() == bias.scalar_type() && is_small(qkv.numel())) {
    kernel = find_kernel(slots, qkv.scalar_type(), "split_heads", kernels::split_heads_kernel);
  }
  if (kernel == nullptr) return native.on_engine<Three>(qkv, bias, heads);
  native.count_native();
  const c10::DeviceIndex device = qkv.device().index();
  const int64_t sizes[] = {qkv.size(0), heads, qkv.size(1), qkv.size(2) / (3 * heads)};
  const auto part = [&] { return make_contiguous(device, sizes, qkv.dtype()); };
  Three parts(part(), part(), part());
  const kernels::SplitHeadsArgs args{{kernel_output(std::get<0>(parts)), kernel_output(std::get<1>(parts)), kernel_output(std::get<2>(parts))},
                                     kernel_input(qkv), kernel_input(bias), static_cast<uint64_t>(sizes[0]), static_cast<uint64_t>(sizes[2]),
                                     static_cast<uint64_t>(sizes[1]), static_cast<uint64_t>(sizes[3])};
  kernel->launch(current_stream(device), native.name(), static_cast<uint64_t>(qkv.numel()), args);
  return parts;
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("_scaled_dot_product_fused_attention_overrideable", attention);
  m.impl("_scaled_dot_product_fused_attention_overrideable_backward", attention_backward);
  m.impl("_transform_bias_rescale_qkv", TORCH_FN(split_heads));
}

}  // namespace openreg

namespace at::native {
REGISTER_PRIVATEUSE1_DISPATCH(_fused_sdp_choice_stub, &openreg::choose_attention)
}
