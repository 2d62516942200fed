// event.cpp: recording, waiting for and timing events.
#include "driver/sim/event.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>

#include "driver/sim/capture.h"
#include "driver/sim/device.h"
#include "driver/sim/recovery.h"
#include "driver/sim/schedule.h"
#include "driver/sim/shared_event.h"
#include "driver/sim/status.h"
#include "driver/sim/trace.h"
#include "driver/sim/worker.h"

namespace openreg::sim {
namespace {

Event* find_event(const char* operation, openreg_event handle) {
  Event* event = event_table().find(handle);
  if (!event) fail(OPENREG_INVALID_VALUE, "%s: %p is not a live event", operation, static_cast<void*>(handle));
  return event;
}

RecordRef latest(Event& event) {
  std::lock_guard<Lock> guard(event.lock);
  if (!event.latest) return {};
  retain(event.latest);
  return RecordRef(event.latest);
}

// Under the eager schedule an idle stream needs no worker to notice a record: it completes here.
bool complete_on_idle_stream(Stream& stream, Record& record) {
  if (stream.chip->schedule.load(std::memory_order_relaxed) != Schedule::eager || !stream.queue.empty()) return false;
  std::lock_guard<Lock> guard(stream.queue.producers);
  if (!stream.queue.empty() || !stream.try_own()) return false;
  record.position = stream.queue.tail();
  FailurePtr failure = carried_failure(stream, record.position);
  if (is_traced()) trace_record_at_call(stream, record, failure);
  complete(record, std::move(failure));
  disown(stream);
  return true;
}

openreg_status record_own(Event& target, Stream& stream) {
  RecordRef record = make_record(stream, target.timing);
  if (!complete_on_idle_stream(stream, *record))
    if (openreg_status status = enqueue_record(stream, record)) return status;
  set_latest(target, std::move(record));
  return OPENREG_OK;
}

// The number is published before the record completes: whoever makes this process's record complete has told the others.
openreg_status record_shared(const std::shared_ptr<SharedEvent>& event, Stream& stream) {
  const uint64_t number = begin_shared_record(*event);
  RecordRef record = make_record(stream, event->own.timing);
  openreg_status status = OPENREG_OK;
  if (complete_on_idle_stream(stream, *record)) {
    set_latest(event->own, std::move(record));
    publish_shared_record(*event, number);
  } else {
    status = enqueue_publication(event, number, stream);
    if (status == OPENREG_OK) status = enqueue_record(stream, record);
    if (status == OPENREG_OK) set_latest(event->own, std::move(record));
    else publish_shared_record(*event, number);  // there will be no record
  }
  event->own_number.store(number, std::memory_order_release);
  return status;
}

// The ordinary event that answers for a shared one; null when the answer lies with another process.
Event* local_side(Event* event) {
  if (!event->shared) return event;
  return event->shared->is_own() ? &event->shared->own : nullptr;
}

openreg_status synchronize_shared(const SharedEvent& event, uint64_t timeout_ns, openreg_error* error) {
  const uint64_t number = event.page->recorded.load(std::memory_order_acquire);
  switch (await_shared(event, number, deadline_after(timeout_ns), chip().stopping, nullptr)) {
    case SharedWait::complete: return OPENREG_OK;
    case SharedWait::timed_out: return OPENREG_NOT_READY;
    case SharedWait::stopped: return fail(OPENREG_NOT_INITIALIZED, "event_synchronize: the driver was shut down during the wait");
    case SharedWait::lost: break;
  }
  openreg_error lost{};
  describe_lost(event, &lost);
  if (error) {
    lost.struct_size = error->struct_size;
    memcpy(error, &lost, std::min<size_t>(error->struct_size, sizeof lost));
  }
  return fail(OPENREG_LAUNCH_FAILED, "%s: %s", lost.name, lost.message);
}

bool was_reported(Stream& stream, const FailurePtr& failure) {
  std::lock_guard<std::mutex> guard(stream.chip->failure_mutex);
  return failure->reported;
}

}  // namespace

EventTable& event_table() {
  static EventTable& table = *new EventTable;
  return table;
}

void set_latest(Event& event, RecordRef record) {
  Record* old;
  {
    std::lock_guard<Lock> guard(event.lock);
    old = std::exchange(event.latest, record.give());
  }
  if (old) release(old);
}

Record::~Record() = default;

void complete(Record& record, FailurePtr failure) {
  if (record.timing) record.time_ns = now_ns();
  record.failure = std::move(failure);
  record.completed.store(true, std::memory_order_release);
}

void retain(Record* record) { record->references.fetch_add(1, std::memory_order_relaxed); }

void release(Record* record) {
  if (record->references.fetch_sub(1, std::memory_order_acq_rel) == 1) delete record;
}

RecordRef make_record(Stream& stream, bool timing) {
  RecordRef record(new Record);
  record->stream = StreamRef(&stream);
  record->timing = timing;
  return record;
}

openreg_status enqueue_record(Stream& stream, const RecordRef& record, bool internal) {
  Task task{};
  task.kind = TaskKind::record;
  task.name = "event record";
  task.internal = internal;
  task.record = &*record;
  if (is_traced()) record->correlation.store(current_mark().correlation, std::memory_order_relaxed);
  retain(&*record);  // the task's
  const openreg_status status = submit(stream, task, {}, {}, &record->position);
  if (status != OPENREG_OK) release(&*record);
  return status;
}

openreg_status enqueue_wait(Stream& stream, const RecordRef& record) {
  const bool in_order = record->stream.get() == &stream;
  if (in_order || (is_complete(*record) && (!record->failure || was_reported(stream, record->failure)))) {
    if (is_traced()) trace_wait_at_call(stream, record->correlation.load(std::memory_order_relaxed));
    return OPENREG_OK;
  }
  Task task{};
  task.kind = TaskKind::wait;
  task.name = "event wait";
  task.record = &*record;
  retain(&*record);  // the task's
  const openreg_status status = submit(stream, task, {}, {}, nullptr);
  if (status != OPENREG_OK) release(&*record);
  return status;
}

Event::~Event() {
  if (latest) release(latest);
}

openreg_status event_create(int32_t device, int32_t timing, openreg_event* event) {
  return entry([&]() -> openreg_status {
    if (!event) return fail(OPENREG_INVALID_VALUE, "event_create: event is null");
    if (openreg_status status = check_device("event_create", device)) return status;
    auto created = std::make_unique<Event>(device, timing != 0);
    const openreg_event handle = event_table().insert(created.get());
    if (!handle) return fail(OPENREG_OUT_OF_MEMORY, "event_create: there are too many live events");
    created.release();
    *event = handle;
    return OPENREG_OK;
  });
}

openreg_status event_destroy(openreg_event event) {
  return entry([&]() -> openreg_status {
    Event* object = event_table().erase(event);
    if (!object) return fail(OPENREG_INVALID_VALUE, "event_destroy: %p is not a live event", static_cast<void*>(event));
    delete object;
    return OPENREG_OK;
  });
}

openreg_status event_record(openreg_event event, openreg_stream stream) {
  return entry([&]() -> openreg_status {
    Event* target = find_event("event_record", event);
    if (!target) return OPENREG_INVALID_VALUE;
    Stream* on = find_stream("event_record", stream);
    if (!on) return OPENREG_INVALID_VALUE;
    if (openreg_status status = refuse_lost("event_record", *on->device)) return status;
    if (on->capture.load(std::memory_order_acquire)) {
      bool captured;
      const openreg_status status = capture_record(*target, *on, &captured);
      if (captured) return status;
    }
    return target->shared ? record_shared(target->shared, *on) : record_own(*target, *on);
  });
}

openreg_status stream_wait_event(openreg_stream stream, openreg_event event) {
  return entry([&]() -> openreg_status {
    Stream* waiting = find_stream("stream_wait_event", stream);
    if (!waiting) return OPENREG_INVALID_VALUE;
    if (openreg_status status = refuse_lost("stream_wait_event", *waiting->device)) return status;
    Event* target = find_event("stream_wait_event", event);
    if (!target) return OPENREG_INVALID_VALUE;
    const std::shared_ptr<SharedEvent> shared = target->shared;
    target = local_side(target);
    if (!target) return enqueue_shared_wait(shared, *waiting);
    const RecordRef record = latest(*target);
    if (waiting->capture.load(std::memory_order_acquire) || (record && record->captured)) {
      bool captured;
      const openreg_status status = capture_wait(*waiting, record, &captured);
      if (captured) return status;
    }
    if (record) return enqueue_wait(*waiting, record);
    if (is_traced()) trace_wait_at_call(*waiting, 0);
    return OPENREG_OK;
  });
}

openreg_status event_query(openreg_event event) {
  return entry([&]() -> openreg_status {
    Event* target = find_event("event_query", event);
    if (!target) return OPENREG_INVALID_VALUE;
    const std::shared_ptr<SharedEvent> shared = target->shared;
    target = local_side(target);
    if (!target) return is_held_up(*shared, shared->page->recorded.load(std::memory_order_acquire)) ? OPENREG_NOT_READY : OPENREG_OK;
    const RecordRef record = latest(*target);
    if (record && record->captured) return refuse_captured("event_query", *record->captured);
    if (openreg_status status = refuse_unsafe("event_query")) return status;
    if (!record || is_complete(*record)) return OPENREG_OK;
    // Between publication and completion other processes see it complete, and may have told this one.
    if (shared && !is_held_up(*shared, shared->own_number.load(std::memory_order_acquire))) return OPENREG_OK;
    return poll_position(*record->stream, record->position);
  });
}

openreg_status event_synchronize(openreg_event event, uint64_t timeout_ns, openreg_error* error) {
  return entry([&]() -> openreg_status {
    Event* target = find_event("event_synchronize", event);
    if (!target) return OPENREG_INVALID_VALUE;
    if (openreg_status status = check_error_record("event_synchronize", error)) return status;
    const std::shared_ptr<SharedEvent> shared = target->shared;
    target = local_side(target);
    if (!target) return synchronize_shared(*shared, timeout_ns, error);
    const RecordRef record = latest(*target);
    if (record && record->captured) return refuse_captured("event_synchronize", *record->captured);
    if (openreg_status status = refuse_unsafe("event_synchronize")) return status;
    if (!record) return OPENREG_OK;
    const LossWatch watch(*record->stream->device);
    if (timeout_ns & kLends) note_wait(*record->stream);
    if (!is_complete(*record)) {
      Stream& stream = *record->stream;
      const openreg_status status = timeout_ns == 0
                                        ? poll_position(stream, record->position)
                                        : await_position("event_synchronize", stream, record->position, deadline_after(timeout_ns));
      if (status != OPENREG_OK) return status;
    }
    if (openreg_status status = watch.report("event_synchronize", error)) return status;
    return report_failure(chip(), record->failure, error);
  });
}

openreg_status event_elapsed(openreg_event start, openreg_event end, int64_t* elapsed_ns) {
  return entry([&]() -> openreg_status {
    if (!elapsed_ns) return fail(OPENREG_INVALID_VALUE, "event_elapsed: elapsed_ns is null");
    Event* events[2] = {find_event("event_elapsed", start), nullptr};
    if (!events[0]) return OPENREG_INVALID_VALUE;
    events[1] = find_event("event_elapsed", end);
    if (!events[1]) return OPENREG_INVALID_VALUE;
    if (!events[0]->timing || !events[1]->timing)
      return fail(OPENREG_INVALID_VALUE, "event_elapsed: the %s event was created without timing", events[0]->timing ? "end" : "start");
    if (events[0]->device != events[1]->device)
      return fail(OPENREG_INVALID_VALUE, "event_elapsed: the events belong to devices %d and %d", events[0]->device, events[1]->device);
    RecordRef first = latest(*events[0]), last = latest(*events[1]);
    for (const RecordRef* record : {&first, &last})
      if (*record && (*record)->captured) return refuse_captured("event_elapsed", *(*record)->captured);
    if (!first || !last) return fail(OPENREG_INVALID_VALUE, "event_elapsed: the %s event was never recorded", first ? "end" : "start");
    if (!is_complete(*first) || !is_complete(*last)) return OPENREG_NOT_READY;
    *elapsed_ns = static_cast<int64_t>(last->time_ns) - static_cast<int64_t>(first->time_ns);
    return OPENREG_OK;
  });
}

}  // namespace openreg::sim
