// max_pool1d: core computes indices beside the maxima for every device but the CPU. Here a call that nothing differentiates runs the CPU's
// kernel without them, which has types, strides and errors of its own.
#include <ATen/TensorSubclassLikeUtils.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/max_pool1d_native.h>
#include <torch/library.h>

#include "aten/engine/engine.h"

namespace openreg {

namespace {

bool needs_indices(const at::Tensor& self) {
  return (self.requires_grad() && at::GradMode::is_enabled()) || self._fw_grad(/*level=*/0).defined() || at::isTensorSubclassLike(self) ||
         self.is_quantized();
}

at::Tensor max_pool1d(const at::Tensor& self, at::IntArrayRef kernel_size, at::IntArrayRef stride, at::IntArrayRef padding,
                      at::IntArrayRef dilation, bool ceil_mode) {
  static const auto op = engine::find_op("aten::max_pool1d", "");
  if (needs_indices(self)) return at::native::max_pool1d(self, kernel_size, stride, padding, dilation, ceil_mode);
  return engine::call(op, self, kernel_size, stride, padding, dilation, ceil_mode)[0].toTensor();
}

}  // namespace

// At the autograd key too: which way to go depends on what autograd will ask.
TORCH_LIBRARY_IMPL(aten, AutogradPrivateUse1, m) { m.impl("max_pool1d", max_pool1d); }
TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) { m.impl("max_pool1d", max_pool1d); }

}  // namespace openreg
