// compute_slots.h: lets at most compute_units tasks of one device run at once, the most urgent first.
//
// While nobody waits, taking and giving a slot are one atomic operation each.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

#include "driver/sim/futex.h"

namespace openreg::sim {

class ComputeSlots {
 public:
  // `free` counts the slots that nobody holds, beginning now, where others may watch it (usage.h).
  ComputeSlots(int32_t units, std::atomic<int32_t>& free) : free_(free) { free_.store(units, std::memory_order_relaxed); }

  // Waits for a slot; a lower number is more urgent, equals are served in order. False at the deadline or after cancel.
  bool acquire(int32_t priority, uint64_t deadline_ns) {
    int32_t free = free_.load(std::memory_order_relaxed);
    while (free > 0 && !contested())
      if (free_.compare_exchange_weak(free, free - 1, std::memory_order_acquire)) return true;
    return wait_for_slot(priority, deadline_ns);
  }

  void release() {
    free_.fetch_add(1, std::memory_order_seq_cst);
    if (waiting_.load(std::memory_order_seq_cst) != 0) grant();
  }

  // Somebody waits. A holder asks this between tasks.
  bool contested() const { return waiting_.load(std::memory_order_relaxed) != 0; }

  // Somebody more urgent waits; with `equals`, also somebody as urgent.
  bool should_yield(int32_t priority, bool equals);

  // Makes every wait return false, present ones and those until restore.
  void cancel();
  void restore();

 private:
  struct Waiter {
    int32_t priority;
    std::atomic<uint32_t> answer{0};  // 1 granted, 2 cancelled
  };

  bool wait_for_slot(int32_t priority, uint64_t deadline_ns);
  void grant();
  void grant_locked();

  std::atomic<int32_t>& free_;
  std::atomic<int32_t> waiting_{0};
  std::mutex mutex_;
  std::vector<Waiter*> waiters_;  // LOCK: mutex_. Most urgent first
  bool cancelled_ = false;        // LOCK: mutex_
};

// The slot of one thread that executes tasks of one stream: taken late, kept over a batch, given up to the more urgent at
// once and to equals after a turn of kTurn tasks (a change of threads costs far more than a small task).
class SlotHold {
 public:
  SlotHold(ComputeSlots& slots, int32_t priority) : slots_(slots), priority_(priority) {}
  ~SlotHold() { release(); }

  // Before every task. False at the deadline or after cancel.
  bool hold(uint64_t deadline_ns) {
    if (held_) {
      ++turn_;
      if (!slots_.contested() || !slots_.should_yield(priority_, turn_ >= kTurn)) return true;
      release();
    }
    turn_ = 0;
    return held_ = slots_.acquire(priority_, deadline_ns);
  }

  // Before waiting for anything.
  void release() {
    if (held_) slots_.release();
    held_ = false;
  }

 private:
  static constexpr int32_t kTurn = 16;

  ComputeSlots& slots_;
  const int32_t priority_;
  int32_t turn_ = 0;
  bool held_ = false;
};

}  // namespace openreg::sim
