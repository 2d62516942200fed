// schedule.cpp: reaching a position: own and run, else spin for a moment, else sleep.
#include "driver/sim/schedule.h"

#include <climits>
#include <cstring>
#include <mutex>
#include <string>
#include <vector>

#include "driver/sim/capture.h"
#include "driver/sim/device.h"
#include "driver/sim/event.h"
#include "driver/sim/executor.h"
#include "driver/sim/futex.h"
#include "driver/sim/status.h"
#include "driver/sim/stream.h"
#include "driver/sim/worker.h"

namespace openreg::sim {
namespace {

// Whether a thread of the chip runs the stream's tasks by itself.
bool is_served(const Stream& stream) {
  return stream.worker_started.load(std::memory_order_acquire) && stream.chip->schedule.load(std::memory_order_acquire) == Schedule::eager;
}

// A task cannot be interrupted, so a thread whose time is limited leaves running to the worker if there is one, unless it lends itself.
bool may_run(const Stream& stream, uint64_t deadline_ns) { return (deadline_ns & kLends) != 0 || !is_served(stream); }

bool is_given_up(const Stream* waiter) { return waiter && waiter->lost.load(std::memory_order_seq_cst); }

// Sleeps until the head may have reached `target`, or the stream may be owned when the caller would run it.
void sleep_until(Stream& stream, uint64_t target, uint64_t deadline_ns, bool would_run, const Stream* waiter) {
  const uint32_t generation = stream.wake_generation.load(std::memory_order_seq_cst);
  uint64_t nearest = stream.wake_at.load(std::memory_order_seq_cst);
  while (target < nearest && !stream.wake_at.compare_exchange_weak(nearest, target, std::memory_order_seq_cst)) {
  }
  if (stream.queue.head() >= target || stream.chip->stopping.load(std::memory_order_seq_cst)) return;
  if ((would_run && stream.owned.load(std::memory_order_seq_cst) == 0) || is_given_up(waiter)) return;
  futex_wait(stream.wake_generation, generation, deadline_ns);
}

void wake_sleepers(Stream& stream) {
  stream.wake_at.store(kNever, std::memory_order_seq_cst);
  stream.wake_generation.fetch_add(1, std::memory_order_seq_cst);
  futex_wake(stream.wake_generation, INT_MAX);
}

// One task of the stream, or of the stream that its next task waits for.
void step(Stream& stream) {
  StreamRef at(&stream);
  while (at->try_own()) {
    Record* blocking = blocking_record(*at);
    if (!blocking) {
      if (!at->queue.empty() && !is_held_up(*at)) run_tasks(*at, at->queue.head() + 1, kNever);
      disown(*at);
      return;
    }
    StreamRef next(blocking->stream.get());
    disown(*at);
    at = std::move(next);
  }
}

openreg_status explain(const char* operation, Stream& stream, Progress progress) {
  switch (progress) {
    case Progress::reached:
      return OPENREG_OK;
    case Progress::timed_out:
    case Progress::held_up:
      return OPENREG_NOT_READY;
    case Progress::stopped:
      return fail(OPENREG_NOT_INITIALIZED, "%s: the driver was shut down while work was queued", operation);
    case Progress::stuck:
      break;
  }
  return fail(OPENREG_INTERNAL,
              "%s: stream %llu of device %d waits for something that can never happen; a task that calls the driver does this",
              operation, static_cast<unsigned long long>(stream.id), stream.device->index);
}

// ---- Changing the schedule ----

constexpr uint64_t kNameBytes = 32;  // of the longest schedule with its seed

// LOCK: registry_mutex
std::string schedule_name(const Chip& chip) {
  const Schedule schedule = chip.schedule.load(std::memory_order_relaxed);
  if (schedule == Schedule::random) return "random:" + std::to_string(chip.seed);
  return schedule == Schedule::eager ? "eager" : "lazy";
}

// Takes an idle stream for its producers and its owner.
bool hold_idle(Stream& stream) {
  if (!stream.queue.producers.try_lock()) return false;
  if (stream.queue.empty() && stream.try_own()) return true;
  stream.queue.producers.unlock();
  return false;
}

// See Note [Changing the schedule]. False, and nothing has changed, when work is underway.
bool change_schedule(Chip& chip, const Options& wanted, std::string* before) {
  std::unique_lock<RandomSchedule> scheduler(chip.random, std::try_to_lock);
  std::vector<StreamRef> held;
  bool still = scheduler.owns_lock();
  {
    std::lock_guard<std::mutex> guard(chip.registry_mutex);
    held.reserve(chip.streams.size());
    for (size_t i = 0; still && i < chip.streams.size(); ++i) {
      still = hold_idle(*chip.streams[i]);
      if (still) held.emplace_back(chip.streams[i]);
    }
    if (still) {
      *before = schedule_name(chip);
      chip.schedule.store(wanted.schedule, std::memory_order_seq_cst);
      chip.seed = wanted.seed;
      chip.random.seed(wanted.seed);
    }
  }
  for (StreamRef& stream : held) {
    stream->queue.producers.unlock();
    disown(*stream);
  }
  return still;
}

}  // namespace

Progress reach(Stream& stream, uint64_t target, uint64_t deadline_ns, const Stream* waiter) {
  if (stream.queue.head() >= target) return Progress::reached;
  Chip& chip = *stream.chip;
  if (chip.schedule.load(std::memory_order_acquire) == Schedule::random) return chip.random.reach(stream, target, deadline_ns);
  bool may_spin = chip.spin;
  for (;;) {
    if (stream.queue.head() >= target) return Progress::reached;
    if (chip.stopping.load(std::memory_order_seq_cst)) return Progress::stopped;
    if (is_given_up(waiter)) return Progress::reached;
    const bool would_run = may_run(stream, deadline_ns);
    if (would_run && stream.try_own()) {
      const Progress progress = run_tasks(stream, target, deadline_ns);
      disown(stream);
      return progress;
    }
    if (stream.owned.load(std::memory_order_relaxed) && pthread_equal(stream.owner.load(std::memory_order_relaxed), pthread_self()))
      return Progress::stuck;
    if (is_past(deadline_ns)) return Progress::timed_out;
    if (may_spin)
      spin_until([&] {
        return stream.queue.head() >= target || (would_run && stream.owned.load(std::memory_order_relaxed) == 0);
      });
    else
      sleep_until(stream, target, deadline_ns, would_run, waiter);
    may_spin = false;
  }
}

void disown(Stream& stream) {
  stream.owner.store(pthread_t{}, std::memory_order_relaxed);  // before the next owner, who names itself a moment after owning
  stream.owned.store(0, std::memory_order_seq_cst);
  if (stream.wake_at.load(std::memory_order_seq_cst) != kNever) wake_sleepers(stream);
  const bool destroyed = stream.destroyed.load(std::memory_order_seq_cst);
  if (stream.worker_started.load(std::memory_order_acquire)) {
    if (destroyed)
      wake_worker(stream);
    else if (!stream.queue.empty())
      announce_task(stream);
  } else if (destroyed && stream.queue.empty() && stream.try_own()) {
    retire(stream);
  }
}

void notify_waiters(Stream& stream, uint64_t head) {
  if (head >= stream.wake_at.load(std::memory_order_seq_cst)) wake_sleepers(stream);
}

void wake_everybody(Stream& stream) {
  wake_sleepers(stream);
  wake_worker(stream);
}

openreg_status await_position(const char* operation, Stream& stream, uint64_t target, uint64_t deadline_ns) {
  return explain(operation, stream, reach(stream, target, deadline_ns));
}

openreg_status poll_position(Stream& stream, uint64_t target) {
  if (stream.queue.head() >= target) return OPENREG_OK;
  if (stream.chip->schedule.load(std::memory_order_acquire) == Schedule::random)
    stream.chip->random.poll(stream);
  else if (!is_served(stream))
    step(stream);
  return stream.queue.head() >= target ? OPENREG_OK : OPENREG_NOT_READY;
}

openreg_status option_exchange(const char* key, const char* value, char* before, uint64_t bytes) {
  return entry([&]() -> openreg_status {
    if (!key) return fail(OPENREG_INVALID_VALUE, "option_exchange: key is null");
    if (!is_option(key)) return fail(OPENREG_INVALID_VALUE, "option_exchange: there is no option '%s'", key);
    if (strcmp(key, "schedule") != 0)
      return fail(OPENREG_UNSUPPORTED, "option_exchange: %s is fixed from the start on; only schedule can change", key);
    Options wanted;
    if (value && !parse_schedule(value, &wanted))
      return fail(OPENREG_INVALID_VALUE, "option schedule: '%s' is not eager, lazy or random:SEED", value);
    if (before && bytes < kNameBytes)
      return fail(OPENREG_INVALID_VALUE, "option_exchange: before has %llu bytes, and the name of a schedule may need %llu",
                  static_cast<unsigned long long>(bytes), static_cast<unsigned long long>(kNameBytes));
    if (value && captures().count.load(std::memory_order_acquire) != 0)
      return fail(OPENREG_INVALID_VALUE, "option schedule: it cannot change while a stream is being captured; end the capture first");
    std::string held;
    if (value) {
      if (!change_schedule(chip(), wanted, &held)) return OPENREG_NOT_READY;
    } else {
      std::lock_guard<std::mutex> guard(chip().registry_mutex);
      held = schedule_name(chip());
    }
    if (before) memcpy(before, held.c_str(), held.size() + 1);
    return OPENREG_OK;
  });
}

}  // namespace openreg::sim
