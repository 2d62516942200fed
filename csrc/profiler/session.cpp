// From trace records to activities.
#include "profiler/session.h"

#include <c10/util/Exception.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <map>
#include <thread>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "runtime/device.h"
#include "runtime/driver.h"
#include "runtime/error.h"
#include "runtime/interpreter_lock.h"
#include "runtime/stream.h"

namespace openreg {

namespace {

using libkineto::ActivityType;

constexpr uint64_t kMaxEvents = 20'000'000;

// The operators and the ranges that this thread is in; Kineto numbers both from 1.
thread_local std::vector<uint32_t> operators, ranges;

uint32_t top(const std::vector<uint32_t>& stack) { return stack.empty() ? 0 : stack.back(); }

uint32_t operator_of(const TraceEvent& event) { return static_cast<uint32_t>(event.mark); }
uint32_t range_of(const TraceEvent& event) { return static_cast<uint32_t>(event.mark >> 32); }

const char* call_name(const openreg_trace_record& record) {
  switch (record.kind) {
    case OPENREG_TRACE_LAUNCH: return "openregLaunch";
    case OPENREG_TRACE_COPY: return "openregMemcpyAsync";
    case OPENREG_TRACE_FILL: return "openregMemsetAsync";
    case OPENREG_TRACE_RECORD: return "openregEventRecord";
    case OPENREG_TRACE_WAIT: return "openregStreamWaitEvent";
    case OPENREG_TRACE_ALLOC: return "openregMalloc";
    case OPENREG_TRACE_FREE: return "openregFree";
    case OPENREG_TRACE_GRAPH: return "openregGraphLaunch";
    default: return record.name;
  }
}

std::string copy_name(const openreg_trace_record& record) {
  const char* from = record.src_device < 0 ? "H" : "D";
  const char* to = record.dst_device < 0 ? "H" : "D";
  if (record.src_device >= 0 && record.dst_device >= 0 && record.src_device != record.dst_device) return "Memcpy PtoP";
  return std::string("Memcpy ") + from + "to" + to;
}

// Lets what is queued on any device end, for at most ten seconds: torch waits for the current device only. Takes no error that a synchronization is owed.
bool drain() {
  const WithoutInterpreterLock released;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  for (const c10::Stream stream : used_streams()) {
    try {
      while (!query_stream(stream)) {
        if (std::chrono::steady_clock::now() > deadline) return false;
        std::this_thread::sleep_for(std::chrono::microseconds(50));
      }
    } catch (const std::exception&) {
      continue;  // it is being captured: nothing of it runs
    }
  }
  return true;
}

int64_t wall_ns() { return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch()).count(); }

}  // namespace

ProfilerSession::ProfilerSession(std::set<ActivityType> types) : TraceBuffer(kMaxEvents), types_(std::move(types)) {}

void ProfilerSession::start() {
  status_ = libkineto::TraceStatus::RECORDING;
  try {
    TraceBuffer::start();
    uint64_t device_ns = 0;
    if (device_count() > 0) check(hal().device_clock(driver_device(0), &device_ns), "Reading the device's clock");
    clock_offset_ns_ = wall_ns() - static_cast<int64_t>(device_ns);
  } catch (const std::exception& error) {
    status_ = libkineto::TraceStatus::ERROR;
    complain(std::string("openreg cannot be profiled: ") + error.what());
  }
}

ProfilerSession::~ProfilerSession() { stop(); }

void ProfilerSession::stop() {
  try {
    if (status_ == libkineto::TraceStatus::RECORDING && !drain()) complain("openreg: work that did not end within ten seconds is not in the profile.");
    TraceBuffer::stop();
  } catch (const std::exception& error) {
    complain(std::string("openreg: the profile did not end as it should: ") + error.what());
  }
  if (status_ != libkineto::TraceStatus::RECORDING) return;
  status_ = libkineto::TraceStatus::PROCESSING;
  if (dropped() != 0) complain("openreg: " + std::to_string(dropped()) + " activities came after the first " + std::to_string(kMaxEvents) + ".");
}

// Kineto keeps errors() for itself, so they are warned of as well.
void ProfilerSession::complain(const std::string& sentence) {
  errors_.push_back(sentence);
  TORCH_WARN(sentence);
}

uint64_t ProfilerSession::mark() const noexcept { return static_cast<uint64_t>(top(ranges)) << 32 | top(operators); }

void ProfilerSession::pushCorrelationId(uint64_t id) { operators.push_back(static_cast<uint32_t>(id)); }
void ProfilerSession::popCorrelationId() {
  if (!operators.empty()) operators.pop_back();
}
void ProfilerSession::pushUserCorrelationId(uint64_t id) { ranges.push_back(static_cast<uint32_t>(id)); }
void ProfilerSession::popUserCorrelationId() {
  if (!ranges.empty()) ranges.pop_back();
}

