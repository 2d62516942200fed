// worker.cpp: run what is there, spin for a moment, sleep.
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

bool has_work(Stream& stream) { return !stream.queue.empty() && stream.owned.load(std::memory_order_seq_cst) == 0; }

bool is_finished(Stream& stream) { return stream.destroyed.load(std::memory_order_seq_cst) && stream.queue.empty(); }

bool should_look(Stream& stream) {
  return has_work(stream) || is_finished(stream) || stream.chip->stopping.load(std::memory_order_seq_cst);
}

void sleep(Stream& stream) {
  stream.worker_sleeping.store(1, std::memory_order_seq_cst);
  stream.queue.producers.order_with_unlock();
  if (!should_look(stream)) futex_wait(stream.worker_sleeping, 1, kNever);
  stream.worker_sleeping.store(0, std::memory_order_relaxed);
}

void run_worker(Stream* stream) {
  Chip& chip = *stream->chip;
  for (;;) {
    if (has_work(*stream) && stream->try_own()) {
      run_tasks(*stream, kNever, kNever);
      disown(*stream);
    }
    if (chip.stopping.load(std::memory_order_seq_cst)) break;
    if (is_finished(*stream) && stream->try_own()) {
      retire(*stream);
      break;
    }
    if (!(chip.spin && spin_until([stream] { return should_look(*stream); }))) sleep(*stream);
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
  if (stream.worker_sleeping.load(std::memory_order_seq_cst) && stream.worker_sleeping.exchange(0, std::memory_order_seq_cst))
    futex_wake(stream.worker_sleeping, 1);
}

}  // namespace openreg::sim
