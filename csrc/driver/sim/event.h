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

struct CapturedRecord;
struct SharedEvent;

struct Record {
  ~Record();
  StreamRef stream;
  bool timing = false;
  uint64_t position = 0;  // the stream's head passes this when the record completes; written before the event shows the record
  std::atomic<uint32_t> references{1};
  std::atomic<bool> completed{false};
  std::atomic<uint64_t> correlation{0};  // in a trace; 0: not traced so far
  uint64_t time_ns = 0;  // written before `completed`
  FailurePtr failure;    // written before `completed`; null when the work before it ran
  std::unique_ptr<CapturedRecord> captured;  // constant; not null: it never completes, see capture.h
};

inline bool is_complete(const Record& record) { return record.completed.load(std::memory_order_acquire); }
void complete(Record& record, FailurePtr failure);
void retain(Record* record);
void release(Record* record);

// A counted reference.
class RecordRef {
 public:
  RecordRef() = default;
  explicit RecordRef(Record* owned) : record_(owned) {}
  RecordRef(RecordRef&& other) noexcept : record_(std::exchange(other.record_, nullptr)) {}
  RecordRef& operator=(RecordRef&& other) noexcept {
    std::swap(record_, other.record_);
    return *this;
  }
  ~RecordRef() {
    if (record_) release(record_);
  }
  explicit operator bool() const { return record_ != nullptr; }
  Record* operator->() const { return record_; }
  Record& operator*() const { return *record_; }
  Record* give() { return std::exchange(record_, nullptr); }

 private:
  Record* record_ = nullptr;
};

RecordRef make_record(Stream& stream, bool timing);

// Put a record's task, or a wait for the record, into the stream's queue. The caller keeps its reference. internal: as in Task.
openreg_status enqueue_record(Stream& stream, const RecordRef& record, bool internal = false);
openreg_status enqueue_wait(Stream& stream, const RecordRef& record);

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

void set_latest(Event& event, RecordRef record);

openreg_status event_create(int32_t device, int32_t timing, openreg_event* event);
openreg_status event_destroy(openreg_event event);
openreg_status event_record(openreg_event event, openreg_stream stream);
openreg_status event_query(openreg_event event);
openreg_status event_synchronize(openreg_event event, uint64_t timeout_ns, openreg_error* error);
openreg_status event_elapsed(openreg_event start, openreg_event end, int64_t* elapsed_ns);
openreg_status stream_wait_event(openreg_stream stream, openreg_event event);

}  // namespace openreg::sim
