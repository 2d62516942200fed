// trace_calls.cpp: measures a call, marks the tasks that it enqueues, and describes it.
#include "driver/sim/trace_calls.h"

#include "driver/sim/copy.h"
#include "driver/sim/device.h"
#include "driver/sim/event.h"
#include "driver/sim/graph.h"
#include "driver/sim/host_memory.h"
#include "driver/sim/launch.h"
#include "driver/sim/memory.h"
#include "driver/sim/status.h"
#include "driver/sim/stream.h"
#include "driver/sim/trace.h"

namespace openreg::sim::traced {
namespace {

// Names the call's tasks for as long as it lasts.
class CallMark {
 public:
  CallMark() : mark_{next_correlation(), now_ns()}, before_(exchange_mark(&mark_)) {}
  ~CallMark() { exchange_mark(before_); }
  CallMark(const CallMark&) = delete;
  const TraceMark& get() const { return mark_; }

 private:
  const TraceMark mark_;
  const TraceMark* const before_;
};

// describe(record, before) is called once before the call and once after it, when outputs are known.
template <class Describe, class Forward>
openreg_status call(int32_t kind, const char* name, Describe&& describe, Forward&& forward) {
  if (!is_traced() || driver_state.load(std::memory_order_acquire) != State::ready) return forward();
  openreg_trace_record record{};
  record.struct_size = sizeof record;
  record.kind = kind;
  record.device = record.dst_device = record.src_device = -1;
  record.name = name;
  const CallMark mark;
  record.correlation = mark.get().correlation;
  record.begin_ns = mark.get().queued_ns;
  describe(record, true);
  record.status = forward();
  record.end_ns = now_ns();
  describe(record, false);
  give_record(record);
  return record.status;
}

void describe_stream(openreg_trace_record& record, openreg_stream handle) {
  const Stream* stream = stream_table().find(handle);
  if (!stream) return;
  record.device = stream->device->index;
  record.stream_id = stream->id;
}

// Only what describe_task accepts is read.
void describe_launch(openreg_trace_record& record, openreg_stream handle, const openreg_launch_desc* desc) {
  describe_stream(record, handle);
  Task task{};
  if (describe_task(record.name, desc, record.name, &task) != OPENREG_OK) return;
  record.name = task.name;
  record.tag = task.tag;
}

// The latest record of an event: its stream and its number in the trace.
void describe_event(openreg_trace_record& record, openreg_event handle) {
  Event* event = event_table().find(handle);
  if (!event) return;
  record.device = event->device;
  std::lock_guard<Lock> guard(event->lock);
  if (event->latest) record.stream_id = event->latest->stream->id;
}

void describe_cause(openreg_trace_record& record, openreg_event handle) {
  Event* event = event_table().find(handle);
  if (!event) return;
  std::lock_guard<Lock> guard(event->lock);
  if (event->latest) record.cause = event->latest->correlation.load(std::memory_order_relaxed);
}

// Whole pages, as the device's capacity counts them. Nothing when there is no such segment.
void segment_bytes(int32_t device, const void* ptr, uint64_t* bytes) {
  uint64_t base;
  if (device >= 0 && static_cast<size_t>(device) < chip().devices.size()) chip().devices[static_cast<size_t>(device)]->memory.find(ptr, &base, bytes);
}

}  // namespace

openreg_status launch_kernel(openreg_stream stream, openreg_kernel kernel, const openreg_geometry* geometry, const void* args, uint64_t size,
                             const openreg_launch_desc* desc) {
  return call(
      OPENREG_TRACE_LAUNCH, "unnamed",
      [&](openreg_trace_record& record, bool before) {
        if (before) describe_launch(record, stream, desc);
      },
      [&] { return sim::launch_kernel(stream, kernel, geometry, args, size, desc); });
}

openreg_status launch_host_func(openreg_stream stream, openreg_host_func fn, const void* args, uint64_t size, const openreg_launch_desc* desc) {
  return call(
      OPENREG_TRACE_LAUNCH, "unnamed",
      [&](openreg_trace_record& record, bool before) {
        if (before) describe_launch(record, stream, desc);
      },
      [&] { return sim::launch_host_func(stream, fn, args, size, desc); });
}

openreg_status copy(openreg_stream stream, void* dst, int32_t dst_device, const void* src, int32_t src_device, uint64_t bytes,
                    const openreg_launch_desc* desc) {
  return call(
      OPENREG_TRACE_COPY, "copy",
      [&](openreg_trace_record& record, bool before) {
        if (!before) return;
        describe_launch(record, stream, desc);
        record.bytes = bytes;
        record.address = dst;
        record.dst_device = dst_device;
        record.src_device = src_device;
      },
      [&] { return sim::copy(stream, dst, dst_device, src, src_device, bytes, desc); });
}

openreg_status fill(openreg_stream stream, void* dst, uint8_t value, uint64_t bytes, const openreg_launch_desc* desc) {
  return call(
      OPENREG_TRACE_FILL, "fill",
      [&](openreg_trace_record& record, bool before) {
        if (!before) return;
        describe_launch(record, stream, desc);
        record.bytes = bytes;
        record.address = dst;
        record.dst_device = record.device;
      },
      [&] { return sim::fill(stream, dst, value, bytes, desc); });
}

openreg_status event_record(openreg_event event, openreg_stream stream) {
  return call(
      OPENREG_TRACE_RECORD, "event_record",
      [&](openreg_trace_record& record, bool before) {
        if (before) describe_stream(record, stream);
      },
      [&] { return sim::event_record(event, stream); });
}

openreg_status stream_wait_event(openreg_stream stream, openreg_event event) {
  return call(
      OPENREG_TRACE_WAIT, "stream_wait_event",
      [&](openreg_trace_record& record, bool before) {
        if (!before) return;
        describe_stream(record, stream);
        describe_cause(record, event);
      },
      [&] { return sim::stream_wait_event(stream, event); });
}

openreg_status graph_launch(openreg_graph graph, openreg_stream stream) {
  return call(
      OPENREG_TRACE_GRAPH, "graph_launch",
      [&](openreg_trace_record& record, bool before) {
        if (before) describe_stream(record, stream);
      },
      [&] { return sim::graph_launch(graph, stream); });
}

openreg_status device_synchronize(int32_t device, uint64_t timeout_ns, openreg_error* error) {
  return call(
      OPENREG_TRACE_SYNC, "device_synchronize", [&](openreg_trace_record& record, bool) { record.device = device; },
      [&] { return sim::device_synchronize(device, timeout_ns, error); });
}

openreg_status stream_synchronize(openreg_stream stream, uint64_t timeout_ns, openreg_error* error) {
  return call(
      OPENREG_TRACE_SYNC, "stream_synchronize",
      [&](openreg_trace_record& record, bool before) {
        if (before) describe_stream(record, stream);
      },
      [&] { return sim::stream_synchronize(stream, timeout_ns, error); });
}

openreg_status event_synchronize(openreg_event event, uint64_t timeout_ns, openreg_error* error) {
  return call(
      OPENREG_TRACE_SYNC, "event_synchronize",
      [&](openreg_trace_record& record, bool before) {
        if (before) describe_event(record, event);
      },
      [&] { return sim::event_synchronize(event, timeout_ns, error); });
}

openreg_status mem_alloc(int32_t device, uint64_t bytes, void** ptr) {
  return call(
      OPENREG_TRACE_ALLOC, "mem_alloc",
      [&](openreg_trace_record& record, bool before) {
        record.device = device;
        record.bytes = bytes;
        if (before || record.status != OPENREG_OK) return;
        record.address = *ptr;
        segment_bytes(device, *ptr, &record.bytes);
      },
      [&] { return sim::mem_alloc(device, bytes, ptr); });
}

openreg_status mem_free(int32_t device, void* ptr) {
  return call(
      OPENREG_TRACE_FREE, "mem_free",
      [&](openreg_trace_record& record, bool before) {
        record.device = device;
        record.address = ptr;
        if (before) segment_bytes(device, ptr, &record.bytes);
      },
      [&] { return sim::mem_free(device, ptr); });
}

openreg_status mem_map(int32_t device, void* ptr, uint64_t bytes) {
  return call(
      OPENREG_TRACE_ALLOC, "mem_map",
      [&](openreg_trace_record& record, bool) {
        record.device = device;
        record.address = ptr;
        record.bytes = bytes;
      },
      [&] { return sim::mem_map(device, ptr, bytes); });
}

openreg_status mem_unmap(int32_t device, void* ptr, uint64_t bytes) {
  return call(
      OPENREG_TRACE_FREE, "mem_unmap",
      [&](openreg_trace_record& record, bool) {
        record.device = device;
        record.address = ptr;
        record.bytes = bytes;
      },
      [&] { return sim::mem_unmap(device, ptr, bytes); });
}

openreg_status host_alloc(uint64_t bytes, void** ptr) {
  return call(
      OPENREG_TRACE_ALLOC, "host_alloc",
      [&](openreg_trace_record& record, bool before) {
        record.bytes = bytes;
        if (!before && record.status == OPENREG_OK) record.address = *ptr;
      },
      [&] { return sim::host_alloc(bytes, ptr); });
}

openreg_status host_free(void* ptr) {
  return call(
      OPENREG_TRACE_FREE, "host_free",
      [&](openreg_trace_record& record, bool before) {
        uint64_t base;
        record.address = ptr;
        if (before) chip().host_memory.find(ptr, &base, &record.bytes);
      },
      [&] { return sim::host_free(ptr); });
}

}  // namespace openreg::sim::traced
