// futex.h: the two primitives that the chip blocks with, and its clock.
//
// A futex word is an atomic 32-bit value that a thread can sleep on. Everything here
// is Linux only and usable under ThreadSanitizer, which sees the atomics.
#pragma once

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <cstdint>

#include "hal/openreg_hal.h"

namespace openreg::sim {

constexpr uint64_t kNever = UINT64_MAX;

inline uint64_t clock_ns(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000000000u + static_cast<uint64_t>(now.tv_nsec);
}

// The device clock. Monotonic, nanoseconds, the same for every device.
inline uint64_t now_ns() { return clock_ns(CLOCK_MONOTONIC); }

// The same clock at the resolution of the scheduler tick, several times cheaper to read.
inline uint64_t coarse_now_ns() { return clock_ns(CLOCK_MONOTONIC_COARSE); }

// A deadline is a time of the device clock, with kLends added when the thread that waits may run tasks. kNever lends, too.
constexpr uint64_t kLends = OPENREG_LEND_THREAD;

inline uint64_t deadline_after(uint64_t timeout_ns) {
  if (timeout_ns == kNever) return kNever;
  const uint64_t now = now_ns(), limit = timeout_ns & ~kLends;
  return (limit < ~kLends - now ? now + limit : ~kLends) | (timeout_ns & kLends);
}

inline bool is_past(uint64_t deadline_ns) { return deadline_ns != kNever && now_ns() >= (deadline_ns & ~kLends); }

inline void cpu_relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");
#endif
}

// How long any thread spins before it sleeps, and after how long it begins to offer its CPU to the thread it waits for.
constexpr uint64_t kSpin_ns = 50000, kSpinAlone_ns = 2000;

// Waits for a moment until done() is true. False when it did not become true.
template <class Done>
bool spin_until(Done done) {
  const uint64_t begin = now_ns();
  for (;;) {
    for (int i = 0; i < 16; ++i) {
      if (done()) return true;
      cpu_relax();
    }
    const uint64_t spent_ns = now_ns() - begin;
    if (spent_ns >= kSpin_ns) return false;
    if (spent_ns >= kSpinAlone_ns) sched_yield();
  }
}

// Sleeps while word == expected, until a wake or the deadline. May return early for no reason.
inline void futex_wait(std::atomic<uint32_t>& word, uint32_t expected, uint64_t deadline_ns) {
  timespec until{};
  if (deadline_ns != kNever) {
    until.tv_sec = static_cast<time_t>((deadline_ns & ~kLends) / 1000000000u);
    until.tv_nsec = static_cast<long>((deadline_ns & ~kLends) % 1000000000u);
  }
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, expected,
          deadline_ns == kNever ? nullptr : &until, nullptr, FUTEX_BITSET_MATCH_ANY);
}

inline void futex_wake(std::atomic<uint32_t>& word, int count) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE | FUTEX_PRIVATE_FLAG, count, nullptr, nullptr, 0);
}

// A mutex of one word: two atomic operations when nobody competes. Meets Lockable.
class Lock {
 public:
  void lock() {
    uint32_t expected = 0;
    if (!word_.compare_exchange_strong(expected, 1, std::memory_order_acquire)) lock_contended();
  }

  bool try_lock() {
    uint32_t expected = 0;
    return word_.compare_exchange_strong(expected, 1, std::memory_order_acquire);
  }

  void unlock() {
    if (word_.exchange(0, std::memory_order_acq_rel) == 2) futex_wake(word_, 1);
  }

  // Orders the caller's earlier stores before its later loads, as seen by threads that unlock:
  // either the unlocking thread sees those stores afterwards, or the caller sees what was
  // written under the lock. Makes "publish, unlock, look for a sleeper" free of a second fence.
  void order_with_unlock() { word_.fetch_add(0, std::memory_order_acq_rel); }

 private:
  void lock_contended() {
    for (int i = 0; i < 100; ++i) {
      uint32_t expected = 0;
      if (word_.load(std::memory_order_relaxed) == 0 &&
          word_.compare_exchange_weak(expected, 1, std::memory_order_acquire))
        return;
      cpu_relax();
    }
    while (word_.exchange(2, std::memory_order_acquire) != 0) futex_wait(word_, 2, kNever);
  }

  std::atomic<uint32_t> word_{0};  // 0 free, 1 held, 2 held and somebody sleeps
};

}  // namespace openreg::sim
