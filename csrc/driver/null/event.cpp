// event.cpp: records the present moment; waiting only hands a failure on.
#include "driver/null/event.h"

#include "driver/null/device.h"
#include "driver/null/status.h"
#include "driver/null/stream.h"

namespace openreg::null {
namespace {

struct Event {
  bool timing = false;
  std::mutex mutex;
  bool recorded = false;             // LOCK: mutex
  uint64_t time_ns = 0;              // LOCK: mutex
  std::shared_ptr<Failure> failure;  // LOCK: mutex. What the stream carried at the record
};

Handles<Event, openreg_event>& events() {
  static Handles<Event, openreg_event>& all = *new Handles<Event, openreg_event>;
  return all;
}

std::shared_ptr<Event> find_event(openreg_event handle) {
  std::shared_ptr<Event> event = events().find(handle);
  if (!event) fail(OPENREG_INVALID_VALUE, "%p is not a live event", static_cast<void*>(handle));
  return event;
}

std::shared_ptr<Failure> carried_failure(Event& event) {
  std::lock_guard guard(event.mutex);
  return event.failure;
}

}  // namespace

void destroy_all_events() { events().destroy_all(); }

openreg_status event_create(int32_t device, int32_t timing, openreg_event* event) {
  return entry([&]() -> openreg_status {
    if (!event) return fail(OPENREG_INVALID_VALUE, "event is null");
    if (openreg_status status = check_device(device)) return status;
    auto created = std::make_shared<Event>();
    created->timing = timing != 0;
    *event = events().add(std::move(created));
    return OPENREG_OK;
  });
}

openreg_status event_destroy(openreg_event event) {
  return entry([&]() -> openreg_status {
    return events().take(event) ? OPENREG_OK : fail(OPENREG_INVALID_VALUE, "%p is not a live event", static_cast<void*>(event));
  });
}

openreg_status event_record(openreg_event event, openreg_stream stream) {
  return entry([&]() -> openreg_status {
    const std::shared_ptr<Event> target = find_event(event);
    const std::shared_ptr<Stream> on = target ? find_stream(stream) : nullptr;
    if (!on) return OPENREG_INVALID_VALUE;
    std::shared_ptr<Failure> failure = pending_failure(*on);
    std::lock_guard guard(target->mutex);
    target->recorded = true;
    target->time_ns = clock_ns();
    target->failure = failure;
    return OPENREG_OK;
  });
}

openreg_status stream_wait_event(openreg_stream stream, openreg_event event) {
  return entry([&]() -> openreg_status {
    const std::shared_ptr<Stream> waiting = find_stream(stream);
    const std::shared_ptr<Event> target = waiting ? find_event(event) : nullptr;
    if (!target) return OPENREG_INVALID_VALUE;
    std::shared_ptr<Failure> failure = carried_failure(*target);
    std::lock_guard guard(waiting->mutex);
    const bool failed_already = waiting->failure && !waiting->failure->reported;
    if (failure && !failed_already) waiting->failure = failure;
    return OPENREG_OK;
  });
}

openreg_status event_query(openreg_event event) {
  return entry([&]() -> openreg_status { return find_event(event) ? OPENREG_OK : OPENREG_INVALID_VALUE; });
}

openreg_status event_synchronize(openreg_event event, uint64_t, openreg_error* error) {
  return entry([&]() -> openreg_status {
    const std::shared_ptr<Event> target = find_event(event);
    return target ? report(carried_failure(*target), error) : OPENREG_INVALID_VALUE;
  });
}

openreg_status event_elapsed(openreg_event start, openreg_event end, int64_t* elapsed_ns) {
  return entry([&]() -> openreg_status {
    if (!elapsed_ns) return fail(OPENREG_INVALID_VALUE, "elapsed_ns is null");
    int64_t times_ns[2];
    const openreg_event handles[2] = {start, end};
    for (int i = 0; i < 2; ++i) {
      const std::shared_ptr<Event> event = find_event(handles[i]);
      if (!event) return OPENREG_INVALID_VALUE;
      std::lock_guard guard(event->mutex);
      if (!event->timing || !event->recorded)
        return fail(OPENREG_INVALID_VALUE, "the %s event %s", i ? "end" : "start", event->timing ? "was never recorded" : "was created without timing");
      times_ns[i] = static_cast<int64_t>(event->time_ns);
    }
    *elapsed_ns = times_ns[1] - times_ns[0];
    return OPENREG_OK;
  });
}

}  // namespace openreg::null
