// Softmax and log_softmax on device kernels, where they go along the last dimension of a contiguous tensor; softmax with a mask and softmax
// that gives 0 for rows of -infinity, which attention uses, in one kernel each. Everything else goes to the engine, their gradients too: a
// kernel for those gains nothing over the CPU's.
#include "aten/kernels/softmax.h"

#include <ATen/ops/_safe_softmax_native.h>
#include <torch/library.h>

#include "aten/native_op.h"
#include "aten/tensor.h"
#include "runtime/stream.h"

namespace openreg {
namespace {

using at::Tensor;
using kernels::SoftmaxOp;

// A contiguous tensor with elements, of which one thread should take the rows alone.
bool has_rows(const Tensor& input, int64_t dim) {
  return is_device_tensor(input) && is_plain(input) && input.is_contiguous() && input.dim() > 0 && input.numel() > 0 && is_small(input.numel()) &&
         (dim == -1 || dim == input.dim() - 1);
}

bool is_like(const Tensor& tensor, const Tensor& input) {
  return is_device_tensor(tensor) && is_plain(tensor) && tensor.is_contiguous() && tensor.device() == input.device() &&
         tensor.scalar_type() == input.scalar_type() && tensor.sizes() == input.sizes();
}

template <SoftmaxOp op>
Kernel* find_forward(const char* name, c10::ScalarType type) {
  static KernelSlot slots[kernels::kDTypes];
  return find_kernel(slots, type, name, [](kernels::DType dtype) { return kernels::softmax_kernel(op, dtype); });
}

template <class Args>
void launch_rows(NativeOp& native, Kernel* kernel, const Tensor& out, const Args& args) {
  native.count_native();
  kernel->launch(current_stream(out.device().index()), native.name(), static_cast<uint64_t>(out.numel()), args);
}

Tensor make_like(const Tensor& input) { return make_contiguous(input.device().index(), input.sizes(), input.dtype()); }

uint64_t columns_of(const Tensor& tensor) { return static_cast<uint64_t>(tensor.size(-1)); }
uint64_t rows_of(const Tensor& tensor) { return static_cast<uint64_t>(tensor.numel()) / columns_of(tensor); }

void launch_forward(NativeOp& native, Kernel* kernel, const Tensor& out, const Tensor& input) {
  launch_rows(native, kernel, out, kernels::SoftmaxArgs{kernel_output(out), kernel_input(input), rows_of(input), columns_of(input)});
}

template <SoftmaxOp op>
Tensor forward(NativeOp& native, const char* name, const Tensor& input, int64_t dim, bool half_to_float) {
  Kernel* kernel = !half_to_float && has_rows(input, dim) ? find_forward<op>(name, input.scalar_type()) : nullptr;
  if (kernel == nullptr) return native.on_engine<Tensor>(input, dim, half_to_float);
  Tensor out = make_like(input);
  launch_forward(native, kernel, out, input);
  return out;
}

template <SoftmaxOp op>
Tensor& forward_out(NativeOp& native, const char* name, const Tensor& input, int64_t dim, bool half_to_float, Tensor& out) {
  const bool fits = !half_to_float && has_rows(input, dim) && is_like(out, input) &&
                    (out.const_data_ptr() == input.const_data_ptr() || !share_bytes(out, input));
  Kernel* kernel = fits ? find_forward<op>(name, input.scalar_type()) : nullptr;
  if (kernel == nullptr) {
    native.on_engine<void>(input, dim, half_to_float, out);
  } else {
    launch_forward(native, kernel, out, input);
  }
  return out;
}

Tensor softmax(const Tensor& input, int64_t dim, bool half_to_float) {
  static NativeOp native("aten::_softmax", "");
  return forward<SoftmaxOp::softmax>(native, "softmax", input, dim, half_to_float);
}

Tensor& softmax_out(const Tensor& input, int64_t dim, bool half_to_float, Tensor& out) {
  static NativeOp native("aten::_softmax", "out");
  return forward_out<SoftmaxOp::softmax>(native, "softmax", input, dim, half_to_float, out);
}

Tensor log_softmax(const Tensor& input, int64_t dim, bool half_to_float) {
  static NativeOp native("aten::_log_softmax", "");
  return forward<SoftmaxOp::log_softmax>(native, "log_softmax", input, dim, half_to_float);
}

Tensor& log_softmax_out(const Tensor& input, int64_t dim, bool half_to_float, Tensor& out) {
  static NativeOp native("aten::_log_softmax", "out");
  return forward_out<SoftmaxOp::log_softmax>(native, "log_softmax", input, dim, half_to_float, out);
}

// Core makes this one of four operators.
Tensor safe_softmax(const Tensor& input, int64_t dim, std::optional<c10::ScalarType> type) {
  static NativeOp native("aten::_safe_softmax", "");
  const bool fits = has_rows(input, dim) && type.value_or(input.scalar_type()) == input.scalar_type();
  Kernel* kernel = fits ? find_forward<SoftmaxOp::safe_softmax>("safe_softmax", input.scalar_type()) : nullptr;
  if (kernel == nullptr) return at::native::_safe_softmax(input, dim, type);
  Tensor out = make_like(input);
  launch_forward(native, kernel, out, input);
  return out;
}

// Which rows of the mask belong to which rows of the input: one for each (mask_type 2), one for each query of a sequence (0), one for each
// sequence (1), the last two for inputs of (batch, heads, length, length).
bool fit_mask(const Tensor& input, const Tensor& mask, int64_t mask_type, kernels::MaskedSoftmaxArgs* args) {
  if (!is_device_tensor(mask) || !is_plain(mask) || !mask.is_contiguous() || mask.device() != input.device() || mask.scalar_type() != at::kBool) return false;
  args->rows_per_mask = 1;
  args->masks = rows_of(input);
  if (mask_type == 2) return mask.sizes() == input.sizes();
  if (input.dim() != 4 || mask.dim() != 2 || input.size(2) != input.size(3) || mask.size(1) != input.size(3)) return false;
  args->masks = static_cast<uint64_t>(mask.size(0));
  if (mask_type == 0) return mask.size(0) == input.size(2);
  args->rows_per_mask = static_cast<uint64_t>(input.size(1) * input.size(2));
  return mask_type == 1 && mask.size(0) == input.size(0);
}

Tensor masked_softmax(const Tensor& input, const Tensor& mask, std::optional<int64_t> dim, std::optional<int64_t> mask_type) {
  static NativeOp native("aten::_masked_softmax", "");
  static KernelSlot slots[kernels::kDTypes];
  Kernel* kernel = nullptr;
  kernels::MaskedSoftmaxArgs args = {};
  if (mask_type && has_rows(input, dim.value_or(-1)) && fit_mask(input, mask, *mask_type, &args)) {
    kernel = find_kernel(slots, input.scalar_type(), "masked_softmax", kernels::masked_softmax_kernel);
  }
  if (kernel == nullptr) return native.on_engine<Tensor>(input, mask, dim, mask_type);
  Tensor out = make_like(input);
  args.out = kernel_output(out);
  args.in = kernel_input(input);
  args.mask = static_cast<const uint8_t*>(kernel_input(mask));
  args.rows = rows_of(input);
  args.columns = columns_of(input);
  launch_rows(native, kernel, out, args);
  return out;
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("_softmax", TORCH_FN(softmax));
  m.impl("_softmax.out", TORCH_FN(softmax_out));
  m.impl("_log_softmax", TORCH_FN(log_softmax));
  m.impl("_log_softmax.out", TORCH_FN(log_softmax_out));
  m.impl("_safe_softmax", TORCH_FN(safe_softmax));
  m.impl("_masked_softmax", TORCH_FN(masked_softmax));
}

}  // namespace
}  // namespace openreg
