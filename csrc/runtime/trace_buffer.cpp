// Collecting records in shards and handing them out in order.
#include "runtime/trace_buffer.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <exception>

#include "runtime/driver.h"

namespace openreg {

namespace {

int64_t this_thread() {
  thread_local const int64_t number = syscall(SYS_gettid);
  return number;
}

}  // namespace

void TraceBuffer::start() {
  add_trace_consumer(this);
  started_ = true;
}

void TraceBuffer::stop() {
  if (started_.exchange(false)) remove_trace_consumer(this);
}

void TraceBuffer::take(const openreg_trace_record& record) noexcept {
  if (taken_.fetch_add(1, std::memory_order_relaxed) >= max_events_) return;
  const int64_t thread = this_thread();
  Shard& shard = shards_[static_cast<size_t>(thread) % shards_.size()];
  try {
    std::lock_guard<std::mutex> lock(shard.mutex);
    shard.events.push_back({record, thread, mark()});
  } catch (const std::exception&) {
    lost_.fetch_add(1, std::memory_order_relaxed);
  }
}

std::vector<TraceEvent> TraceBuffer::events() const {
  std::vector<TraceEvent> all;
  for (const Shard& shard : shards_) {
    std::lock_guard<std::mutex> lock(shard.mutex);
    all.insert(all.end(), shard.events.begin(), shard.events.end());
  }
  for (TraceEvent& event : all)
    for (int32_t* device : {&event.record.device, &event.record.dst_device, &event.record.src_device}) *device = torch_device(*device);
  std::stable_sort(all.begin(), all.end(), [](const TraceEvent& a, const TraceEvent& b) { return a.record.begin_ns < b.record.begin_ns; });
  return all;
}

uint64_t TraceBuffer::dropped() const {
  const uint64_t taken = taken_.load(std::memory_order_relaxed);
  return (taken > max_events_ ? taken - max_events_ : 0) + lost_.load(std::memory_order_relaxed);
}

}  // namespace openreg
