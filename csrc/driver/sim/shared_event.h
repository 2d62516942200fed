// shared_event.h: events that several processes record and wait for.
//
// Note [Shared events]
// The state that processes share is two numbers in a memory file: how many records were enqueued, and the latest that completed. A
// record takes the next number, and a task right before it on its stream publishes the number. Whoever waits takes the number of that moment and
// sleeps on the file's futex word until it was published. When the latest record is this process's own, everything is as with an ordinary event
// (`own`), so that schedules that run nothing by themselves find what has to run. A process that records holds a lock on the byte of the file whose
// offset is its process id; the lock goes with the process, and so waiters learn that a record will never complete.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "driver/sim/event.h"
#include "hal/openreg_hal.h"

namespace openreg::sim {

// The file.
struct SharedPage {
  std::atomic<uint64_t> recorded;   // the number of the latest record
  std::atomic<uint64_t> completed;  // the largest number that completed
  std::atomic<uint32_t> wakes;      // futex word, changes after `completed`
  std::atomic<int32_t> recorder;    // the process of the latest record
};

struct SharedEvent {
  SharedEvent(int32_t event_device, int file, uint64_t file_inode, SharedPage* mapped)
      : device(event_device), fd(file), inode(file_inode), page(mapped), own(event_device, false) {}
  ~SharedEvent();

  bool is_own() const { return page->recorded.load(std::memory_order_acquire) == own_number.load(std::memory_order_acquire); }
  bool is_complete(uint64_t number) const { return page->completed.load(std::memory_order_acquire) >= number; }

  const int32_t device;
  const int fd;
  const uint64_t inode;
  SharedPage* const page;
  Event own;                            // this process's latest record
  std::atomic<uint64_t> own_number{0};  // its number
};

// What a queued task needs of a shared event. The task owns *event.
struct SharedRecord {
  std::shared_ptr<SharedEvent>* event;
  uint64_t number;
};

enum class SharedWait { complete, timed_out, stopped, lost };

// Sleeps until the record was published, at most until the deadline. stopped: one of the flags is set (`given_up` may be null). lost: its
// process has ended.
SharedWait await_shared(const SharedEvent& event, uint64_t number, uint64_t deadline_ns, const std::atomic<bool>& stopping,
                        const std::atomic<bool>* given_up);

// Whether a wait for the record would sleep.
bool is_held_up(const SharedEvent& event, uint64_t number);

// The failure of a wait that was lost.
void describe_lost(const SharedEvent& event, openreg_error* error);

// Takes the next number for a record by this process, and publishes it: at once, or behind what the stream has queued.
uint64_t begin_shared_record(SharedEvent& event);
void publish_shared_record(SharedEvent& event, uint64_t number);
openreg_status enqueue_publication(const std::shared_ptr<SharedEvent>& event, uint64_t number, Stream& stream);

// Makes the stream wait for the latest record, which is another process's.
openreg_status enqueue_shared_wait(const std::shared_ptr<SharedEvent>& event, Stream& stream);

// In a forked child: gives up the locks, which would tell others that the parent lives.
void close_shared_events_after_fork();

openreg_status event_create_shared(int32_t device, openreg_event* event);
openreg_status event_export(openreg_event event, openreg_ipc_handle* handle);
openreg_status event_import(const openreg_ipc_handle* handle, int32_t* device, openreg_event* event);

}  // namespace openreg::sim
