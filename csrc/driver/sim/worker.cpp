// worker.cpp: run what is there, spin for a moment, sleep; or stand back.
#include "driver/sim/worker.h"

#include <pthread.h>
#include <signal.h>

#include <cstdio>
#include <mutex>
#include <system_error>

#include "driver/sim/device.h"
#include "driver/sim/executor.h"
#include "driver/sim/stream.h"

namespace openreg::sim {
namespace {

// Short enough not to be missed, long enough to cost a core little: of the order of a thread's wake-up.
constexpr uint64_t kNap_ns = 50000;
constexpr int kIdleNaps = 10;

bool may_work(const Stream& stream) { return stream.chip->schedule.load(std::memory_order_acquire) == Schedule::eager; }

bool has_work(Stream& stream) {
  return !stream.queue.empty() && stream.owned.load(std::memory_order_seq_cst) == 0 && may_work(stream);
}

bool stands_back(const Stream& stream) { return stream.short_waits.load(std::memory_order_relaxed) >= kShortWaits; }

bool takes_work(Stream& stream) {
  return has_work(stream) && (!stands_back(stream) || stream.queue.unfinished_tasks() > kShortQueue);
}

bool is_finished(Stream& stream) { return stream.destroyed.load(std::memory_order_seq_cst) && stream.queue.empty(); }

bool should_look(Stream& stream) {
  return takes_work(stream) || is_finished(stream) || stream.chip->stopping.load(std::memory_order_seq_cst);
}

void sleep(Stream& stream) {
  stream.worker_state.store(kAsleep, std::memory_order_seq_cst);
  stream.queue.producers.order_with_unlock();
  if (!should_look(stream) && !has_work(stream)) futex_wait(stream.worker_state, kAsleep, kNever);
  stream.worker_state.store(kAwake, std::memory_order_relaxed);
}

// Naps until there is something to look at, or nothing has happened for a while.
void stand_back(Stream& stream) {
  for (int idle = 0; idle < kIdleNaps;) {
    const uint64_t head = stream.queue.head();
    const bool waits = stream.queue.tail() != head;
    stream.worker_state.store(kNapping, std::memory_order_seq_cst);
    stream.queue.producers.order_with_unlock();
    if (!should_look(stream)) futex_wait(stream.worker_state, kNapping, now_ns() + kNap_ns);
    stream.worker_state.store(kAwake, std::memory_order_relaxed);
    if (should_look(stream)) return;
    if (stream.queue.head() != head) {
      idle = 0;
    } else if (!waits) {
      ++idle;
    } else if (has_work(stream)) {
      stream.short_waits.store(-kTakeover, std::memory_order_relaxed);
      return;
    } else {
      break;  // a waiting thread is in a long task; when it gives the stream up, it announces what is left
    }
  }
  sleep(stream);
}

void run_worker(Stream* stream) {
  Chip& chip = *stream->chip;
  for (;;) {
    if (takes_work(*stream) && stream->try_own()) {
      if (may_work(*stream)) run_tasks(*stream, kNever, kNever);  // asked again as the owner, see Note [Changing the schedule]
      disown(*stream);
    }
    if (chip.stopping.load(std::memory_order_seq_cst)) break;
    if (is_finished(*stream) && stream->try_own()) {
      retire(*stream);
      break;
    }
    if (stands_back(*stream))
      stand_back(*stream);
    else if (!(chip.spin && spin_until([stream] { return should_look(*stream) || stands_back(*stream); })))
      sleep(*stream);
  }
  release(stream);
  // The last touch of the chip: shutdown takes it apart when this reaches 0.
  chip.live_workers.fetch_sub(1, std::memory_order_seq_cst);
}

}  // namespace

void start_worker(Stream& stream) {
  // Signals are the program's business: none is delivered to a worker, faults excepted.
  sigset_t blocked, before;
  sigfillset(&blocked);
  for (int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP}) sigdelset(&blocked, fault);
  pthread_sigmask(SIG_SETMASK, &blocked, &before);
  retain(&stream);
  stream.chip->live_workers.fetch_add(1, std::memory_order_seq_cst);
  try {
    stream.worker = std::thread(run_worker, &stream);
    char name[16];
    snprintf(name, sizeof name, "openreg-%d.%llu", stream.device->index, static_cast<unsigned long long>(stream.id));
    pthread_setname_np(stream.worker.native_handle(), name);
    stream.worker_started.store(true, std::memory_order_release);
  } catch (const std::system_error&) {
    stream.chip->live_workers.fetch_sub(1, std::memory_order_seq_cst);
    release(&stream);
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void wake_worker(Stream& stream) {
  if (stream.worker_state.load(std::memory_order_seq_cst) != kAwake &&
      stream.worker_state.exchange(kAwake, std::memory_order_seq_cst) != kAwake)
    futex_wake(stream.worker_state, 1);
}

void announce_task(Stream& stream) {
  const uint32_t state = stream.worker_state.load(std::memory_order_seq_cst);
  if (state == kAwake || (state == kNapping && stream.queue.unfinished_tasks() <= kShortQueue) || !may_work(stream)) return;
  wake_worker(stream);
}

void note_wait(Stream& stream) {
  const uint64_t enqueued = stream.queue.enqueued_tasks();
  const uint64_t fresh = enqueued - stream.enqueued_at_wait.exchange(enqueued, std::memory_order_relaxed);
  if (fresh == 0) return;
  const int32_t waits = stream.short_waits.load(std::memory_order_relaxed);
  if (fresh > kShortQueue) {
    if (waits > 0) stream.short_waits.store(0, std::memory_order_relaxed);
  } else if (waits < kShortWaits) {
    stream.short_waits.store(waits + 1, std::memory_order_relaxed);
  }
}

}  // namespace openreg::sim
