// leaky_square: x * x where x is positive, slope * x elsewhere. An operator that is built outside torch_openreg's tree,
// against its public headers: a schema, device kernels for forward and backward on the current stream, and Meta functions.
// docs/operators.md walks through this file.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include "aten/tensor.h"
#include "runtime/driver.h"
#include "runtime/launch.h"
#include "runtime/stream.h"

namespace {

// What travels with a launch: addresses that the device uses, sizes and numbers. No tensors.
struct Args {
  void* out;
  const void* grad;  // null in forward
  const void* x;
  uint64_t count;  // elements
  double slope;
};

// ---- Device code: runs later, on the device, without PyTorch -----------------

template <class T>
void forward_kernel(const openreg_geometry*, const void* raw) {
  const auto& args = *static_cast<const Args*>(raw);
  const T* x = static_cast<const T*>(args.x);
  T* out = static_cast<T*>(args.out);
  for (uint64_t i = 0; i < args.count; ++i) out[i] = x[i] > 0 ? x[i] * x[i] : static_cast<T>(args.slope) * x[i];
}

template <class T>
void backward_kernel(const openreg_geometry*, const void* raw) {
  const auto& args = *static_cast<const Args*>(raw);
  const T* x = static_cast<const T*>(args.x);
  const T* grad = static_cast<const T*>(args.grad);
  T* out = static_cast<T*>(args.out);
  for (uint64_t i = 0; i < args.count; ++i) out[i] = grad[i] * (x[i] > 0 ? 2 * x[i] : static_cast<T>(args.slope));
}

// ---- Host code: checks, allocates, launches, returns -------------------------

void check_input(const at::Tensor& x) {
  TORCH_CHECK_TYPE(x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble, "leaky_square takes float32 and float64, not ", x.scalar_type());
}

at::Tensor launch(openreg::Kernel& kernel, const char* name, const at::Tensor* grad, const at::Tensor& x, double slope) {
  const c10::DeviceIndex device = x.device().index();
  at::Tensor out = openreg::make_contiguous(device, x.sizes(), x.dtype());
  if (x.numel() == 0) return out;
  const Args args = {
      openreg::kernel_ptr(out.mutable_data_ptr(), device),
      grad ? openreg::kernel_ptr(grad->const_data_ptr(), device) : nullptr,
      openreg::kernel_ptr(x.const_data_ptr(), device),
      static_cast<uint64_t>(x.numel()),
      slope,
  };
  kernel.launch(openreg::current_stream(device), name, args.count, args);
  return out;
}

at::Tensor leaky_square(const at::Tensor& x, double slope) {
  check_input(x);
  static openreg::Kernel single("leaky_square_f32", forward_kernel<float>), twice("leaky_square_f64", forward_kernel<double>);
  return launch(x.scalar_type() == at::kFloat ? single : twice, "example::leaky_square", nullptr, x.contiguous(), slope);
}

at::Tensor leaky_square_backward(const at::Tensor& grad, const at::Tensor& x, double slope) {
  check_input(x);
  TORCH_CHECK(grad.sizes() == x.sizes() && grad.dtype() == x.dtype() && grad.device() == x.device(),
              "leaky_square_backward: the gradient and x differ in shape, dtype or device.");
  static openreg::Kernel single("leaky_square_backward_f32", backward_kernel<float>), twice("leaky_square_backward_f64", backward_kernel<double>);
  const at::Tensor dense = grad.contiguous();
  return launch(x.scalar_type() == at::kFloat ? single : twice, "example::leaky_square_backward", &dense, x.contiguous(), slope);
}

at::Tensor leaky_square_meta(const at::Tensor& x, double) { return at::empty_like(x, at::MemoryFormat::Contiguous); }
at::Tensor leaky_square_backward_meta(const at::Tensor&, const at::Tensor& x, double) { return at::empty_like(x, at::MemoryFormat::Contiguous); }

}  // namespace

TORCH_LIBRARY(example, m) {
  m.def("leaky_square(Tensor x, float slope) -> Tensor");
  m.def("leaky_square_backward(Tensor grad, Tensor x, float slope) -> Tensor");
}

TORCH_LIBRARY_IMPL(example, PrivateUse1, m) {
  m.impl("leaky_square", leaky_square);
  m.impl("leaky_square_backward", leaky_square_backward);
}

TORCH_LIBRARY_IMPL(example, Meta, m) {
  m.impl("leaky_square", leaky_square_meta);
  m.impl("leaky_square_backward", leaky_square_backward_meta);
}
