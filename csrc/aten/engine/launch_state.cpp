// Capturing and applying launch state.
#include "aten/engine/launch_state.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/record_function.h>
#include <c10/core/DefaultDtype.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <dlfcn.h>
#include <torch/csrc/autograd/graph_task.h>

#include <new>
#include <optional>

#include "runtime/error.h"
#include "runtime/hooks.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace openreg::engine {

namespace {

uint32_t float_control() {
#if defined(__x86_64__)
  return _mm_getcsr() & 0x8040u;  // flush-to-zero and denormals-are-zero
#elif defined(__aarch64__)
  uint64_t fpcr;
  asm volatile("mrs %0, fpcr" : "=r"(fpcr));
  return static_cast<uint32_t>(fpcr & (1u << 24));
#endif
}

void set_float_control(uint32_t bits) {
#if defined(__x86_64__)
  _mm_setcsr((_mm_getcsr() & ~0x8040u) | bits);
#elif defined(__aarch64__)
  uint64_t fpcr;
  asm volatile("mrs %0, fpcr" : "=r"(fpcr));
  fpcr = (fpcr & ~static_cast<uint64_t>(1u << 24)) | bits;
  asm volatile("msr fpcr, %0" ::"r"(fpcr));
#endif
}

bool process_flags_differ(const LaunchState& a, const LaunchState& b) {
  return a.default_dtype != b.default_dtype || a.deterministic != b.deterministic || a.matmul_precision != b.matmul_precision ||
         a.conv_precision != b.conv_precision || a.libraries != b.libraries;
}

c10::DispatchKeySet included() { return c10::default_included_set; }

c10::DispatchKeySet excluded() {
  return c10::default_excluded_set | c10::autograd_dispatch_keyset_with_ADInplaceOrView | c10::autocast_dispatch_keyset;
}

// at::set_num_threads would also change the number that threads start with: the program's choice, which it may have changed since the launch.
// So this calls the OpenMP runtime that core is linked with.
void set_threads_of_this_thread(int count) {
  using Set = void (*)(int);
  static const auto set = [] {
    void* core = dlopen("libtorch_cpu.so", RTLD_LAZY | RTLD_NOLOAD);
    return core != nullptr ? reinterpret_cast<Set>(dlsym(core, "omp_set_num_threads")) : nullptr;
  }();
  set != nullptr ? set(count) : at::set_num_threads(count);
}

void apply(const LaunchState& wanted, const LaunchState& now) {
  if (wanted.threads != now.threads) set_threads_of_this_thread(wanted.threads);
  if (wanted.float_control != now.float_control) set_float_control(wanted.float_control);
  if (wanted.default_dtype != now.default_dtype) {
    c10::set_default_dtype(c10::scalarTypeToTypeMeta(static_cast<c10::ScalarType>(wanted.default_dtype)));
  }
  auto& context = at::globalContext();
  if (wanted.deterministic != now.deterministic) {
    context.setDeterministicAlgorithms(wanted.deterministic & 1, (wanted.deterministic & 2) != 0);
    context.setDeterministicFillUninitializedMemory((wanted.deterministic & 4) != 0);
  }
  const auto set_precision = [&](at::Float32Op op, uint8_t precision) {
    const auto value = static_cast<at::Float32Precision>(precision);
    context.setFloat32Precision(at::Float32Backend::MKLDNN, op, at::Float32Precision::NONE);
    if (context.float32Precision(at::Float32Backend::MKLDNN, op) != value) context.setFloat32Precision(at::Float32Backend::MKLDNN, op, value);
  };
  if (wanted.matmul_precision != now.matmul_precision) set_precision(at::Float32Op::MATMUL, wanted.matmul_precision);
  if (wanted.conv_precision != now.conv_precision) set_precision(at::Float32Op::CONV, wanted.conv_precision);
  if (wanted.libraries != now.libraries) {
    context.setUserEnabledMkldnn(wanted.libraries & 1);
    context.setDeterministicMkldnn((wanted.libraries & 2) != 0);
    context.setUserEnabledNNPACK((wanted.libraries & 4) != 0);
  }
}

// A number of threads belongs to the thread that set it, and the autograd engine's device threads take over the last one only when
// they start: whoever set it, also a thread that pins memory for a data loader. The CPU's backward runs on the thread that calls it; so here, each
// backward brings that thread's number to the device thread.
// A thread whose first launch is in a backward is the engine's.
void follow_caller_of_backward() {
  thread_local int last = -1;
  thread_local const bool of_engine = torch::autograd::get_current_graph_task_id() != -1;
  if (__builtin_expect(!of_engine, 1)) return;
  const int task = torch::autograd::get_current_graph_task_id();
  if (task == last) return;
  last = task;
  const int threads = threads_of_backward();
  if (at::get_num_threads() != threads && threads > 0) set_threads_of_this_thread(threads);
}

}  // namespace

