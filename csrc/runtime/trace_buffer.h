// Keeps trace records for later, up to a number of them.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

#include "runtime/trace.h"

namespace openreg {

struct TraceEvent {
  openreg_trace_record record;  // devices are torch's; -1 for host memory and for devices that are not visible
  int64_t thread;               // the system's number of the thread that gave it
  uint64_t mark;                // what mark() said on that thread
};

class OPENREG_API TraceBuffer : public TraceConsumer {
 public:
  // Keeps the first `max_events` records and counts the others.
  explicit TraceBuffer(uint64_t max_events) : max_events_(max_events) {}
  virtual ~TraceBuffer() { stop(); }
  TraceBuffer(const TraceBuffer&) = delete;

  // Once each, in this order. stop: again does nothing. Host threads.
  void start();
  void stop();

  // What was kept, by the begin. Any thread, also before the stop.
  std::vector<TraceEvent> events() const;

  // How many records there was no room for. Any thread.
  uint64_t dropped() const;

  void take(const openreg_trace_record& record) noexcept final;

 protected:
  // A word for the record that is being taken, on the thread that takes it.
  virtual uint64_t mark() const noexcept { return 0; }

 private:
  // Threads are spread over these, so that they seldom meet.
  struct alignas(64) Shard {
    mutable std::mutex mutex;  // LOCK: events
    std::vector<TraceEvent> events;
  };

  const uint64_t max_events_;
  std::atomic<uint64_t> taken_{0}, lost_{0};  // lost: no memory
  std::atomic<bool> started_{false};
  std::array<Shard, 16> shards_;
};

}  // namespace openreg
