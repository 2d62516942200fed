// capture.cpp: beginning and ending captures, what goes into them, and what they forbid.
#include "driver/sim/capture.h"

#include <algorithm>
#include <cstring>

#include "driver/sim/device.h"
#include "driver/sim/event.h"
#include "driver/sim/status.h"

namespace openreg::sim {
namespace {

thread_local int32_t thread_mode = OPENREG_CAPTURE_GLOBAL;
std::atomic<uint64_t> last_capture_id{0};

using Guard = std::lock_guard<std::mutex>;

const char* mode_name(int32_t mode) {
  return mode == OPENREG_CAPTURE_GLOBAL ? "global" : mode == OPENREG_CAPTURE_THREAD_LOCAL ? "thread_local" : "relaxed";
}

// ---- LOCK: Captures::mutex ----

openreg_status refuse(Capture& capture, const std::string& sentence) {
  if (capture.reason.empty()) capture.reason = sentence;
  return fail(OPENREG_CAPTURE, "%s", sentence.c_str());
}

openreg_status check_valid(const char* operation, const Capture& capture) {
  if (capture.reason.empty()) return OPENREG_OK;
  return fail(OPENREG_CAPTURE, "%s: the capture is invalid because of an earlier call: %s", operation, capture.reason.c_str());
}

Capture* find_capture(uint64_t id) {
  for (auto& capture : captures().live)
    if (capture->id == id) return capture.get();
  return nullptr;
}

void add_lane(Capture& capture, Stream& stream) {
  stream.lane = static_cast<uint32_t>(capture.streams.size());
  capture.graph->lanes.push_back({stream.device, stream.priority});
  capture.streams.emplace_back(&stream);
  capture.last_work.push_back(0);
  for (auto& clock : capture.clocks) clock.push_back(0);
  capture.clocks.emplace_back(capture.streams.size(), 0);
  stream.capture.store(&capture, std::memory_order_release);
}

GraphOp& add_op(Capture& capture, uint32_t lane) {
  GraphOp& op = capture.graph->ops.emplace_back();
  op.lane = lane;
  capture.clocks[lane][lane] = static_cast<uint32_t>(capture.graph->ops.size());
  return op;
}

void finish(Capture& capture) {
  for (StreamRef& stream : capture.streams) stream->capture.store(nullptr, std::memory_order_release);
  Captures& all = captures();
  all.live.erase(std::find_if(all.live.begin(), all.live.end(), [&](auto& entry) { return entry.get() == &capture; }));
  all.count.store(static_cast<uint32_t>(all.live.size()), std::memory_order_release);
}

// The number of a stream whose work lane 0 has not seen, or 0.
uint64_t unjoined_stream(const Capture& capture) {
  for (size_t lane = 1; lane < capture.streams.size(); ++lane)
    if (capture.clocks[0][lane] < capture.last_work[lane]) return capture.streams[lane]->id;
  return 0;
}

bool keeps_thread(const Capture& capture) {
  if (thread_mode == OPENREG_CAPTURE_RELAXED || capture.mode == OPENREG_CAPTURE_RELAXED) return false;
  if (capture.thread == std::this_thread::get_id()) return true;
  return capture.mode == OPENREG_CAPTURE_GLOBAL && thread_mode == OPENREG_CAPTURE_GLOBAL;
}

std::string sentence(const char* operation, const char* what, uint64_t stream) {
  return std::string(operation) + ": stream " + std::to_string(stream) + what;
}

constexpr const char* kCapturing = " is being captured: its work runs when the graph is launched, so there is nothing to wait or ask for";

}  // namespace

Captures& captures() {
  static Captures& all = *new Captures;
  return all;
}

openreg_status capture_task(Stream& stream, const Task& head, Bytes prefix, Bytes args, bool* captured) {
  Guard guard(captures().mutex);
  Capture* capture = stream.capture.load(std::memory_order_relaxed);
  *captured = capture != nullptr;
  if (!capture) return OPENREG_OK;
  if (openreg_status status = check_valid(head.name, *capture)) return status;
  if (head.kind == TaskKind::wait_shared) return refuse(*capture, "a stream that is being captured cannot wait for an event of another process");
  std::vector<char> payload(prefix.size + args.size);
  if (prefix.size) memcpy(payload.data(), prefix.data, prefix.size);
  if (args.size) memcpy(payload.data() + prefix.size, args.data, args.size);
  GraphOp& op = add_op(*capture, stream.lane);
  op.head = head;
  op.payload = std::move(payload);
  capture->last_work[stream.lane] = static_cast<uint32_t>(capture->graph->ops.size());
  capture->graph->owns_arguments |= head.cleanup != nullptr;
  return OPENREG_OK;
}

openreg_status capture_record(Event& event, Stream& stream, bool* captured) {
  RecordRef record;
  {
    Guard guard(captures().mutex);
    Capture* capture = stream.capture.load(std::memory_order_relaxed);
    *captured = capture != nullptr;
    if (!capture) return OPENREG_OK;
    if (openreg_status status = check_valid("event_record", *capture)) return status;
    if (event.shared) return refuse(*capture, "event_record: an event that several processes share cannot be recorded on a stream that is being captured");
    record = make_record(stream, false);
    GraphOp& op = add_op(*capture, stream.lane);
    op.head.kind = TaskKind::record;
    op.head.name = "event record";
    op.record = capture->graph->records++;
    record->captured.reset(new CapturedRecord{capture->id, stream.lane, op.record, capture->clocks[stream.lane]});
  }
  set_latest(event, std::move(record));
  return OPENREG_OK;
}

openreg_status capture_wait(Stream& stream, const RecordRef& record, bool* captured) {
  Guard guard(captures().mutex);
  Capture* capture = stream.capture.load(std::memory_order_relaxed);
  const CapturedRecord* place = record ? record->captured.get() : nullptr;
  *captured = capture != nullptr || place != nullptr;
  if (!*captured || !record) return OPENREG_OK;
  if (capture)
    if (openreg_status status = check_valid("stream_wait_event", *capture)) return status;
  if (!place)
    return refuse(*capture, sentence("stream_wait_event", " is being captured and cannot wait for an event that was recorded outside the capture; "
                                                          "make it wait before the capture begins", stream.id));
  Capture* source = find_capture(place->capture);
  if (!source) {
    const std::string text = sentence("stream_wait_event", " cannot wait for an event that was recorded in a capture which is over", stream.id);
    return capture ? refuse(*capture, text) : fail(OPENREG_CAPTURE, "%s", text.c_str());
  }
  if (openreg_status status = check_valid("stream_wait_event", *source)) return status;
  if (!capture) {
    add_lane(*source, stream);
  } else if (capture != source) {
    refuse(*source, "stream_wait_event: two captures cannot wait for each other");
    return refuse(*capture, "stream_wait_event: two captures cannot wait for each other");
  }
  if (place->lane == stream.lane) return OPENREG_OK;  // in order anyway
  std::vector<uint32_t>& clock = source->clocks[stream.lane];
  for (size_t lane = 0; lane < place->clock.size(); ++lane) clock[lane] = std::max(clock[lane], place->clock[lane]);
  GraphOp& op = add_op(*source, stream.lane);
  op.head.kind = TaskKind::wait;
  op.head.name = "event wait";
  op.record = place->number;
  return OPENREG_OK;
}

openreg_status refuse_on_capturing(const char* operation, Stream& stream) {
  Guard guard(captures().mutex);
  Capture* capture = stream.capture.load(std::memory_order_relaxed);
  const std::string text = sentence(operation, kCapturing, stream.id);
  return capture ? refuse(*capture, text) : fail(OPENREG_CAPTURE, "%s", text.c_str());
}

openreg_status refuse_captured(const char* operation, const CapturedRecord& record) {
  Guard guard(captures().mutex);
  const std::string text = std::string(operation) + ": the event was recorded in a capture; it has no time of its own to wait or ask for";
  Capture* capture = find_capture(record.capture);
  return capture ? refuse(*capture, text) : fail(OPENREG_CAPTURE, "%s", text.c_str());
}

openreg_status refuse_on_capturing_device(const char* operation, int32_t device) {
  if (captures().count.load(std::memory_order_acquire) == 0) return OPENREG_OK;
  Guard guard(captures().mutex);
  for (auto& capture : captures().live)
    for (StreamRef& stream : capture->streams)
      if (stream->device->index == device) return refuse(*capture, sentence(operation, kCapturing, stream->id));
  return OPENREG_OK;
}

openreg_status refuse_unsafe(const char* operation) {
  if (__builtin_expect(captures().count.load(std::memory_order_acquire) == 0, 1)) return OPENREG_OK;
  Guard guard(captures().mutex);
  openreg_status status = OPENREG_OK;
  for (auto& capture : captures().live)
    if (keeps_thread(*capture))
      status = refuse(*capture, std::string(operation) + ": not legal while stream " + std::to_string(capture->streams[0]->id) +
                                    " is being captured in mode " + mode_name(capture->mode));
  return status;
}

void forget_captures() {
  std::vector<std::unique_ptr<Capture>> dropped;
  {
    Guard guard(captures().mutex);
    while (!captures().live.empty()) {
      dropped.push_back(std::move(captures().live.back()));
      captures().live.pop_back();
      for (StreamRef& stream : dropped.back()->streams) stream->capture.store(nullptr, std::memory_order_release);
    }
    captures().count.store(0, std::memory_order_release);
  }
}

openreg_status capture_begin(openreg_stream stream, int32_t mode) {
  return entry([&]() -> openreg_status {
    Stream* on = find_stream("capture_begin", stream);
    if (!on) return OPENREG_INVALID_VALUE;
    if (mode < OPENREG_CAPTURE_GLOBAL || mode > OPENREG_CAPTURE_RELAXED)
      return fail(OPENREG_INVALID_VALUE, "capture_begin: there is no mode %d", mode);
    auto capture = std::make_unique<Capture>();
    capture->id = last_capture_id.fetch_add(1, std::memory_order_relaxed) + 1;
    capture->mode = mode;
    capture->thread = std::this_thread::get_id();
    capture->graph = std::make_unique<Graph>();
    Captures& all = captures();
    Guard guard(all.mutex);
    if (on->capture.load(std::memory_order_relaxed))
      return fail(OPENREG_INVALID_VALUE, "capture_begin: stream %llu is being captured already", static_cast<unsigned long long>(on->id));
    all.live.reserve(all.live.size() + 1);
    add_lane(*capture, *on);
    all.live.push_back(std::move(capture));
    all.count.store(static_cast<uint32_t>(all.live.size()), std::memory_order_release);
    return OPENREG_OK;
  });
}

openreg_status capture_end(openreg_stream stream, openreg_graph* graph) {
  return entry([&]() -> openreg_status {
    Stream* on = find_stream("capture_end", stream);
    if (!on) return OPENREG_INVALID_VALUE;
    std::unique_ptr<Graph> finished;  // destroyed without the lock: cleanups run
    std::string reason;
    {
      Guard guard(captures().mutex);
      Capture* capture = on->capture.load(std::memory_order_relaxed);
      if (!capture || on->lane != 0)
        return fail(OPENREG_INVALID_VALUE, "capture_end: no capture began on stream %llu", static_cast<unsigned long long>(on->id));
      if (graph && capture->mode != OPENREG_CAPTURE_RELAXED && capture->thread != std::this_thread::get_id())
        return fail(OPENREG_INVALID_VALUE, "capture_end: another thread began the capture of stream %llu, and only it may end it (mode %s)",
                    static_cast<unsigned long long>(on->id), mode_name(capture->mode));
      reason = capture->reason;
      if (const uint64_t unjoined = reason.empty() ? unjoined_stream(*capture) : 0)
        reason = sentence("capture_end", " was forked off the capture and not joined: record an event after its last work, and make the origin "
                                         "stream wait for it", unjoined);
      finished = std::move(capture->graph);
      finish(*capture);
    }
    if (!graph) return OPENREG_OK;
    if (!reason.empty()) return fail(OPENREG_CAPTURE, "%s", reason.c_str());
    *graph = add_graph(std::move(finished));
    return *graph ? OPENREG_OK : fail(OPENREG_OUT_OF_MEMORY, "capture_end: there are too many live graphs");
  });
}

openreg_status stream_capture_info(openreg_stream stream, int32_t* state, uint64_t* id) {
  return entry([&]() -> openreg_status {
    Stream* on = find_stream("stream_capture_info", stream);
    if (!on) return OPENREG_INVALID_VALUE;
    Guard guard(captures().mutex);
    const Capture* capture = on->capture.load(std::memory_order_relaxed);
    if (state) *state = !capture ? OPENREG_NOT_CAPTURING : capture->reason.empty() ? OPENREG_CAPTURING : OPENREG_CAPTURE_INVALID;
    if (id) *id = capture ? capture->id : 0;
    return OPENREG_OK;
  });
}

openreg_status capture_exchange_mode(int32_t* mode) {
  return entry([&]() -> openreg_status {
    if (!mode) return fail(OPENREG_INVALID_VALUE, "capture_exchange_mode: mode is null");
    if (*mode < OPENREG_CAPTURE_GLOBAL || *mode > OPENREG_CAPTURE_RELAXED)
      return fail(OPENREG_INVALID_VALUE, "capture_exchange_mode: there is no mode %d", *mode);
    std::swap(*mode, thread_mode);
    return OPENREG_OK;
  });
}

}  // namespace openreg::sim
