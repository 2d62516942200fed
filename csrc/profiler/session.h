// One profile of torch.profiler: the driver's trace records between its start and its stop, as Kineto's activities.
#pragma once

#define USE_KINETO
#define FMT_HEADER_ONLY
#include <libkineto.h>
#include <output_base.h>

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "runtime/trace_buffer.h"

namespace openreg {

// Note [Links]
// Around each operator Kineto pushes the operator's number on the thread that runs it, and around each record_function the range's. A trace record
// of a call comes on that same thread, before the call returns, so what is on top then launched it. The record of the operation has the call's correlation.
// A range on the host is mirrored on the lanes of its streams: from the begin of the first to the end of the last operation launched inside, on the
// same thread, and in no range within it. Autograd's threads are in no range, as with cuda's profiler.
class ProfilerSession final : public libkineto::IActivityProfilerSession, private TraceBuffer {
 public:
  explicit ProfilerSession(std::set<libkineto::ActivityType> types);
  ~ProfilerSession() override;

  // Kineto calls these in this order on one thread; a session that Kineto only warmed up is never started. No exception leaves start and stop: what
  // went wrong is a warning and in errors().
  void start() override;
  void stop() override;
  std::vector<std::string> errors() override { return errors_; }
  void processTrace(libkineto::ActivityLogger& logger) override;
  void processTrace(libkineto::ActivityLogger& logger, libkineto::getLinkedActivityCallback linked, int64_t start_ns, int64_t end_ns) override;
  std::unique_ptr<libkineto::DeviceInfo> getDeviceInfo() override;
  std::vector<libkineto::ResourceInfo> getResourceInfos() override;
  std::unique_ptr<libkineto::CpuTraceBuffer> getTraceBuffer() override { return std::move(activities_); }

  // On the thread whose calls are meant. See Note [Links].
  void pushCorrelationId(uint64_t id) override;
  void popCorrelationId() override;
  void pushUserCorrelationId(uint64_t id) override;
  void popUserCorrelationId() override;

 private:
  uint64_t mark() const noexcept override;
  void complain(const std::string& sentence);
  void add(libkineto::ActivityType type, const std::string& name, const TraceEvent& event, int32_t id);

  const std::set<libkineto::ActivityType> types_;
  int64_t clock_offset_ns_ = 0;  // from the device's clock to the wall clock
  std::vector<std::string> errors_;
  std::set<std::pair<int32_t, uint64_t>> streams_;  // device, stream id: those with activities
  std::unique_ptr<libkineto::CpuTraceBuffer> activities_;
};

}  // namespace openreg
