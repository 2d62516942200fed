// kaiser_window: the one factory whose values core computes through a stub of each device type. A window is a constant, so the host makes
// it and the device gets a copy.
#include <ATen/TensorIterator.h>
#include <ATen/native/DispatchStub.h>
#include <ATen/native/UnaryOps.h>
#include <ATen/ops/kaiser_window.h>

namespace openreg {

namespace {

// Core has allocated the output, has made room for the last element of a periodic window, and cuts it off afterwards.
void kaiser_window(at::TensorIteratorBase& iter, int64_t window_length, double beta) {
  const at::Tensor& out = iter.tensor(0);
  out.copy_(at::kaiser_window(window_length, /*periodic=*/false, beta, out.options().device(at::kCPU)));
}

}  // namespace

}  // namespace openreg

namespace at::native {

REGISTER_PRIVATEUSE1_DISPATCH(kaiser_window_stub, &openreg::kaiser_window)

}  // namespace at::native
