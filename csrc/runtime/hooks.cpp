// The hooks: what core asks a PrivateUse1 backend apart from devices and streams.
#include "runtime/hooks.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>

#include <atomic>

#include "runtime/device.h"
#include "runtime/device_allocator.h"
#include "runtime/driver.h"
#include "runtime/generator.h"
#include "runtime/host_allocator.h"
#include "runtime/storage.h"

namespace openreg {

namespace {

std::atomic<int> backward_threads{0};

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return device_count() > 0; }
  void init() const override { start_driver(); }
  // The engine asks for this on the thread that calls a backward, before one of its own threads has work: nothing else tells that thread's number.
  bool hasPrimaryContext(c10::DeviceIndex device) const override {
    backward_threads.store(at::get_num_threads(), std::memory_order_relaxed);
    return driver_started() && device >= 0 && device < openreg::device_count();
  }

  c10::DeviceIndex deviceCount() const override { return openreg::device_count(); }
  void setCurrentDevice(c10::DeviceIndex device) const override { set_device(device); }
  c10::DeviceIndex getCurrentDevice() const override { return current_device(); }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex device) const override { return exchange_device(device); }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex device) const override { return exchange_device(device); }

  const at::Generator& getDefaultGenerator(c10::DeviceIndex device) const override { return default_generator(device); }
  at::Generator getNewGenerator(c10::DeviceIndex device) const override { return make_generator(device); }

  at::Device getDeviceFromPtr(void* data) const override { return device_of_pointer(data); }
  bool isPinnedPtr(const void* data) const override { return driver_started() && is_pinned(data); }
  at::Allocator* getPinnedMemoryAllocator() const override {
    start_driver();
    return host_allocator();
  }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    resize_storage(storage.unsafeGetStorageImpl(), bytes);
  }
};

[[maybe_unused]] const bool registered = [] {
  register_device_allocator();
  register_host_allocator();
  at::RegisterPrivateUse1HooksInterface(new Hooks);  // leaked: core keeps the pointer
  return true;
}();

}  // namespace

int threads_of_backward() noexcept { return backward_threads.load(std::memory_order_relaxed); }

}  // namespace openreg
