// The state that ATen's CPU kernels read besides their arguments: taken from the launching thread, applied around the kernel.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <mutex>

namespace openreg::engine {

struct LaunchState {
  int32_t threads;          // at::get_num_threads()
  uint32_t float_control;   // the thread's floating-point control bits (flush-denormal)
  uint8_t default_dtype;
  uint8_t deterministic;    // bit 0: on, bit 1: warn only, bit 2: fill uninitialised memory
  uint8_t matmul_precision, conv_precision;  // at::Float32Precision of the CPU's float32 products
  uint8_t grad_mode;        // a few kernels ask for it below autograd
  uint8_t libraries;        // bit 0: oneDNN is on, bit 1: its deterministic algorithms, bit 2: NNPACK is on
  uint8_t unused[2];
  bool operator==(const LaunchState& other) const = default;
};

LaunchState capture_launch_state();

// The threads that a launch of this thread has: in a backward, those of the thread that called it.
int32_t threads_of_launch();

// Applies a state on this thread for its lifetime, with dispatch below autograd, autocast, functorch and Python modes, without
// record functions. Process-wide flags are changed only when they differ from the captured ones, by one task at a time, and are restored
// afterwards unless somebody changed them meanwhile; other threads see the captured values until then. A precision that was inherited from a
// wider setting is inherited again.
class KernelScope {
 public:
  explicit KernelScope(const LaunchState& state);
  ~KernelScope();
  KernelScope(const KernelScope&) = delete;
  KernelScope& operator=(const KernelScope&) = delete;

 private:
  struct Guards;
  alignas(8) char guards_[96];
  LaunchState before_, applied_;
  bool changed_ = false;
  std::unique_lock<std::mutex> lock_;  // held while process-wide flags are changed
};

}  // namespace openreg::engine
