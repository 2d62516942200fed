// stream.h: one stream: its queue, who executes it, who waits for it, and what went wrong on it.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <thread>
#include <utility>

#include "driver/sim/failure.h"
#include "driver/sim/handle.h"
#include "driver/sim/queue.h"
#include "hal/openreg_hal.h"

namespace openreg::sim {

struct Capture;
struct Chip;
struct Device;

// Whether the owner is inside a task that waits for other work. taken: somebody took that task from the owner.
enum class WaitState : uint32_t { none, waiting, taken };

// Note [Ownership]
// A task runs on whichever thread owns its stream: `owned` is a try-lock that the stream's worker, a synchronising
// thread or a thread that waits for one of its events takes for a batch of tasks. Everything marked "owner" is handed from
// owner to owner by that lock. A thread that owns stream B at a wait for stream A may take A as well; that cannot
// deadlock, because a wait refers to a record that was enqueued before it: among the tasks that are not finished,
// the oldest in that order is never a wait that is held up, so somebody can always run it.
struct Stream {
  Stream(Chip& owner_chip, Device& owner_device, int32_t clamped_priority, uint64_t process_id, uint64_t queue_bytes)
      : chip(&owner_chip), device(&owner_device), priority(clamped_priority), id(process_id), queue(queue_bytes) {}

  Chip* const chip;
  Device* const device;
  const int32_t priority;
  const uint64_t id;  // unique in the process, never reused
  openreg_stream handle = nullptr;
  std::atomic<uint32_t> references{1};  // the registry, records, waiting threads

  Queue queue;

  // Owner.
  alignas(64) std::atomic<uint32_t> owned{0};
  std::atomic<pthread_t> owner{};                   // meaningful while owned
  std::atomic<const char*> running_name{nullptr};
  std::atomic<uint64_t> running_since_ns{0};        // coarse clock
  std::atomic<uint64_t> traced_until_ns{0};         // the end of the latest operation that a trace has
  std::atomic<WaitState> wait_state{WaitState::none};
  std::atomic<bool> emptied_by_other{false};        // somebody may be in the queue instead of the owner

  // Rarely written, read for every task.
  alignas(64) std::atomic<uint64_t> skip_until{0};  // see Note [Skipping]
  std::atomic<bool> lost{false};                    // with its device. LOCK: Chip::registry_mutex to write
  std::atomic<bool> producer_waits{false};          // for room, holding queue.producers; it looks at `lost` afterwards
  std::atomic<Capture*> capture{nullptr};           // not null: work goes there. LOCK: Captures::mutex to write
  uint32_t lane = 0;                                // in the capture. LOCK: Captures::mutex
  std::atomic<uint64_t> wake_at{kNever};            // the nearest position that a sleeping thread waits for
  std::atomic<uint32_t> wake_generation{0};         // futex word of those threads
  std::atomic<uint32_t> worker_state{0};            // futex word of the worker, a WorkerState
  std::atomic<int32_t> short_waits{0};              // see Note [Standing back]
  std::atomic<uint64_t> enqueued_at_wait{0};        // tasks, at the last wait of a host thread
  std::atomic<bool> worker_started{false};          // LOCK: queue.producers to write
  std::atomic<bool> destroyed{false};               // no handle leads here any more
  std::thread worker;                               // joined by shutdown, or detached when the worker retires

  FailurePtr failure;      // carried and not reported. LOCK: Chip::failure_mutex
  FailurePtr skipped_for;  // the reported failure that skip_until stems from. LOCK: Chip::failure_mutex

  bool try_own() {
    if (owned.load(std::memory_order_seq_cst) || owned.exchange(1, std::memory_order_acquire)) return false;
    owner.store(pthread_self(), std::memory_order_relaxed);
    return true;
  }
};

void retain(Stream* stream);
void release(Stream* stream);

// A counted reference.
class StreamRef {
 public:
  StreamRef() = default;
  explicit StreamRef(Stream* stream) : stream_(stream) { retain(stream); }
  StreamRef(StreamRef&& other) noexcept : stream_(std::exchange(other.stream_, nullptr)) {}
  StreamRef& operator=(StreamRef&& other) noexcept {
    std::swap(stream_, other.stream_);
    return *this;
  }
  ~StreamRef() {
    if (stream_) release(stream_);
  }
  Stream* get() const { return stream_; }
  Stream* operator->() const { return stream_; }
  Stream& operator*() const { return *stream_; }

 private:
  Stream* stream_ = nullptr;
};

using StreamTable = HandleTable<Stream, openreg_stream, HandleKind::stream>;
StreamTable& stream_table();

// The stream of a handle, or null with a sentence for last_message.
Stream* find_stream(const char* operation, openreg_stream handle);

struct Bytes {
  const void* data = nullptr;
  uint64_t size = 0;
};

// Enqueues one task: copies `head` with its payload (prefix, then args) and wakes or starts the worker.
// *end_position: where the queue's head has to be for the task to have finished. When this fails nothing was enqueued.
openreg_status submit(Stream& stream, const Task& head, Bytes prefix, Bytes args, uint64_t* end_position);

// Takes a drained, destroyed stream apart, or leaves that to a shutdown that is underway. The caller owns it, and does not give it up itself.
void retire(Stream& stream);

openreg_status stream_create(int32_t device, int32_t priority, openreg_stream* stream);
openreg_status stream_destroy(openreg_stream stream);
openreg_status stream_query(openreg_stream stream);
openreg_status stream_synchronize(openreg_stream stream, uint64_t timeout_ns, openreg_error* error);
openreg_status stream_info(openreg_stream stream, openreg_stream_info* info);

}  // namespace openreg::sim
