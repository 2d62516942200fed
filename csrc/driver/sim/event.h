// event.h: events and their records.
//
// An event is a name for its latest record; a record is one point in one stream's queue. Queued tasks and waiting threads
// hold records, so an event can be recorded again or destroyed at any time.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "driver/sim/failure.h"
#include "driver/sim/futex.h"
#include "driver/sim/handle.h"
#include "driver/sim/stream.h"
#include "hal/openreg_hal.h"

namespace openreg::sim {

struct SharedEvent;

struct Record {
  StreamRef stream;
  bool timing = false;
  uint64_t position = 0;  // the stream's head passes this when the record completes; written before the event shows the record
  std::atomic<uint32_t> references{1};
  std::atomic<bool> completed{false};
  uint64_t time_ns = 0;  // written before `completed`
  FailurePtr failure;    // written before `completed`; null when the work before it ran
};

inline bool is_complete(const Record& record) { return record.completed.load(std::memory_order_acquire); }
void complete(Record& record, FailurePtr failure);
void retain(Record* record);
void release(Record* record);

struct Event {
  Event(int32_t event_device, bool measures) : device(event_device), timing(measures) {}
  ~Event();

  const int32_t device;
  const bool timing;
  Lock lock;
  Record* latest = nullptr;  // LOCK: lock. One reference, null before the first record
  std::shared_ptr<SharedEvent> shared;  // constant; null for an ordinary event, see Note [Shared events]
};

using EventTable = HandleTable<Event, openreg_event, HandleKind::event>;
EventTable& event_table();

openreg_status event_create(int32_t device, int32_t timing, openreg_event* event);
openreg_status event_destroy(openreg_event event);
openreg_status event_record(openreg_event event, openreg_stream stream);
openreg_status event_query(openreg_event event);
openreg_status event_synchronize(openreg_event event, uint64_t timeout_ns, openreg_error* error);
openreg_status event_elapsed(openreg_event start, openreg_event end, int64_t* elapsed_ns);
openreg_status stream_wait_event(openreg_stream stream, openreg_event event);

}  // namespace openreg::sim
