// Registers with torch's profilers: the sessions with Kineto, and events and ranges with the profiler that was before it.
#include "profiler/session.h"

#include <c10/core/DeviceGuard.h>
#include <torch/csrc/profiler/standalone/privateuse1_profiler.h>
#include <torch/csrc/profiler/stubs/base.h>

#include <chrono>
#include <memory>
#include <set>
#include <string>

#include "runtime/device.h"
#include "runtime/driver.h"
#include "runtime/event.h"
#include "runtime/stream.h"

namespace openreg {

namespace {

using libkineto::ActivityType;

class Profiler final : public libkineto::IActivityProfiler {
 public:
  const std::string& name() const override { return name_; }
  const std::set<ActivityType>& availableActivities() const override { return activities_; }
  std::unique_ptr<libkineto::IActivityProfilerSession> configure(const std::set<ActivityType>& types, const libkineto::Config&) override {
    for (const ActivityType type : {ActivityType::CONCURRENT_KERNEL, ActivityType::PRIVATEUSE1_RUNTIME})
      if (types.count(type) != 0) return std::make_unique<ProfilerSession>(types);
    return nullptr;  // a profile of the CPU alone does not start the driver
  }
  std::unique_ptr<libkineto::IActivityProfilerSession> configure(int64_t, int64_t, const std::set<ActivityType>& types, const libkineto::Config& config) override {
    return configure(types, config);
  }

 private:
  const std::string name_ = "openreg";
  const std::set<ActivityType> activities_ = {ActivityType::GPU_MEMCPY,           ActivityType::GPU_MEMSET, ActivityType::CONCURRENT_KERNEL,
                                              ActivityType::GPU_USER_ANNOTATION, ActivityType::CUDA_SYNC,  ActivityType::PRIVATEUSE1_RUNTIME};
};

REGISTER_PRIVATEUSE1_PROFILER(Profiler);

// torch.autograd.profiler's markers: an event before and after each operator.
class Stubs final : public torch::profiler::impl::ProfilerStubs {
 public:
  void record(c10::DeviceIndex* device, torch::profiler::impl::ProfilerVoidEventStub* event, int64_t* cpu_ns) const override {
    const c10::DeviceIndex current = current_device();
    if (device != nullptr) *device = current;
    auto made = std::make_shared<Event>(true);
    made->record(current_stream(current));
    *event = made;
    if (cpu_ns != nullptr) *cpu_ns = std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
  }
  // Microseconds.
  float elapsed(const torch::profiler::impl::ProfilerVoidEventStub* begin, const torch::profiler::impl::ProfilerVoidEventStub* end) const override {
    const auto& first = *static_cast<const Event*>(begin->get());
    const auto& last = *static_cast<const Event*>(end->get());
    first.synchronize();
    last.synchronize();
    return static_cast<float>(first.elapsed_ms(last) * 1000);
  }
  // Ranges come from record_function, which torch.profiler shows by itself.
  void mark(const char*) const override {}
  void rangePush(const char*) const override {}
  void rangePop() const override {}
  bool enabled() const override { return true; }
  void onEachDevice(std::function<void(int)> visit) const override {
    for (c10::DeviceIndex device = 0; device < device_count(); ++device) {
      const c10::DeviceGuard guard(c10::Device(c10::DeviceType::PrivateUse1, device));
      visit(device);
    }
  }
  void synchronize() const override { synchronize_device(current_device()); }
};

[[maybe_unused]] const bool stubs_registered = [] {
  static Stubs* leaked = new Stubs;
  torch::profiler::impl::registerPrivateUse1Methods(leaked);
  return true;
}();

}  // namespace

}  // namespace openreg
