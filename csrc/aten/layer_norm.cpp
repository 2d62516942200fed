// Layer normalization, forward and backward, on device kernels: contiguous operands of one floating type. Everything else goes to the
// engine, which also gives the errors.
#include <torch/library.h>

#include <tuple>

#include "aten/kernels/layer_norm.h"
#include "aten/native_op.h"
#include "aten/tensor.h"
#include "runtime/stream.h"

namespace openreg {
namespace {

using Three = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

// The matrix whose rows are normalized.
struct Rows {
  int64_t rows = 1, columns = 1;
};

// False when the shapes do not fit each other, nothing is there to normalize, or one thread should not do it alone.
bool split(const at::Tensor& input, at::IntArrayRef normalized, Rows* split) {
  const int64_t outer = input.dim() - static_cast<int64_t>(normalized.size());
  if (normalized.empty() || outer < 0 || input.sizes().slice(outer) != normalized) return false;
  for (int64_t i = 0; i < input.dim(); ++i) (i < outer ? split->rows : split->columns) *= input.size(i);
  // In a row of few numbers the variance may vanish, and results show how a kernel rounds: those are the CPU's.
  return split->rows > 0 && split->columns >= 8 && is_small(input.numel());
}

// A contiguous tensor beside `input`, of its type and device.
bool fits(const at::Tensor& tensor, const at::Tensor& input) {
  return is_plain(tensor) && tensor.is_contiguous() && tensor.scalar_type() == input.scalar_type() && tensor.device() == input.device();
}

bool fits_parameter(const std::optional<at::Tensor>& parameter, const at::Tensor& input, at::IntArrayRef normalized) {
  return !parameter || !parameter->defined() || (fits(*parameter, input) && parameter->sizes() == normalized);
}

bool is_given(const std::optional<at::Tensor>& tensor) { return tensor && tensor->defined(); }

const void* input_or_null(const std::optional<at::Tensor>& tensor) {
  return is_given(tensor) ? kernel_input(*tensor) : nullptr;
}

Three native_layer_norm(const at::Tensor& input, at::IntArrayRef normalized, const std::optional<at::Tensor>& weight,
                        const std::optional<at::Tensor>& bias, double eps) {
  static NativeOp native("aten::native_layer_norm", "");
  static KernelSlot slots[kernels::kDTypes];
  Rows shape;
  Kernel* kernel = nullptr;
  if (is_device_tensor(input) && fits(input, input) && fits_parameter(weight, input, normalized) && fits_parameter(bias, input, normalized) &&
      split(input, normalized, &shape)) {
    kernel = find_kernel(slots, input.scalar_type(), "layer_norm", kernels::layer_norm_kernel);
  }
  if (kernel == nullptr) return native.on_engine<Three>(input, normalized, weight, bias, eps);
  native.count_native();
  const c10::DeviceIndex device = input.device().index();
  c10::SmallVector<int64_t, 5> per_row(input.sizes().begin(), input.sizes().end());
  for (size_t i = per_row.size() - normalized.size(); i < per_row.size(); ++i) per_row[i] = 1;
  Three results(make_contiguous(device, input.sizes(), input.dtype()), make_contiguous(device, per_row, input.dtype()),
                make_contiguous(device, per_row, input.dtype()));
  const auto& [out, mean, reciprocal] = results;
  const kernels::LayerNormArgs args{kernel_output(out),     kernel_output(mean),
                                    kernel_output(reciprocal), kernel_input(input),
                                    input_or_null(weight),  input_or_null(bias),
                                    static_cast<uint64_t>(shape.rows), static_cast<uint64_t>(shape.columns), eps};
  kernel->launch(current_stream(device), native.name(), static_cast<uint64_t>(input.numel()), args);
  return results;
}

Three native_layer_norm_backward(const at::Tensor& grad_out, const at::Tensor& input, at::IntArrayRef normalized, const at::Tensor& mean,
                                 const at::Tensor& rstd, const std::optional<at::Tensor>& weight, const std::optional<at::Tensor>& bias,
                                 std::array<bool, 3> mask) {
  static NativeOp native("aten::native_layer_norm_backward", "");
  static KernelSlot slots[kernels::kDTypes];
  Rows shape;
  Kernel* kernel = nullptr;
  if (is_device_tensor(input) && fits(input, input) && fits(grad_out, input) && grad_out.sizes() == input.sizes() && fits(mean, input) &&
      fits(rstd, input) && fits_parameter(weight, input, normalized) && (!mask[1] || is_given(weight)) && (!mask[2] || is_given(bias)) &&
      split(input, normalized, &shape) && mean.numel() == shape.rows && rstd.numel() == shape.rows) {
    kernel = find_kernel(slots, input.scalar_type(), "layer_norm_backward", kernels::layer_norm_backward_kernel);
  }
  if (kernel == nullptr) return native.on_engine<Three>(grad_out, input, normalized, mean, rstd, weight, bias, mask);
  native.count_native();
  const c10::DeviceIndex device = input.device().index();
  const auto wanted = [&](bool is_wanted, at::IntArrayRef sizes) {
    return is_wanted ? make_contiguous(device, sizes, input.dtype()) : at::Tensor();
  };
  Three results(wanted(mask[0], input.sizes()), wanted(mask[1], normalized), wanted(mask[2], normalized));
  const auto output = [](const at::Tensor& tensor) { return tensor.defined() ? kernel_output(tensor) : nullptr; };
  const auto& [grad_in, grad_weight, grad_bias] = results;
  const kernels::LayerNormBackwardArgs args{output(grad_in),       output(grad_weight), output(grad_bias),  kernel_input(grad_out),
                                            kernel_input(input),   kernel_input(mean),  kernel_input(rstd), input_or_null(weight),
                                            static_cast<uint64_t>(shape.rows), static_cast<uint64_t>(shape.columns)};
  kernel->launch(current_stream(device), native.name(), static_cast<uint64_t>(input.numel()), args);
  return results;
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("native_layer_norm", TORCH_FN(native_layer_norm));
  m.impl("native_layer_norm_backward", TORCH_FN(native_layer_norm_backward));
}

}  // namespace
}  // namespace openreg
