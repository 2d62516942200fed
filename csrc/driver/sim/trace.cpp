// trace.cpp: the sink, and the records of operations.
#include "driver/sim/trace.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <new>

#include "driver/sim/device.h"
#include "driver/sim/event.h"
#include "driver/sim/status.h"
#include "driver/sim/stream.h"

namespace openreg::sim {

std::atomic<const TraceSink*> trace_sink{nullptr};

namespace {

std::atomic<uint64_t> last_correlation{0};
std::atomic<uint32_t> epoch{0};
std::atomic<uint32_t> inside[2];
// What a thread keeps is a pointer behind a key, and no thread_local, for which the system would allocate memory in every worker.
pthread_key_t new_key() {
  pthread_key_t key;
  if (pthread_key_create(&key, nullptr) != 0) throw std::bad_alloc();
  return key;
}

// The sink that the thread is in.
pthread_key_t sink_key() {
  static const pthread_key_t key = new_key();
  return key;
}

// The mark of the call that the thread is in.
pthread_key_t mark_key() {
  static const pthread_key_t key = new_key();
  return key;
}

// See Note [Who traces].
void replace_sink(std::unique_ptr<const TraceSink> sink) {
  static std::mutex& mutex = *new std::mutex;
  std::lock_guard<std::mutex> guard(mutex);
  const std::unique_ptr<const TraceSink> before(trace_sink.exchange(sink.release(), std::memory_order_seq_cst));
  for (int turn = 0; turn < 2; ++turn) {
    const std::atomic<uint32_t>& leaving = inside[epoch.fetch_add(1, std::memory_order_seq_cst) & 1];
    while (leaving.load(std::memory_order_seq_cst) != 0) sched_yield();
  }
}

int32_t kind_of(const Task& task) {
  switch (task.kind) {
    case TaskKind::copy: return OPENREG_TRACE_COPY;
    case TaskKind::fill: return OPENREG_TRACE_FILL;
    case TaskKind::record: return OPENREG_TRACE_RECORD;
    case TaskKind::wait:
    case TaskKind::wait_shared: return OPENREG_TRACE_WAIT;
    default: return OPENREG_TRACE_LAUNCH;
  }
}

constexpr const char* kRecordName = "event_record";
constexpr const char* kWaitName = "stream_wait_event";

const char* name_of(const Task& task) {
  const int32_t kind = kind_of(task);
  return kind == OPENREG_TRACE_RECORD ? kRecordName : kind == OPENREG_TRACE_WAIT ? kWaitName : task.name;
}

// An operation that began and ended now.
openreg_trace_record operation_of(const Stream& stream, int32_t kind, const char* name) {
  openreg_trace_record record{};
  record.struct_size = sizeof record;
  record.kind = kind;
  record.operation = 1;
  record.device = stream.device->index;
  record.stream_id = stream.id;
  record.name = name;
  record.dst_device = record.src_device = -1;
  record.begin_ns = record.end_ns = now_ns();
  return record;
}

// The device of a kernel-view address and its device address; -1 and the address itself for the host's.
int32_t device_address(const void* reachable, const void** address) {
  const void* candidate = static_cast<const char*>(reachable) - chip().address_space.delta();
  const int32_t device = chip().address_space.device_of(candidate);
  *address = device < 0 ? reachable : candidate;
  return device;
}

void describe_payload(Task& task, openreg_trace_record* record) {
  const void* source;
  if (task.kind == TaskKind::copy) {
    const CopyArgs& args = *reinterpret_cast<CopyArgs*>(task.payload());
    record->bytes = args.bytes;
    record->dst_device = device_address(args.dst, &record->address);
    record->src_device = device_address(args.src, &source);
  } else if (task.kind == TaskKind::fill) {
    const FillArgs& args = *reinterpret_cast<FillArgs*>(task.payload());
    record->bytes = args.bytes;
    record->dst_device = device_address(args.dst, &record->address);
  }
}

// A record that was enqueued before the trace gets its number when it completes, so that waits can name it.
uint64_t correlation_of(Task& task) {
  uint64_t correlation = task.marked ? task.mark().correlation : 0;
  if (correlation == 0) correlation = next_correlation();
  if (task.kind == TaskKind::record) task.record->correlation.store(correlation, std::memory_order_relaxed);
  return correlation;
}

openreg_trace_record operation_of(Stream& stream, Task& task, openreg_status status) {
  openreg_trace_record record = operation_of(stream, kind_of(task), name_of(task));
  record.correlation = correlation_of(task);
  if (task.kind == TaskKind::wait) record.cause = task.record->correlation.load(std::memory_order_relaxed);
  record.tag = task.tag;
  record.status = status;
  describe_payload(task, &record);
  return record;
}

// The number of the call that this thread is in.
uint64_t call_correlation() {
  const uint64_t correlation = current_mark().correlation;
  return correlation ? correlation : next_correlation();
}

}  // namespace

void give_record(const openreg_trace_record& record) {
  std::atomic<uint32_t>& entered = inside[epoch.load(std::memory_order_seq_cst) & 1];
  entered.fetch_add(1, std::memory_order_seq_cst);
  if (const TraceSink* sink = trace_sink.load(std::memory_order_seq_cst)) {
    pthread_setspecific(sink_key(), sink);
    sink->take(sink->context, &record);
    pthread_setspecific(sink_key(), nullptr);
  }
  entered.fetch_sub(1, std::memory_order_seq_cst);
}

uint64_t next_correlation() { return last_correlation.fetch_add(1, std::memory_order_relaxed) + 1; }

TraceMark current_mark() {
  const auto* mark = static_cast<const TraceMark*>(pthread_getspecific(mark_key()));
  return mark ? *mark : TraceMark{};
}

const TraceMark* exchange_mark(const TraceMark* mark) {
  const auto* before = static_cast<const TraceMark*>(pthread_getspecific(mark_key()));
  pthread_setspecific(mark_key(), mark);
  return before;
}

void trace_operation(Stream& stream, Task& task, uint64_t begin_ns, openreg_status status) {
  if (task.internal) return;
  openreg_trace_record record = operation_of(stream, task, status);
  if (record.kind == OPENREG_TRACE_WAIT && task.marked && task.mark().correlation)
    begin_ns = std::max(stream.traced_until_ns.load(std::memory_order_relaxed), task.mark().queued_ns);
  else if (begin_ns == 0)
    begin_ns = record.kind == OPENREG_TRACE_WAIT ? record.end_ns : stream.running_since_ns.load(std::memory_order_relaxed);
  record.begin_ns = std::min(begin_ns, record.end_ns);
  stream.traced_until_ns.store(record.end_ns, std::memory_order_relaxed);
  give_record(record);
}

void trace_dropped(Stream& stream, Task& task, openreg_status status) {
  if (!task.internal) give_record(operation_of(stream, task, status));
}

void trace_at_call(Stream& stream, const Task& task) {
  openreg_trace_record record = operation_of(stream, kind_of(task), task.name);
  record.correlation = call_correlation();
  record.tag = task.tag;
  give_record(record);
}

void trace_record_at_call(Stream& stream, Record& event, const FailurePtr& failure) {
  openreg_trace_record record = operation_of(stream, OPENREG_TRACE_RECORD, kRecordName);
  record.correlation = call_correlation();
  record.status = status_of(failure);
  event.correlation.store(record.correlation, std::memory_order_relaxed);
  give_record(record);
}

void trace_wait_at_call(Stream& stream, uint64_t cause) {
  openreg_trace_record record = operation_of(stream, OPENREG_TRACE_WAIT, kWaitName);
  record.correlation = call_correlation();
  record.cause = cause;
  give_record(record);
}

void end_trace() {
  if (trace_sink.load(std::memory_order_seq_cst)) replace_sink(nullptr);
}

openreg_status trace_exchange(openreg_trace_sink sink, void* context) {
  return entry([&]() -> openreg_status {
    mark_key();  // made here, where it may fail
    if (pthread_getspecific(sink_key())) return fail(OPENREG_INVALID_VALUE, "trace_exchange: a sink cannot replace itself; return from it first");
    replace_sink(sink ? std::make_unique<const TraceSink>(TraceSink{sink, context}) : nullptr);
    return OPENREG_OK;
  });
}

}  // namespace openreg::sim
