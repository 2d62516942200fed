// Convolutions: core sends every one of an out-of-tree device here. The CPU's own choice of algorithm runs on the stream.
#include <torch/library.h>

#include <array>
#include <tuple>

#include "aten/engine/engine.h"

namespace openreg {

namespace {

using Tensors = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

at::Tensor convolution(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias, at::IntArrayRef stride,
                       at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed, at::IntArrayRef output_padding, int64_t groups) {
  static const auto op = engine::find_op("aten::convolution", "");
  return engine::call(op, input, weight, bias, stride, padding, dilation, transposed, output_padding, groups)[0].toTensor();
}

Tensors convolution_backward(const at::Tensor& grad, const at::Tensor& input, const at::Tensor& weight, at::IntArrayRef stride,
                             at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed, at::IntArrayRef output_padding,
                             int64_t groups, std::array<bool, 3> mask) {
  static const auto op = engine::find_op("aten::convolution_backward", "");
  const int64_t channels = grad.size(1);
  const auto bias_sizes = mask[2] ? c10::IValue(std::vector<int64_t>{channels}) : c10::IValue();
  const auto results = engine::call(op, grad, input, weight, bias_sizes, stride, padding, dilation, transposed, output_padding, groups, mask);
  return {results[0].toTensor(), results[1].toTensor(), results[2].toTensor()};
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("convolution_overrideable", convolution);
  m.impl("convolution_backward_overrideable", convolution_backward);
}
// The CPU has no convolution with sparse operands: its error is the one to raise.
TORCH_LIBRARY_IMPL(aten, SparsePrivateUse1, m) { m.impl("convolution_overrideable", convolution); }
TORCH_LIBRARY_IMPL(aten, SparseCsrPrivateUse1, m) { m.impl("convolution_overrideable", convolution); }

}  // namespace openreg