void ProfilerSession::add(ActivityType type, const std::string& name, const TraceEvent& event, int32_t id) {
  const openreg_trace_record& record = event.record;
  activities_->emplace_activity(activities_->span, type, name);
  libkineto::GenericTraceActivity& activity = *activities_->activities.back();
  activity.startTime = static_cast<int64_t>(record.begin_ns) + clock_offset_ns_;
  activity.endTime = static_cast<int64_t>(record.end_ns) + clock_offset_ns_;
  activity.id = id;
  activity.threadId = static_cast<int32_t>(event.thread);
  activity.flow.id = static_cast<uint32_t>(id);
  activity.flow.type = libkineto::kLinkAsyncCpuGpu;
  if (record.operation != 0) {
    activity.device = record.device;
    activity.resource = static_cast<int32_t>(record.stream_id);
    activity.addMetadata("device", record.device);
    activity.addMetadata("stream", record.stream_id);
    streams_.emplace(record.device, record.stream_id);
  } else {
    activity.device = static_cast<int32_t>(getpid());
    activity.resource = static_cast<int32_t>(event.thread);
    activity.flow.start = 1;
  }
  activity.addMetadata("correlation", id);
  if (record.bytes != 0) activity.addMetadata("bytes", record.bytes);
  if (record.status != OPENREG_OK && record.status != OPENREG_NOT_READY) activity.addMetadata("status", record.status);
}

void ProfilerSession::processTrace(libkineto::ActivityLogger& logger) {
  processTrace(logger, [](int32_t) -> const libkineto::ITraceActivity* { return nullptr; }, 0, INT64_MAX);
}

void ProfilerSession::processTrace(libkineto::ActivityLogger& logger, libkineto::getLinkedActivityCallback linked, int64_t start_ns, int64_t end_ns) {
  activities_ = std::make_unique<libkineto::CpuTraceBuffer>();
  activities_->span = libkineto::TraceSpan(start_ns, end_ns, "openreg");
  activities_->gpuOpCount = 0;

  const std::vector<TraceEvent> found = events();
  struct Call {
    int32_t id;
    uint32_t op, range;
    bool inside;
  };
  const auto inside = [&](const TraceEvent& event) {
    const int64_t begin = static_cast<int64_t>(event.record.begin_ns) + clock_offset_ns_, end = static_cast<int64_t>(event.record.end_ns) + clock_offset_ns_;
    return end >= start_ns && begin <= end_ns;
  };
  std::unordered_map<uint64_t, Call> calls;
  for (const TraceEvent& event : found)
    if (event.record.operation == 0) calls.emplace(event.record.correlation, Call{static_cast<int32_t>(calls.size() + 1), operator_of(event), range_of(event), inside(event)});

  std::map<std::tuple<uint32_t, int32_t, uint64_t>, TraceEvent> mirrored;  // range, device, stream
  for (const TraceEvent& event : found) {
    const openreg_trace_record& record = event.record;
    const auto call = calls.find(record.correlation);
    // What was launched in time belongs here, also when the device came to it after the end.
    if (record.kind == kTraceRange || !(inside(event) || (record.operation != 0 && call != calls.end() && call->second.inside))) continue;
    const Call from = call == calls.end() ? Call{0, 0, 0, false} : call->second;
    if (record.operation == 0) {
      if (types_.count(ActivityType::PRIVATEUSE1_RUNTIME) == 0) continue;
      add(ActivityType::PRIVATEUSE1_RUNTIME, call_name(record), event, from.id);
    } else if (record.kind == OPENREG_TRACE_LAUNCH) {
      add(ActivityType::CONCURRENT_KERNEL, record.name, event, from.id);
    } else if (record.kind == OPENREG_TRACE_COPY) {
      add(ActivityType::GPU_MEMCPY, copy_name(record), event, from.id);
    } else if (record.kind == OPENREG_TRACE_FILL) {
      add(ActivityType::GPU_MEMSET, "Memset", event, from.id);
    } else if (record.kind == OPENREG_TRACE_WAIT) {
      add(ActivityType::CUDA_SYNC, "Stream Wait Event", event, from.id);
    } else {
      continue;
    }
    libkineto::GenericTraceActivity& activity = *activities_->activities.back();
    if (from.op != 0) activity.linked = linked(static_cast<int32_t>(from.op));
    if (record.operation != 0) ++activities_->gpuOpCount;
    if (record.operation != 0 && from.range != 0 && record.kind != OPENREG_TRACE_WAIT) {
      const auto place = mirrored.emplace(std::make_tuple(from.range, record.device, record.stream_id), event).first;
      place->second.record.begin_ns = std::min(place->second.record.begin_ns, record.begin_ns);
      place->second.record.end_ns = std::max(place->second.record.end_ns, record.end_ns);
    }
  }
  for (auto& [key, event] : mirrored) {
    const libkineto::ITraceActivity* range = linked(static_cast<int32_t>(std::get<0>(key)));
    if (range == nullptr) continue;
    event.record.bytes = 0;
    event.record.status = OPENREG_OK;
    add(ActivityType::GPU_USER_ANNOTATION, range->name(), event, 0);
    activities_->activities.back()->linked = range;
  }
  for (int32_t device = 0; device < device_count(); ++device) {
    const std::string name = "openreg:" + std::to_string(device);
    logger.handleDeviceInfo({device, libkineto::kExceedMaxPid + device, name, name}, start_ns);
  }
  for (const auto& activity : activities_->activities) activity->log(logger);
}

std::unique_ptr<libkineto::DeviceInfo> ProfilerSession::getDeviceInfo() { return nullptr; }  // there are several; processTrace names them

std::vector<libkineto::ResourceInfo> ProfilerSession::getResourceInfos() {
  std::vector<libkineto::ResourceInfo> lanes;
  for (const auto& [device, stream] : streams_)
    lanes.push_back({static_cast<int64_t>(stream), static_cast<int64_t>(stream), device, "stream " + std::to_string(stream)});
  return lanes;
}

}  // namespace openreg
