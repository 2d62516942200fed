// A device guard that passes everything on to the one that is registered, and is wrong in the one way that break_guard names.
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <atomic>
#include <optional>
#include <string>

namespace {

const c10::impl::DeviceGuardImplInterface* right;
std::string fault;
std::optional<c10::Stream> everybodys_stream;  // likewise, written by the thread that runs the checks
std::atomic<c10::DeviceIndex> everybodys{0};  // the current device of all threads, for the fault that has only one

bool wrong(const char* name) { return fault == name; }

struct BrokenGuard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return right->type(); }
  c10::Device exchangeDevice(c10::Device device) const override {
    if (wrong("exchange_device_keeps_it")) return right->getDevice();
    const c10::Device before = right->exchangeDevice(device);
    return wrong("exchange_device_answers_the_new_one") ? right->getDevice() : before;
  }
  c10::Device getDevice() const override { return wrong("one_device_for_all_threads") ? c10::Device(type(), everybodys) : right->getDevice(); }
  void setDevice(c10::Device device) const override {
    everybodys = device.index();
    if (wrong("set_device_takes_any_index") && (device.index() < 0 || device.index() >= right->deviceCount())) return;
    if (!wrong("set_device_ignored")) right->setDevice(device);
  }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    if (!wrong("unchecked_set_device_ignored")) right->uncheckedSetDevice(device);
  }
  c10::DeviceIndex deviceCount() const noexcept override { return right->deviceCount(); }

  c10::Stream getStream(c10::Device device) const override {
    if (wrong("one_stream_for_all_threads") && everybodys_stream) return *everybodys_stream;
    return wrong("get_stream_is_default") ? right->getDefaultStream(device) : right->getStream(device);
  }
  c10::Stream getDefaultStream(c10::Device device) const override { return right->getDefaultStream(device); }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool urgent) const override { return right->getStreamFromGlobalPool(device, urgent); }
  c10::Stream getNewStream(c10::Device device, int priority) const override {
    TORCH_CHECK(!wrong("no_priorities") || priority == 0, "Streams of this device have no priorities.");
    if (wrong("new_stream_is_default")) return right->getDefaultStream(device);
    return right->getNewStream(wrong("new_stream_on_device_zero") ? c10::Device(type(), 0) : device, priority);
  }
  c10::Stream exchangeStream(c10::Stream stream) const override {
    if (wrong("no_way_back_to_the_default_stream") && stream == right->getDefaultStream(stream.device())) return right->getStream(stream.device());
    everybodys_stream = stream;
    return right->exchangeStream(stream);
  }
  void* getStreamNativeHandle(const c10::Stream stream) const override {
    return wrong("no_native_handle") ? nullptr : right->getStreamNativeHandle(stream);
  }
  bool queryStream(const c10::Stream& stream) const override { return wrong("query_stream_is_true") || right->queryStream(stream); }
  void synchronizeStream(const c10::Stream& stream) const override {
    if (!wrong("synchronize_stream_ignored")) right->synchronizeStream(stream);
  }
  void synchronizeDevice(const c10::DeviceIndex device) const override {
    if (!wrong("synchronize_device_ignored")) right->synchronizeDevice(device);
  }
  bool isStreamCapturing(const c10::Stream& stream) const override { return right->isStreamCapturing(stream); }

  void destroyEvent(void* event, const c10::DeviceIndex device) const noexcept override { right->destroyEvent(event, device); }
  void record(void** event, const c10::Stream& stream, const c10::DeviceIndex device, const c10::EventFlag flag) const override {
    if (wrong("record_keeps_the_first") && *event != nullptr) return;
    right->record(event, wrong("record_on_default_stream") ? right->getDefaultStream(stream.device()) : stream, device, flag);
  }
  void block(void* event, const c10::Stream& stream) const override {
    if (!wrong("block_ignored")) right->block(event, stream);
  }
  bool queryEvent(void* event) const override { return wrong("query_event_is_true") || right->queryEvent(event); }
  void synchronizeEvent(void* event) const override {
    if (!wrong("synchronize_event_ignored")) right->synchronizeEvent(event);
  }
  double elapsedTime(void* start, void* end, const c10::DeviceIndex device) const override {
    const double milliseconds = right->elapsedTime(start, end, device);
    return wrong("elapsed_is_zero") ? 0.0 : wrong("elapsed_in_microseconds") ? milliseconds * 1000 : wrong("elapsed_backwards") ? -milliseconds : milliseconds;
  }
  void recordDataPtrOnStream(const c10::DataPtr& data, const c10::Stream& stream) const override { right->recordDataPtrOnStream(data, stream); }
  c10::DeviceCapability getDeviceCapability(c10::Device device) const override {
    c10::DeviceCapability capability = right->getDeviceCapability(device);
    if (wrong("no_float32")) capability.capability_data.supported_scalar_types.has_Float = 0;
    return capability;
  }
};

}  // namespace

// Puts the wrong guard into the place of PrivateUse1's. `name`: one of the names above.
extern "C" __attribute__((visibility("default"))) void break_guard(const char* name) {
  fault = name;
  right = c10::impl::getDeviceGuardImpl(c10::DeviceType::PrivateUse1);
  static const c10::impl::DeviceGuardImplRegistrar replaced(c10::DeviceType::PrivateUse1, new BrokenGuard());
}
