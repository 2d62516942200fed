// The device guard: torch's generic device, stream and event calls, answered by the runtime.
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include "runtime/capture.h"
#include "runtime/device.h"
#include "runtime/device_allocator.h"
#include "runtime/event.h"
#include "runtime/host_allocator.h"
#include "runtime/interpreter_lock.h"
#include "runtime/stream.h"
#include "runtime/sync_debug.h"

namespace openreg {

namespace {

constexpr c10::DeviceType kType = c10::DeviceType::PrivateUse1;

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kType; }

  c10::Device exchangeDevice(c10::Device device) const override {
    TORCH_CHECK(device.type() == kType, "The openreg guard was given a device of type ", device.type(), ".");
    return {kType, exchange_device(device.index())};
  }
  c10::Device getDevice() const override { return {kType, current_device()}; }
  void setDevice(c10::Device device) const override { set_device(device.index()); }
  void uncheckedSetDevice(c10::Device device) const noexcept override { set_device_unchecked(device.index()); }
  c10::DeviceIndex deviceCount() const noexcept override { return device_count(); }

  c10::Stream getStream(c10::Device device) const override { return current_stream(resolve(device)); }
  c10::Stream getDefaultStream(c10::Device device) const override { return default_stream(resolve(device)); }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool high_priority) const override {
    return stream_from_pool(resolve(device), high_priority ? kGreatestPriority : 0);
  }
  c10::Stream getNewStream(c10::Device device, int priority) const override { return stream_from_pool(resolve(device), priority); }
  c10::Stream exchangeStream(c10::Stream stream) const override { return exchange_stream(stream); }
  void* getStreamNativeHandle(const c10::Stream stream) const override { return stream_handle(stream); }
  bool queryStream(const c10::Stream& stream) const override {
    const WithoutInterpreterLock released;
    return query_stream(stream);
  }
  void synchronizeStream(const c10::Stream& stream) const override {
    before_host_wait("Stream.synchronize");
    synchronize_stream(stream);
  }
  void synchronizeDevice(const c10::DeviceIndex device) const override {
    synchronize_device(device < 0 ? current_device() : device);
  }

  bool isStreamCapturing(const c10::Stream& stream) const override { return capture_of(stream) != 0; }

  void destroyEvent(void* event, const c10::DeviceIndex) const noexcept override { delete static_cast<Event*>(event); }
  void record(void** event, const c10::Stream& stream, const c10::DeviceIndex device, const c10::EventFlag flag) const override {
    TORCH_CHECK(device < 0 || device == stream.device_index(), "The event belongs to openreg:", static_cast<int>(device),
                " and cannot be recorded on a stream of openreg:", static_cast<int>(stream.device_index()), ".");
    const WithoutInterpreterLock released;  // the queue may be full
    if (*event == nullptr) {
      if (Event* given = take_given_event()) {
        *event = given;
        return;
      }
      auto made = std::make_unique<Event>(flag == c10::EventFlag::BACKEND_DEFAULT);
      made->record(stream);
      *event = made.release();
    } else {
      static_cast<Event*>(*event)->record(stream);
    }
  }
  void block(void* event, const c10::Stream& stream) const override {
    const WithoutInterpreterLock released;  // the queue may be full
    if (event != nullptr) static_cast<Event*>(event)->block(stream);
  }
  bool queryEvent(void* event) const override {
    const WithoutInterpreterLock released;
    return event == nullptr || static_cast<Event*>(event)->query();
  }
  void synchronizeEvent(void* event) const override {
    if (event != nullptr) static_cast<Event*>(event)->synchronize();
  }
  double elapsedTime(void* start, void* end, const c10::DeviceIndex) const override {
    TORCH_CHECK(start != nullptr && end != nullptr, "Both events must be recorded before their distance can be measured.");
    return static_cast<Event*>(start)->elapsed_ms(*static_cast<Event*>(end));
  }

  void recordDataPtrOnStream(const c10::DataPtr& data, const c10::Stream& stream) const override {
    device_allocator()->recordStream(data, stream);
  }

  c10::DeviceCapability getDeviceCapability(c10::Device device) const override {
    check_device(resolve(device));
    return c10::DeviceCapability();  // every dtype: what the CPU's kernels compute, the device computes
  }

 private:
  static c10::DeviceIndex resolve(c10::Device device) {
    const c10::DeviceIndex index = device.has_index() ? device.index() : current_device();
    if (__builtin_expect(index < 0 || index >= device_count(), 0)) check_device(index);
    return index;
  }
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard)

}  // namespace
}  // namespace openreg
