// Letting go of the interpreter's lock.
#include "runtime/interpreter_lock.h"

#include <atomic>

namespace openreg {

namespace {

std::atomic<void* (*)()> release_lock{nullptr};
std::atomic<void (*)(void*)> acquire_lock{nullptr};

}  // namespace

WithoutInterpreterLock::WithoutInterpreterLock() {
  auto* release = release_lock.load(std::memory_order_acquire);
  state_ = release == nullptr ? nullptr : release();
}

WithoutInterpreterLock::~WithoutInterpreterLock() {
  if (state_ != nullptr) acquire_lock.load(std::memory_order_relaxed)(state_);
}

void set_interpreter_lock(void* (*release)(), void (*acquire)(void*)) {
  acquire_lock = acquire;
  release_lock.store(release, std::memory_order_release);
}

}  // namespace openreg
