// The fused optimizers (`fused=True`) on device kernels: one launch for up to 32 parameters. Calls that a kernel does not cover (gradient
// scaling, a learning rate that is a tensor, other dtypes, layouts that differ) go to the engine.
#include <torch/library.h>

#include <algorithm>

#include "aten/kernels/optimizer.h"
#include "aten/native_op.h"
#include "aten/tensor.h"
#include "runtime/stream.h"

namespace openreg {
namespace {

constexpr size_t kMaxEntries = 32;

Kernel* find_adam(c10::ScalarType type) {
  static KernelSlot slots[kernels::kDTypes];
  return find_kernel(slots, type, "adam", kernels::adam_kernel);
}

Kernel* find_sgd(c10::ScalarType type) {
  static KernelSlot slots[kernels::kDTypes];
  return find_kernel(slots, type, "sgd", kernels::sgd_kernel);
}

bool fits_parameter(const at::Tensor& parameter, const at::Tensor& first) {
  return is_plain(parameter) && parameter.scalar_type() == first.scalar_type() && parameter.device() == first.device() &&
         parameter.is_non_overlapping_and_dense() && is_small(parameter.numel());
}

// Whether every tensor lies beside its parameter element by element, in memory of its own.
bool match(at::TensorList parameters, at::TensorList others) {
  if (others.size() != parameters.size()) return false;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const at::Tensor &parameter = parameters[i], &other = others[i];
    if (!is_plain(other) || other.scalar_type() != parameter.scalar_type() || other.device() != parameter.device() ||
        other.sizes() != parameter.sizes() || other.strides() != parameter.strides() || share_bytes(parameter, other)) {
      return false;
    }
  }
  return true;
}

// Whether the kernels cover a list of parameters, at least one.
bool fit(at::TensorList parameters) {
  if (parameters.empty() || !is_device_tensor(parameters[0])) return false;
  return std::all_of(parameters.begin(), parameters.end(), [&](const at::Tensor& tensor) { return fits_parameter(tensor, parameters[0]); });
}

// The address of a tensor that a kernel reads and writes.
void* in_out(const at::Tensor& tensor) {
  note_tensor(tensor, Touch::reads);
  return kernel_output(tensor);
}

bool is_step(const at::Tensor& step, const at::Tensor& parameter) {
  return is_plain(step) && step.scalar_type() == c10::ScalarType::Float && step.numel() == 1 && step.device() == parameter.device();
}

// Launches `header` with entries made by entry(i), in parts of at most kMaxEntries.
template <template <int> class Args, class MakeHeader, class MakeEntry>
void launch(NativeOp& native, Kernel* kernel, at::TensorList parameters, MakeHeader header, MakeEntry entry) {
  native.count_native();
  const auto part = [&](auto& args, size_t begin, size_t end) {
    header(args);
    args.entries = end - begin;
    uint64_t elements = 0;
    for (size_t i = begin; i < end; ++i) {
      args.entry[i - begin] = entry(i);
      elements += args.entry[i - begin].count;
    }
    if (elements != 0) {
      kernel->launch(current_stream(parameters[0].device().index()), native.name(), elements, args);
    } else if (wants_ranges()) {
      forget_operands();  // the steps
    }
  };
  for (size_t begin = 0; begin < parameters.size(); begin += kMaxEntries) {
    const size_t end = std::min(parameters.size(), begin + kMaxEntries);
    if (end - begin <= 8) {
      Args<8> args = {};
      part(args, begin, end);
    } else {
      Args<kMaxEntries> args = {};
      part(args, begin, end);
    }
  }
}

void adam(NativeOp& native, bool decoupled, at::TensorList self, at::TensorList grads, at::TensorList averages, at::TensorList squares,
          at::TensorList largest, at::TensorList steps, double lr, double beta1, double beta2, double weight_decay, double eps, bool amsgrad,
          bool maximize, const std::optional<at::Tensor>& grad_scale, const std::optional<at::Tensor>& found_inf) {
  Kernel* kernel = !grad_scale && !found_inf && fit(self) ? find_adam(self[0].scalar_type()) : nullptr;
  const bool covered = kernel != nullptr && match(self, grads) && match(self, averages) && match(self, squares) &&
                       (!amsgrad || match(self, largest)) && steps.size() == self.size() &&
                       std::all_of(steps.begin(), steps.end(), [&](const at::Tensor& step) { return is_step(step, self[0]); });
  if (!covered) {
    return native.on_engine<void>(self, grads, averages, squares, largest, steps, lr, beta1, beta2, weight_decay, eps, amsgrad, maximize,
                                  grad_scale, found_inf);
  }
  launch<kernels::AdamArgs>(
      native, kernel, self,
      [&](auto& args) {
        args.rate = lr;
        args.beta1 = beta1;
        args.beta2 = beta2;
        args.weight_decay = weight_decay;
        args.epsilon = eps;
        args.decoupled = decoupled;
        args.maximize = maximize;
      },
      [&](size_t i) {
        return kernels::AdamEntry{in_out(self[i]),
                                  kernel_input(grads[i]),
                                  in_out(averages[i]),
                                  in_out(squares[i]),
                                  amsgrad ? in_out(largest[i]) : nullptr,
                                  static_cast<const float*>(kernel_input(steps[i])),
                                  static_cast<uint64_t>(self[i].numel())};
      });
}

void fused_adam_(at::TensorList self, at::TensorList grads, at::TensorList averages, at::TensorList squares, at::TensorList largest,
                 at::TensorList steps, double lr, double beta1, double beta2, double weight_decay, double eps, bool amsgrad, bool maximize,
                 const std::optional<at::Tensor>& grad_scale, const std::optional<at::Tensor>& found_inf) {
  static NativeOp native("aten::_fused_adam_", "");
  adam(native, false, self, grads, averages, squares, largest, steps, lr, beta1, beta2, weight_decay, eps, amsgrad, maximize, grad_scale,
       found_inf);
}

void fused_adamw_(at::TensorList self, at::TensorList grads, at::TensorList averages, at::TensorList squares, at::TensorList largest,
                  at::TensorList steps, double lr, double beta1, double beta2, double weight_decay, double eps, bool amsgrad, bool maximize,
                  const std::optional<at::Tensor>& grad_scale, const std::optional<at::Tensor>& found_inf) {
  static NativeOp native("aten::_fused_adamw_", "");
  adam(native, true, self, grads, averages, squares, largest, steps, lr, beta1, beta2, weight_decay, eps, amsgrad, maximize, grad_scale,
       found_inf);
}

void fused_sgd_(at::TensorList self, at::TensorList grads, at::TensorList buffers, double weight_decay, double momentum, double lr,
                double dampening, bool nesterov, bool maximize, bool first_step, const std::optional<at::Tensor>& grad_scale,
                const std::optional<at::Tensor>& found_inf) {
  static NativeOp native("aten::_fused_sgd_", "");
  const bool with_momentum = momentum != 0;
  Kernel* kernel = !grad_scale && !found_inf && fit(self) ? find_sgd(self[0].scalar_type()) : nullptr;
  if (kernel == nullptr || !match(self, grads) || (with_momentum && !match(self, buffers))) {
    return native.on_engine<void>(self, grads, buffers, weight_decay, momentum, lr, dampening, nesterov, maximize, first_step, grad_scale,
                                  found_inf);
  }
  launch<kernels::SgdArgs>(
      native, kernel, self,
      [&](auto& args) {
        args.rate = lr;
        args.momentum = momentum;
        args.weight_decay = weight_decay;
        args.dampening = dampening;
        args.nesterov = nesterov;
        args.maximize = maximize;
        args.first_step = first_step;
      },
      [&](size_t i) {
        void* momentum_buffer = nullptr;
        if (with_momentum) momentum_buffer = first_step ? kernel_output(buffers[i]) : in_out(buffers[i]);
        return kernels::SgdEntry{in_out(self[i]), kernel_input(grads[i]), momentum_buffer, static_cast<uint64_t>(self[i].numel())};
      });
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("_fused_adam_", TORCH_FN(fused_adam_));
  m.impl("_fused_adamw_", TORCH_FN(fused_adamw_));
  m.impl("_fused_sgd_", TORCH_FN(fused_sgd_));
}

}  // namespace
}  // namespace openreg
