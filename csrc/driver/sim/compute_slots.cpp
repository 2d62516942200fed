// compute_slots.cpp: the contested half of the compute slots.
#include "driver/sim/compute_slots.h"

#include <algorithm>

namespace openreg::sim {

bool ComputeSlots::wait_for_slot(int32_t priority, uint64_t deadline_ns) {
  Waiter self{priority};
  {
    std::lock_guard<std::mutex> guard(mutex_);
    if (cancelled_) return false;
    const auto place = std::find_if(waiters_.begin(), waiters_.end(), [&](Waiter* other) { return other->priority > priority; });
    waiters_.insert(place, &self);
    waiting_.fetch_add(1, std::memory_order_seq_cst);
    grant_locked();
  }
  while (self.answer.load(std::memory_order_acquire) == 0) {
    if (is_past(deadline_ns)) break;
    futex_wait(self.answer, 0, deadline_ns);
  }
  std::lock_guard<std::mutex> guard(mutex_);  // whoever answered has let go of `self`
  const uint32_t answer = self.answer.load(std::memory_order_relaxed);
  if (answer == 0) {
    waiters_.erase(std::find(waiters_.begin(), waiters_.end(), &self));
    waiting_.fetch_sub(1, std::memory_order_relaxed);
  }
  return answer == 1;
}

void ComputeSlots::grant() {
  std::lock_guard<std::mutex> guard(mutex_);
  grant_locked();
}

void ComputeSlots::grant_locked() {
  while (!waiters_.empty()) {
    int32_t free = free_.load(std::memory_order_seq_cst);
    while (free > 0 && !free_.compare_exchange_weak(free, free - 1, std::memory_order_seq_cst)) {
    }
    if (free <= 0) return;
    Waiter* first = waiters_.front();
    waiters_.erase(waiters_.begin());
    waiting_.fetch_sub(1, std::memory_order_relaxed);
    first->answer.store(1, std::memory_order_release);
    futex_wake(first->answer, 1);
  }
}

bool ComputeSlots::should_yield(int32_t priority, bool equals) {
  std::lock_guard<std::mutex> guard(mutex_);
  return !waiters_.empty() && waiters_.front()->priority < priority + (equals ? 1 : 0);
}

void ComputeSlots::cancel() {
  std::lock_guard<std::mutex> guard(mutex_);
  cancelled_ = true;
  for (Waiter* waiter : waiters_) {
    waiter->answer.store(2, std::memory_order_release);
    futex_wake(waiter->answer, 1);
  }
  waiting_.fetch_sub(static_cast<int32_t>(waiters_.size()), std::memory_order_relaxed);
  waiters_.clear();
}

void ComputeSlots::restore() {
  std::lock_guard<std::mutex> guard(mutex_);
  cancelled_ = false;
}

}  // namespace openreg::sim
