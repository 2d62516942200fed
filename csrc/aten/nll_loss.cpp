// The negative log likelihood of rows of contiguous log probabilities, as cross entropy takes it. It runs as a host function, because a target
// out of range is a late error of the stream. Everything else goes to the engine.
#include "aten/kernels/nll_loss.h"

#include <c10/util/Exception.h>
#include <torch/library.h>

#include <tuple>

#include "aten/native_op.h"
#include "aten/tensor.h"
#include "runtime/error.h"
#include "runtime/stream.h"

namespace openreg {
namespace {

using at::Tensor;
using MaybeTensor = std::optional<Tensor>;
using kernels::Reduction;

openreg_status out_of_bounds(int64_t target, openreg_error* error) {
  try {
    TORCH_CHECK_INDEX(false, "Target ", target, " is out of bounds.");
  } catch (...) {
    describe_current_exception(error);
  }
  return OPENREG_LAUNCH_FAILED;
}

template <class Args, bool (*kernel)(const Args&, int64_t*)>
openreg_status run(void* args, openreg_error* error) {
  int64_t wrong = 0;
  return kernel(*static_cast<const Args*>(args), &wrong) ? OPENREG_OK : out_of_bounds(wrong, error);
}

bool is_dense(const Tensor& tensor, const Tensor& beside, c10::ScalarType type) {
  return is_device_tensor(tensor) && is_plain(tensor) && tensor.is_contiguous() && tensor.device() == beside.device() && tensor.scalar_type() == type;
}

bool is_given(const MaybeTensor& tensor) { return tensor && tensor->defined(); }

// Whether the kernels have the type of `in` and its sizes fit those of the target and the weight.
bool fits(const Tensor& in, const Tensor& target, const MaybeTensor& weight, int64_t reduction) {
  const c10::ScalarType type = in.scalar_type();
  if ((type != at::kFloat && type != at::kDouble) || !is_dense(in, in, type) || in.dim() != 2 || in.numel() == 0 || !is_small(in.numel())) return false;
  if (!is_dense(target, in, at::kLong) || target.dim() != 1 || target.size(0) != in.size(0) || reduction < 0 || reduction > 2) return false;
  return !is_given(weight) || (is_dense(*weight, in, type) && weight->dim() == 1 && weight->size(0) == in.size(1));
}

template <class Args, bool (*for_float)(const Args&, int64_t*), bool (*for_double)(const Args&, int64_t*)>
void launch(NativeOp& native, const Tensor& in, const Args& args) {
  native.count_native();
  const auto function = in.scalar_type() == at::kFloat ? run<Args, for_float> : run<Args, for_double>;
  launch_host_func(current_stream(in.device().index()), native.name(), function, &args, sizeof(args));
}

const void* input_or_null(const MaybeTensor& tensor) { return is_given(tensor) ? kernel_input(*tensor) : nullptr; }

std::tuple<Tensor, Tensor> nll_loss_forward(const Tensor& in, const Tensor& target, const MaybeTensor& weight, int64_t reduction, int64_t ignored) {
  static NativeOp native("aten::nll_loss_forward", "");
  if (!fits(in, target, weight, reduction)) return native.on_engine<std::tuple<Tensor, Tensor>>(in, target, weight, reduction, ignored);
  const c10::DeviceIndex device = in.device().index();
  const bool each = reduction == static_cast<int64_t>(Reduction::none);
  Tensor out = make_contiguous(device, each ? target.sizes() : at::IntArrayRef(), in.dtype());
  Tensor total = make_contiguous(device, {}, in.dtype());
  const kernels::NllLossArgs args{kernel_output(out), kernel_output(total), kernel_input(in), static_cast<const int64_t*>(kernel_input(target)),
                                  input_or_null(weight), in.size(0), in.size(1), ignored, static_cast<Reduction>(reduction)};
  launch<kernels::NllLossArgs, kernels::nll_loss<float>, kernels::nll_loss<double>>(native, in, args);
  return {out, total};
}

Tensor nll_loss_backward(const Tensor& grad, const Tensor& in, const Tensor& target, const MaybeTensor& weight, int64_t reduction, int64_t ignored,
                         const Tensor& total) {
  static NativeOp native("aten::nll_loss_backward", "");
  const bool each = reduction == static_cast<int64_t>(Reduction::none);
  if (!fits(in, target, weight, reduction) || !is_dense(grad, in, in.scalar_type()) || !is_dense(total, in, in.scalar_type()) || total.numel() != 1 ||
      (each ? grad.sizes() != target.sizes() : grad.dim() != 0)) {
    return native.on_engine<Tensor>(grad, in, target, weight, reduction, ignored, total);
  }
  Tensor grad_in = make_contiguous(in.device().index(), in.sizes(), in.dtype());
  const kernels::NllLossBackwardArgs args{kernel_output(grad_in), kernel_input(grad), static_cast<const int64_t*>(kernel_input(target)),
                                          input_or_null(weight), kernel_input(total), in.size(0), in.size(1), ignored,
                                          static_cast<Reduction>(reduction)};
  launch<kernels::NllLossBackwardArgs, kernels::nll_loss_backward<float>, kernels::nll_loss_backward<double>>(native, in, args);
  return grad_in;
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("nll_loss_forward", TORCH_FN(nll_loss_forward));
  m.impl("nll_loss_backward", TORCH_FN(nll_loss_backward));
}

}  // namespace
}  // namespace openreg
