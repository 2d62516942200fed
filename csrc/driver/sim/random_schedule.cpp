// random_schedule.cpp: picks a runnable stream, runs one task, and again.
#include "driver/sim/random_schedule.h"

#include <climits>
#include <mutex>

#include "driver/sim/device.h"
#include "driver/sim/executor.h"
#include "driver/sim/futex.h"
#include "driver/sim/stream.h"

namespace openreg::sim {

// splitmix64
uint64_t RandomSchedule::next() {
  uint64_t value = state_ += 0x9e3779b97f4a7c15u;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
  return value ^ (value >> 31);
}

namespace {
std::atomic<uint32_t> last_number{0};
thread_local uint32_t own_number = 0;  // of the thread's latest holding
}

bool RandomSchedule::try_lock() {
  if (busy_.load(std::memory_order_relaxed)) return false;
  uint32_t number, free = 0;
  do number = last_number.fetch_add(1, std::memory_order_relaxed) + 1;
  while (number == 0);
  if (!busy_.compare_exchange_strong(free, number, std::memory_order_acquire)) return false;
  own_number = number;
  holder_.store(pthread_self(), std::memory_order_relaxed);
  return true;
}

bool RandomSchedule::holds() const { return own_number != 0 && busy_.load(std::memory_order_acquire) == own_number; }

void RandomSchedule::unlock() {
  uint32_t number = own_number;
  if (!busy_.compare_exchange_strong(number, 0, std::memory_order_seq_cst)) return;
  if (sleepers_.load(std::memory_order_seq_cst)) wake();
}

void RandomSchedule::take_from(pthread_t thread) {
  uint32_t number = busy_.load(std::memory_order_acquire);
  if (number == 0 || !pthread_equal(holder_.load(std::memory_order_relaxed), thread)) return;
  if (busy_.compare_exchange_strong(number, 0, std::memory_order_seq_cst)) wake();
}

void RandomSchedule::wake() {
  generation_.fetch_add(1, std::memory_order_seq_cst);
  futex_wake(generation_, INT_MAX);
}

Progress RandomSchedule::run_one(Chip& chip, uint64_t deadline_ns) {
  StreamRef chosen;
  const uint64_t losses = chip.loss_steps.load(std::memory_order_seq_cst);
  {
    std::lock_guard<std::mutex> guard(chip.registry_mutex);
    runnable_.clear();
    bool held_up = false;
    for (Stream* stream : chip.streams) {
      if (stream->queue.empty()) continue;
      // Whoever lost it empties it.
      if (stream->lost.load(std::memory_order_relaxed) || blocking_record(*stream)) continue;
      if (is_held_up(*stream))
        held_up = true;
      else
        runnable_.push_back(stream);
    }
    held_up = held_up || losses % 2 != 0 || chip.loss_steps.load(std::memory_order_seq_cst) != losses;
    if (runnable_.empty()) return held_up ? Progress::held_up : Progress::stuck;
    chosen = StreamRef(runnable_[next() % runnable_.size()]);
  }
  if (!chosen->try_own()) return Progress::reached;
  if (chip.log.is_open()) chip.log.write_run(chosen->id, next_task_name(*chosen));
  const Progress progress = run_tasks(*chosen, chosen->queue.head() + 1, deadline_ns);
  disown(*chosen);
  return progress;
}

Progress RandomSchedule::wait_for_others(Chip& chip, uint64_t deadline_ns) {
  if (chip.stopping.load(std::memory_order_seq_cst)) return Progress::stopped;
  if (is_past(deadline_ns)) return Progress::timed_out;
  const timespec nap{0, 200000};
  nanosleep(&nap, nullptr);
  return Progress::reached;
}

Progress RandomSchedule::reach(Stream& stream, uint64_t target, uint64_t deadline_ns) {
  Chip& chip = *stream.chip;
  for (;;) {
    if (stream.queue.head() >= target) return Progress::reached;
    if (chip.stopping.load(std::memory_order_seq_cst)) return Progress::stopped;
    if (try_lock()) {
      Progress progress = Progress::reached;
      while (progress == Progress::reached && stream.queue.head() < target && holds()) {
        progress = run_one(chip, deadline_ns);
        if (!holds()) break;
        if (progress == Progress::held_up) progress = wait_for_others(chip, deadline_ns);
        if (progress == Progress::reached && is_past(deadline_ns) && stream.queue.head() < target)
          progress = Progress::timed_out;
      }
      const bool held = holds();
      unlock();
      if (!held) continue;  // taken: the task was given up, and the stream may have come to its end
      return progress;
    }
    // A task that waits for the scheduler it runs under would wait for ever.
    if (holds()) return Progress::stuck;
    const uint32_t generation = generation_.load(std::memory_order_seq_cst);
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    if (stream.queue.head() < target && busy_.load(std::memory_order_seq_cst) && !chip.stopping.load(std::memory_order_seq_cst))
      futex_wait(generation_, generation, deadline_ns);
    sleepers_.fetch_sub(1, std::memory_order_relaxed);
    if (is_past(deadline_ns)) return stream.queue.head() >= target ? Progress::reached : Progress::timed_out;
  }
}

void RandomSchedule::poll(Stream& stream) {
  const uint64_t head = stream.queue.head();
  if (!try_lock()) return;  // somebody is making progress already
  while (stream.queue.head() == head && !stream.queue.empty() && holds() && run_one(*stream.chip, kNever) == Progress::reached) {
  }
  unlock();
}

}  // namespace openreg::sim
