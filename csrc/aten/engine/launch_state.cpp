// Capturing and applying launch state.
#include "aten/engine/launch_state.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/record_function.h>
#include <c10/core/DefaultDtype.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <new>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace openreg::engine {

namespace {

thread_local bool host_thread = false;

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

c10::DispatchKeySet included() { return c10::default_included_set; }

c10::DispatchKeySet excluded() {
  return c10::default_excluded_set | c10::autograd_dispatch_keyset_with_ADInplaceOrView | c10::autocast_dispatch_keyset;
}

void apply(const LaunchState& wanted, const LaunchState& now) {
  if (wanted.threads != now.threads) at::set_num_threads(wanted.threads);
  if (wanted.float_control != now.float_control) set_float_control(wanted.float_control);
  if (wanted.default_dtype != now.default_dtype) {
    c10::set_default_dtype(c10::scalarTypeToTypeMeta(static_cast<c10::ScalarType>(wanted.default_dtype)));
  }
  auto& context = at::globalContext();
  if (wanted.deterministic != now.deterministic) {
    context.setDeterministicAlgorithms(wanted.deterministic & 1, (wanted.deterministic & 2) != 0);
    context.setDeterministicFillUninitializedMemory((wanted.deterministic & 4) != 0);
  }
  if (wanted.matmul_precision != now.matmul_precision) {
    static constexpr const char* kNames[] = {"highest", "high", "medium"};
    context.setFloat32MatmulPrecision(kNames[wanted.matmul_precision]);
  }
}

}  // namespace

struct KernelScope::Guards {
  explicit Guards(bool grad_mode) : grad(grad_mode) {}
  c10::impl::ForceDispatchKeyGuard keys{included(), excluded()};
  c10::AutoGradMode grad;
  at::DisableRecordFunctionGuard record;
};

LaunchState capture_launch_state() {
  const auto& context = at::globalContext();
  LaunchState state = {};
  state.threads = at::get_num_threads();
  state.float_control = float_control();
  state.default_dtype = static_cast<uint8_t>(c10::typeMetaToScalarType(c10::get_default_dtype()));
  state.deterministic = static_cast<uint8_t>(context.deterministicAlgorithms() | context.deterministicAlgorithmsWarnOnly() << 1 |
                                             context.deterministicFillUninitializedMemory() << 2);
  state.matmul_precision = static_cast<uint8_t>(context.float32MatmulPrecision());
  state.grad_mode = c10::GradMode::is_enabled();
  return state;
}

void mark_host_thread() { host_thread = true; }

KernelScope::KernelScope(const LaunchState& state) : before_(capture_launch_state()), applied_(state) {
  static_assert(sizeof(Guards) <= sizeof(guards_));
  new (guards_) Guards(state.grad_mode != 0);
  before_.grad_mode = state.grad_mode;  // the guard's business
  if (__builtin_expect(state == before_, 1)) return;
  static std::mutex* mutex = new std::mutex;
  lock_ = std::unique_lock<std::mutex>(*mutex);
  before_ = capture_launch_state();
  apply(state, before_);
}

KernelScope::~KernelScope() {
  if (__builtin_expect(lock_.owns_lock(), 0)) {
    const LaunchState now = capture_launch_state();
    LaunchState restored = now;
    restored.float_control = before_.float_control;
    // A worker keeps the thread count, because the next task most likely wants it again.
    if (host_thread) restored.threads = before_.threads;
    if (now.default_dtype == applied_.default_dtype) restored.default_dtype = before_.default_dtype;
    if (now.deterministic == applied_.deterministic) restored.deterministic = before_.deterministic;
    if (now.matmul_precision == applied_.matmul_precision) restored.matmul_precision = before_.matmul_precision;
    apply(restored, now);
  }
  reinterpret_cast<Guards*>(guards_)->~Guards();
}

}  // namespace openreg::engine