struct KernelScope::Guards {
  explicit Guards(bool grad_mode) : grad(grad_mode) {
    // Switching record functions off costs more than to see that there are none.
    if (C10_UNLIKELY(at::getStepCallbacksUnlessEmpty(at::RecordScope::FUNCTION).has_value())) record.emplace();
  }
  c10::impl::ForceDispatchKeyGuard keys{included(), excluded()};
  c10::AutoGradMode grad;
  std::optional<at::DisableRecordFunctionGuard> record;
};

int32_t threads_of_launch() {
  follow_caller_of_backward();
  return at::get_num_threads();
}

LaunchState capture_launch_state() {
  const auto& context = at::globalContext();
  LaunchState state = {};
  state.threads = threads_of_launch();
  state.float_control = float_control();
  state.default_dtype = static_cast<uint8_t>(c10::typeMetaToScalarType(c10::get_default_dtype()));
  state.deterministic = static_cast<uint8_t>(context.deterministicAlgorithms() | context.deterministicAlgorithmsWarnOnly() << 1 |
                                             context.deterministicFillUninitializedMemory() << 2);
  const auto precision = [&](at::Float32Op op) { return static_cast<uint8_t>(context.float32Precision(at::Float32Backend::MKLDNN, op)); };
  state.matmul_precision = precision(at::Float32Op::MATMUL);
  state.conv_precision = precision(at::Float32Op::CONV);
  state.grad_mode = c10::GradMode::is_enabled();
  state.libraries = static_cast<uint8_t>(context.userEnabledMkldnn() | context.deterministicMkldnn() << 1 | context.userEnabledNNPACK() << 2);
  return state;
}

KernelScope::KernelScope(const LaunchState& state) : before_(capture_launch_state()), applied_(state) {
  static_assert(sizeof(Guards) <= sizeof(guards_));
  before_.grad_mode = state.grad_mode;  // the guard's business
  changed_ = !(state == before_);
  if (__builtin_expect(changed_, 0)) {
    if (process_flags_differ(state, before_)) {
      static std::mutex* mutex = new std::mutex;
      lock_ = std::unique_lock<std::mutex>(*mutex);
      before_ = capture_launch_state();
    }
    apply(state, before_);
  }
  new (guards_) Guards(state.grad_mode != 0);
}

KernelScope::~KernelScope() {
  reinterpret_cast<Guards*>(guards_)->~Guards();
  if (__builtin_expect(!changed_, 1)) return;
  const LaunchState now = capture_launch_state();
  LaunchState restored = now;
  // A worker keeps what belongs to its thread, because the next task most likely wants it again.
  if (HostWait::active()) {
    restored.threads = before_.threads;
    restored.float_control = before_.float_control;
  }
  if (now.default_dtype == applied_.default_dtype) restored.default_dtype = before_.default_dtype;
  if (now.deterministic == applied_.deterministic) restored.deterministic = before_.deterministic;
  if (now.matmul_precision == applied_.matmul_precision) restored.matmul_precision = before_.matmul_precision;
  if (now.conv_precision == applied_.conv_precision) restored.conv_precision = before_.conv_precision;
  if (now.libraries == applied_.libraries) restored.libraries = before_.libraries;
  apply(restored, now);
}

}  // namespace openreg::engine
