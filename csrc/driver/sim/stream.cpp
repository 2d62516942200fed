// stream.cpp: creating, feeding, watching and destroying streams.
#include "driver/sim/stream.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>

#include "driver/sim/capture.h"
#include "driver/sim/device.h"
#include "driver/sim/recovery.h"
#include "driver/sim/schedule.h"
#include "driver/sim/status.h"
#include "driver/sim/trace.h"
#include "driver/sim/worker.h"

namespace openreg::sim {
namespace {

std::atomic<uint64_t> last_stream_id{0};

// Far beyond any launch, far below where sums of sizes wrap.
constexpr uint64_t kMaxPayload = uint64_t{1} << 40;

uint64_t round_up(uint64_t value, uint64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

void fill_payload(char* to, Bytes prefix, Bytes args) {
  if (prefix.size) memcpy(to, prefix.data, prefix.size);
  if (args.size) memcpy(to + prefix.size, args.data, args.size);
}

// Waits until the queue has room. LOCK: queue.producers
openreg_status make_room(Stream& stream, const char* operation, uint64_t size) {
  while (__builtin_expect(!stream.lost.load(std::memory_order_acquire), 1)) {
    const uint64_t needed = stream.queue.head_needed(size);
    if (needed == 0) return OPENREG_OK;
    stream.producer_waits.store(true, std::memory_order_seq_cst);
    const openreg_status status = await_position(operation, stream, needed, kNever);
    stream.producer_waits.store(false, std::memory_order_seq_cst);
    if (status != OPENREG_OK) return status;
  }
  return refuse_lost(operation, *stream.device);
}

openreg_status refuse_wait(const char* operation, Stream& stream) {
  if (__builtin_expect(stream.capture.load(std::memory_order_acquire) != nullptr, 0)) return refuse_on_capturing(operation, stream);
  return refuse_unsafe(operation);
}

}  // namespace

StreamTable& stream_table() {
  static StreamTable& table = *new StreamTable;
  return table;
}

void retain(Stream* stream) { stream->references.fetch_add(1, std::memory_order_relaxed); }

void release(Stream* stream) {
  if (stream->references.fetch_sub(1, std::memory_order_acq_rel) == 1) delete stream;
}

Stream* find_stream(const char* operation, openreg_stream handle) {
  Stream* stream = stream_table().find(handle);
  if (__builtin_expect(!stream, 0)) fail(OPENREG_INVALID_VALUE, "%s: %p is not a live stream", operation, static_cast<void*>(handle));
  return stream;
}

openreg_status submit(Stream& stream, const Task& head, Bytes prefix, Bytes args, uint64_t* end_position) {
  Queue& queue = stream.queue;
  if (args.size > kMaxPayload)
    return fail(OPENREG_INVALID_VALUE, "%s: %llu bytes of arguments are too many", head.name, static_cast<unsigned long long>(args.size));
  if (__builtin_expect(stream.capture.load(std::memory_order_acquire) != nullptr, 0)) {
    if (openreg_status status = refuse_lost(head.name, *stream.device)) return status;
    bool captured;
    const openreg_status status = capture_task(stream, head, prefix, args, &captured);
    if (captured) return status;
  }
  const uint64_t payload = prefix.size + args.size;
  const bool is_inline = payload <= queue.inline_limit_bytes();
  void* heap = nullptr;
  if (!is_inline) {
    heap = aligned_alloc(64, round_up(payload, 64));
    if (!heap)
      return fail(OPENREG_OUT_OF_MEMORY, "%s: the host has no memory for %llu bytes of arguments", head.name,
                  static_cast<unsigned long long>(payload));
    fill_payload(static_cast<char*>(heap), prefix, args);
  }
  const bool marked = is_traced();
  const uint64_t size = round_up(sizeof(Task) + (is_inline ? payload : 0) + (marked ? sizeof(TraceMark) : 0), Queue::kGrain);
  {
    std::lock_guard<Lock> guard(queue.producers);
    if (__builtin_expect(!queue.map(), 0)) {
      free(heap);
      return fail(OPENREG_OUT_OF_MEMORY, "%s: the host has no memory for the queue of stream %llu", head.name,
                  static_cast<unsigned long long>(stream.id));
    }
    if (const openreg_status status = make_room(stream, head.name, size)) {
      free(heap);
      return status;
    }
    Task* task = queue.reserve(size);
    *task = head;
    task->size_bytes = static_cast<uint32_t>(size);
    task->heap_payload = heap;
    task->marked = marked;
    if (__builtin_expect(marked, 0)) task->mark() = current_mark();
    if (is_inline && payload) fill_payload(reinterpret_cast<char*>(task + 1), prefix, args);
    if (__builtin_expect(stream.chip->log.is_open(), 0) && stream.chip->schedule.load(std::memory_order_relaxed) == Schedule::random)
      stream.chip->log.write_queued(stream.id, head.name);
    const uint64_t end = queue.publish(size);
    if (end_position) *end_position = end;
    if (__builtin_expect(!stream.worker_started.load(std::memory_order_relaxed), 0) &&
        stream.chip->schedule.load(std::memory_order_relaxed) == Schedule::eager)
      start_worker(stream);
  }
  announce_task(stream);
  return OPENREG_OK;
}

void retire(Stream& stream) {
  Chip& chip = *stream.chip;
  print_unreported(stream);
  std::lock_guard<std::mutex> registry(chip.registry_mutex);
  if (chip.closing.load(std::memory_order_relaxed)) {  // shutdown takes it from here, when nobody owns it
    stream.owned.store(0, std::memory_order_seq_cst);
    return;
  }
  {
    std::lock_guard<std::mutex> guard(chip.failure_mutex);
    stream.failure = nullptr;
    stream.skipped_for = nullptr;
  }
  stream.queue.unmap();
  chip.streams.erase(std::find(chip.streams.begin(), chip.streams.end(), &stream));
  stream.device->usage.streams.fetch_sub(1, std::memory_order_relaxed);
  if (stream.worker.joinable()) stream.worker.detach();
  release(&stream);
}

openreg_status stream_create(int32_t device, int32_t priority, openreg_stream* stream) {
  return entry([&]() -> openreg_status {
    if (!stream) return fail(OPENREG_INVALID_VALUE, "stream_create: stream is null");
    if (openreg_status status = check_device("stream_create", device)) return status;
    const int32_t clamped = std::clamp(priority, kPriorityGreatest, kPriorityLeast);
    std::lock_guard<std::mutex> guard(chip().registry_mutex);
    chip().streams.reserve(chip().streams.size() + 1);
    auto created = std::make_unique<Stream>(chip(), *chip().devices[static_cast<size_t>(device)], clamped,
                                            last_stream_id.fetch_add(1, std::memory_order_relaxed) + 1, chip().options.queue_bytes);
    created->handle = stream_table().insert(created.get());
    if (!created->handle) return fail(OPENREG_OUT_OF_MEMORY, "stream_create: there are too many live streams");
    created->lost.store(created->device->lost.load(std::memory_order_relaxed), std::memory_order_relaxed);
    *stream = created->handle;
    created->device->usage.streams.fetch_add(1, std::memory_order_relaxed);
    chip().streams.push_back(created.release());
    return OPENREG_OK;
  });
}

openreg_status stream_destroy(openreg_stream stream) {
  return entry([&]() -> openreg_status {
    if (Stream* live = stream_table().find(stream); live && live->capture.load(std::memory_order_acquire))
      return refuse_on_capturing("stream_destroy", *live);
    Stream* object = stream_table().erase(stream);
    if (!object) return fail(OPENREG_INVALID_VALUE, "stream_destroy: %p is not a live stream", static_cast<void*>(stream));
    StreamRef keep(object);
    object->destroyed.store(true, std::memory_order_seq_cst);
    // Whoever owned the stream last takes it apart; that may be this call.
    if (object->worker_started.load(std::memory_order_acquire))
      wake_worker(*object);
    else if (object->queue.empty() && object->try_own())
      retire(*object);
    return OPENREG_OK;
  });
}

openreg_status stream_query(openreg_stream stream) {
  return entry([&]() -> openreg_status {
    Stream* object = find_stream("stream_query", stream);
    if (!object) return OPENREG_INVALID_VALUE;
    if (openreg_status status = refuse_wait("stream_query", *object)) return status;
    return poll_position(*object, object->queue.tail());
  });
}

openreg_status stream_synchronize(openreg_stream stream, uint64_t timeout_ns, openreg_error* error) {
  return entry([&]() -> openreg_status {
    Stream* object = find_stream("stream_synchronize", stream);
    if (!object) return OPENREG_INVALID_VALUE;
    if (openreg_status status = check_error_record("stream_synchronize", error)) return status;
    if (openreg_status status = refuse_wait("stream_synchronize", *object)) return status;
    const LossWatch watch(*object->device);
    const uint64_t target = object->queue.tail();
    if (timeout_ns & kLends) note_wait(*object);
    if (object->queue.head() < target) {
      const openreg_status status = timeout_ns == 0 ? poll_position(*object, target)
                                                    : await_position("stream_synchronize", *object, target, deadline_after(timeout_ns));
      if (status != OPENREG_OK) return status;
    }
    if (openreg_status status = watch.report("stream_synchronize", error)) return status;
    return report_failure(chip(), pending_failure(*object), error);
  });
}

openreg_status stream_info(openreg_stream stream, openreg_stream_info* info) {
  return entry([&]() -> openreg_status {
    Stream* object = find_stream("stream_info", stream);
    if (!object) return OPENREG_INVALID_VALUE;
    if (!info || info->struct_size < 8)
      return fail(OPENREG_INVALID_VALUE, "stream_info: info is null or its struct_size is not set");
    openreg_stream_info full{};
    full.struct_size = info->struct_size;
    full.device = object->device->index;
    full.priority = object->priority;
    full.stream_id = object->id;
    full.queued = object->queue.empty() ? 0 : object->queue.unfinished_tasks();
    if (const char* running = object->running_name.load(std::memory_order_acquire)) {
      const uint64_t since = object->running_since_ns.load(std::memory_order_relaxed);
      const uint64_t now = now_ns();
      full.running_for_ns = now > since ? now - since : 1;
      snprintf(full.running, sizeof full.running, "%s", running);
    }
    memcpy(info, &full, std::min<size_t>(info->struct_size, sizeof full));
    return OPENREG_OK;
  });
}

}  // namespace openreg::sim
