// Convolutions. Sizes by core's own formulas; a result is channels-last where input or weight suggests it, as on the CPU.
#include <ATen/native/ConvUtils.h>

#include "aten/engine/shapes/shape.h"

namespace openreg::engine::shapes {

namespace {

struct Convolution {
  Sizes stride, padding, dilation, output_padding;
  bool transposed;
  int64_t groups;

  Convolution(const Arguments& in, size_t first)
      : stride(in.integers(first)), padding(in.integers(first + 1)), dilation(in.integers(first + 2)), output_padding(in.integers(first + 4)),
        transposed(in.flag(first + 3)), groups(in.integer(first + 5)) {}

  // The output's sizes; empty where anything is unusual.
  Sizes output(const at::Tensor& input, const at::Tensor& weight) const {
    const size_t spatial = static_cast<size_t>(weight.dim()) - 2;
    if (weight.dim() < 3 || input.dim() != weight.dim() || input.numel() == 0 || weight.numel() == 0 || groups < 1) return {};
    for (const Sizes* list : {&stride, &padding, &dilation, &output_padding}) {
      if (list->size() != spatial) return {};
    }
    for (size_t i = 0; i < spatial; ++i) {
      if (stride[i] < 1 || padding[i] < 0 || dilation[i] < 1 || output_padding[i] < 0) return {};
      if (!transposed && input.size(i + 2) + 2 * padding[i] < dilation[i] * (weight.size(i + 2) - 1) + 1) return {};
      if (transposed && output_padding[i] >= stride[i] && output_padding[i] >= dilation[i]) return {};
    }
    const bool fits = transposed ? input.size(1) == weight.size(0) && weight.size(0) % groups == 0
                                 : input.size(1) == weight.size(1) * groups && weight.size(0) % groups == 0;
    if (!fits) return {};
    Sizes sizes = transposed ? at::native::conv_input_size(input.sizes(), weight.sizes(), padding, output_padding, stride, dilation, groups)
                             : at::native::conv_output_size(input.sizes(), weight.sizes(), padding, stride, dilation);
    for (const int64_t size : sizes) {
      if (size < 1) return {};
    }
    return sizes;
  }
};

// The memory format, or nothing where the CPU's choice also depends on other things.
std::optional<c10::MemoryFormat> format_of(const at::Tensor& input, const at::Tensor& weight) {
  const auto a = input.suggest_memory_format();
  const auto b = weight.suggest_memory_format();
  if (a == c10::MemoryFormat::ChannelsLast3d || b == c10::MemoryFormat::ChannelsLast3d) return std::nullopt;
  if (a == b && input.is_contiguous(a) && weight.is_contiguous(b) && input.dim() != 3) return a;
  if (a == c10::MemoryFormat::Contiguous && b == a && input.dim() == 4) return a;
  if (input.dim() == 3 && input.is_contiguous() && weight.is_contiguous()) return c10::MemoryFormat::Contiguous;
  return std::nullopt;
}

bool convolution(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& input = in.tensor(0);
  const at::Tensor& weight = in.tensor(1);
  const Convolution form(in, 3);
  const Sizes sizes = form.output(input, weight);
  const auto format = format_of(input, weight);
  if (sizes.empty() || !format || input.scalar_type() != weight.scalar_type()) return false;
  if (in.given(2) && (in.tensor(2).dim() != 1 || in.tensor(2).size(0) != sizes[1])) return false;
  return give(entry, {contiguous(sizes, input.scalar_type(), *format)});
}

bool convolution_backward(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& input = in.tensor(1);
  const at::Tensor& weight = in.tensor(2);
  const Convolution form(in, 4);
  const auto format = format_of(input, weight);
  if (!format || in.tensor(0).sizes() != at::IntArrayRef(form.output(input, weight))) return false;
  if (!plain_gradient(in.tensor(0), *format)) return false;
  const auto dtype = input.scalar_type();
  return give(entry, {in.mask(10, 0) ? contiguous(input.sizes(), dtype, *format) : undefined(),
                      in.mask(10, 1) ? contiguous(weight.sizes(), dtype, *format) : undefined(),
                      contiguous_if(in.mask(10, 2), {in.tensor(0).size(1)}, dtype)});
}

}  // namespace

at::ArrayRef<Rule> convolution_rules() {
  static constexpr Rule rules[] = {{"convolution", convolution}, {"convolution_backward", convolution_backward}};
  return rules;
}

}  // namespace openreg::engine::shapes
