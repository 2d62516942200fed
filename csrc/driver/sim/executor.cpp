// executor.cpp: one task after the other: wait, skip, run, clean up, finish.
#include "driver/sim/executor.h"

#include <sched.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>

#include "driver/sim/device.h"
#include "driver/sim/event.h"
#include "driver/sim/recovery.h"
#include "driver/sim/shared_event.h"
#include "driver/sim/stream.h"
#include "driver/sim/trace.h"

namespace openreg::sim {
namespace {

// Fills what the driver knows about the failure; message and kind are the task's.
void describe_failure(const Stream& stream, const Task& task, openreg_error* error) {
  error->status = OPENREG_LAUNCH_FAILED;
  error->device = stream.device->index;
  error->stream_id = stream.id;
  error->tag = task.tag;
  snprintf(error->name, sizeof error->name, "%s", task.name);
  error->message[sizeof error->message - 1] = 0;
  if (!error->message[0]) snprintf(error->message, sizeof error->message, "the task returned an error without a message");
}

openreg_status call(Task& task, openreg_error* error) {
  char* payload = task.payload();
  switch (task.kind) {
    case TaskKind::host_func:
      return task.host_func(payload, error);
    case TaskKind::kernel:
      task.kernel(&reinterpret_cast<KernelPrefix*>(payload)->geometry, payload + sizeof(KernelPrefix));
      return OPENREG_OK;
    case TaskKind::copy: {
      const CopyArgs& args = *reinterpret_cast<CopyArgs*>(payload);
      memmove(args.dst, args.src, args.bytes);
      return OPENREG_OK;
    }
    case TaskKind::fill: {
      const FillArgs& args = *reinterpret_cast<FillArgs*>(payload);
      memset(args.dst, args.value, args.bytes);
      return OPENREG_OK;
    }
    default:
      return OPENREG_OK;
  }
}

openreg_status run_one(Stream& stream, Task& task, openreg_error* error) {
  error->struct_size = sizeof(openreg_error);
  error->kind = 0;
  error->message[0] = 0;
  stream.running_since_ns.store(coarse_now_ns(), std::memory_order_relaxed);
  stream.running_name.store(task.name, std::memory_order_relaxed);
  openreg_status status;
  try {
    status = call(task, error);
  } catch (const std::exception& thrown) {
    status = OPENREG_LAUNCH_FAILED;
    snprintf(error->message, sizeof error->message, "the task threw an exception: %s", thrown.what());
  } catch (...) {
    status = OPENREG_LAUNCH_FAILED;
    snprintf(error->message, sizeof error->message, "the task threw something that is not a std::exception");
  }
  if (__builtin_expect(status != OPENREG_OK, 0)) {
    describe_failure(stream, task, error);
    fail_stream(stream, *error);
  }
  stream.running_name.store(nullptr, std::memory_order_relaxed);
  return status;
}

void clean_up(Task& task) {
  if (task.cleanup) clean_up_arguments(task);
  free(task.heap_payload);
}

void finish_record(Stream& stream, Task& task, uint64_t position) {
  FailurePtr failure = carried_failure(stream, position);
  if (is_traced()) trace_operation(stream, task, now_ns(), status_of(failure));
  complete(*task.record, std::move(failure));
  release(task.record);
}

// Waits for another process; a record that is lost fails the stream.
Progress run_shared_wait(Stream& stream, Task& task, uint64_t deadline_ns, openreg_error* error) {
  const auto& record = *reinterpret_cast<SharedRecord*>(task.payload());
  switch (await_shared(**record.event, record.number, deadline_ns, stream.chip->stopping, &stream.lost)) {
    case SharedWait::timed_out: return Progress::timed_out;
    case SharedWait::stopped: return Progress::stopped;
    case SharedWait::complete: return Progress::reached;
    case SharedWait::lost: break;
  }
  error->struct_size = sizeof(openreg_error);
  describe_lost(**record.event, error);
  describe_failure(stream, task, error);
  fail_stream(stream, *error);
  return Progress::reached;
}

// What the trace says of a task that goes without having run.
openreg_status dropped_status(Stream& stream, uint64_t position) {
  const FailurePtr failure = carried_failure(stream, position);
  return failure ? failure->error.status : OPENREG_LAUNCH_FAILED;
}

// Between the two the owner waits inside a task, which may be taken from it; end_wait says so.
void begin_wait(Stream& stream) { stream.wait_state.store(WaitState::waiting, std::memory_order_seq_cst); }
bool end_wait(Stream& stream) { return stream.wait_state.exchange(WaitState::none, std::memory_order_seq_cst) == WaitState::waiting; }

// The owner has ended the task that was taken from it, and owns the queue again as soon as that is empty. The wait that brought the owner
// here is over as well.
Progress come_back(Stream& stream) {
  while (stream.emptied_by_other.load(std::memory_order_acquire)) sched_yield();
  stream.device->abandoned.fetch_sub(1, std::memory_order_acq_rel);
  return Progress::reached;
}

// The next task, past padding; null when the queue is empty.
Task* next_task(Stream& stream, uint64_t* position, uint64_t tail) {
  if (*position == tail) return nullptr;
  Task* task = stream.queue.task_at(*position);
  if (task->kind != TaskKind::pad) return task;
  *position += task->size_bytes;
  return stream.queue.task_at(*position);  // a pad is published together with the task that it makes room for
}

// False when the owner is between two tasks.
bool take_from_owner(Stream& stream) {
  Queue& queue = stream.queue;
  uint64_t head = queue.head();
  WaitState waiting = WaitState::waiting;
  stream.device->abandoned.fetch_add(1, std::memory_order_acq_rel);
  if (stream.wait_state.compare_exchange_strong(waiting, WaitState::taken, std::memory_order_seq_cst)) {
    head = queue.head();  // the owner cannot move it now
  } else if (head < queue.tail() && stream.running_name.load(std::memory_order_acquire) && queue.take(head)) {
    head += Queue::kTaken;
  } else {
    stream.device->abandoned.fetch_sub(1, std::memory_order_acq_rel);
    return false;
  }
  uint64_t position = head / Queue::kGrain * Queue::kGrain;
  const uint64_t end = next_task(stream, &position, queue.tail())->size_bytes + position;
  queue.finish(head, end);
  notify_waiters(stream, end);
  return true;
}

}  // namespace

void clean_up_arguments(Task& task) {
  const bool has_payload = task.kind == TaskKind::host_func || task.kind == TaskKind::kernel || task.kind == TaskKind::wait_shared;
  char* args = has_payload ? task.payload() + (task.kind == TaskKind::kernel ? sizeof(KernelPrefix) : 0) : nullptr;
  try {
    task.cleanup(args);
  } catch (...) {
    fprintf(stderr, "openreg: the cleanup of %s threw an exception, which is ignored\n", task.name);
  }
}

Progress run_tasks(Stream& stream, uint64_t target, uint64_t deadline_ns) {
  SlotHold slot(stream.device->slots, stream.priority);
  openreg_error error;
  uint64_t head = stream.queue.head(), position = head;
  uint64_t tail = stream.queue.tail();
  bool ran = false;
  while (position < target) {
    Task* task = next_task(stream, &position, tail);
    if (!task) {
      tail = stream.queue.tail();
      if (position == tail) return Progress::stuck;
      continue;
    }
    if (stream.chip->stopping.load(std::memory_order_relaxed)) return Progress::stopped;
    if (ran && is_past(deadline_ns)) return Progress::timed_out;
    ran = true;

    const uint64_t end = position + task->size_bytes;
    uint64_t begin_ns = is_traced() ? now_ns() : 0;
    if (task->kind == TaskKind::wait) {
      Record& record = *task->record;
      if (!is_complete(record) && !stream.lost.load(std::memory_order_acquire)) {
        slot.release();
        begin_wait(stream);
        const Progress progress = reach(*record.stream, record.position, deadline_ns, &stream);
        if (!end_wait(stream)) {
          if (is_traced()) trace_dropped(stream, *task, OPENREG_DEVICE_LOST);
          release(&record);
          return come_back(stream);
        }
        if (progress != Progress::reached) return progress;
      }
      if (is_complete(record) && record.failure) inherit_failure(stream, record.failure, position);
      if (is_traced()) trace_operation(stream, *task, begin_ns, status_of(carried_failure(stream, position)));
      release(&record);
    } else if (task->kind == TaskKind::record) {
      finish_record(stream, *task, position);
    } else if (task->kind == TaskKind::wait_shared) {
      slot.release();
      if (position >= stream.skip_until.load(std::memory_order_acquire)) {
        begin_wait(stream);
        const Progress progress = run_shared_wait(stream, *task, deadline_ns, &error);
        if (!end_wait(stream)) {
          if (is_traced()) trace_dropped(stream, *task, OPENREG_DEVICE_LOST);
          clean_up(*task);
          return come_back(stream);
        }
        if (progress != Progress::reached && !stream.lost.load(std::memory_order_acquire)) return progress;
      }
      if (is_traced()) trace_operation(stream, *task, begin_ns, status_of(carried_failure(stream, position)));
      clean_up(*task);
    } else {
      if (position >= stream.skip_until.load(std::memory_order_acquire)) {
        if (slot.hold(deadline_ns)) {
          if (begin_ns) begin_ns = now_ns();
          const openreg_status status = run_one(stream, *task, &error);
          if (is_traced()) trace_operation(stream, *task, begin_ns, status);
        } else if (!stream.lost.load(std::memory_order_acquire)) {
          return stream.chip->stopping.load(std::memory_order_relaxed) ? Progress::stopped : Progress::timed_out;
        } else if (is_traced()) {
          trace_dropped(stream, *task, OPENREG_DEVICE_LOST);
        }
      } else if (is_traced()) {
        trace_operation(stream, *task, now_ns(), status_of(carried_failure(stream, position)));
      }
      clean_up(*task);
    }
    if (!stream.queue.finish(head, end)) return come_back(stream);
    head = position = end;
    notify_waiters(stream, end);
  }
  return Progress::reached;
}

const char* next_task_name(Stream& stream) {
  uint64_t position = stream.queue.head();
  Task* task = next_task(stream, &position, stream.queue.tail());
  return task ? task->name : "";
}

Record* blocking_record(Stream& stream) {
  uint64_t position = stream.queue.head();
  Task* task = next_task(stream, &position, stream.queue.tail());
  return task && task->kind == TaskKind::wait && !is_complete(*task->record) ? task->record : nullptr;
}

bool is_held_up(Stream& stream) {
  uint64_t position = stream.queue.head();
  Task* task = next_task(stream, &position, stream.queue.tail());
  if (!task || task->kind != TaskKind::wait_shared || position < stream.skip_until.load(std::memory_order_acquire)) return false;
  const auto& record = *reinterpret_cast<SharedRecord*>(task->payload());
  return is_held_up(**record.event, record.number);
}

uint64_t drop_tasks(Stream& stream) {
  uint64_t dropped = 0;
  uint64_t head = stream.queue.head(), position = head;
  const uint64_t tail = stream.queue.tail();
  while (Task* task = next_task(stream, &position, tail)) {
    const uint64_t end = position + task->size_bytes;
    if (is_traced()) trace_dropped(stream, *task, dropped_status(stream, position));
    if (task->kind == TaskKind::record) complete(*task->record, carried_failure(stream, position));
    if (task->kind == TaskKind::record || task->kind == TaskKind::wait)
      release(task->record);
    else
      clean_up(*task);
    ++dropped;
    stream.queue.finish(head, end);
    head = position = end;
    notify_waiters(stream, end);
  }
  return dropped;
}

bool empty_for_owner(Stream& stream) {
  stream.emptied_by_other.store(true, std::memory_order_seq_cst);
  const bool taken = take_from_owner(stream);
  if (taken) drop_tasks(stream);
  stream.emptied_by_other.store(false, std::memory_order_release);
  return taken;
}

}  // namespace openreg::sim
