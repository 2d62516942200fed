// Enqueueing work: descriptors, launch sites, and waiting when OPENREG_LAUNCH_BLOCKING=1.
#include "runtime/launch.h"

#include <c10/util/Exception.h>

#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <string>
#include <vector>

#include "runtime/capture.h"
#include "runtime/driver.h"
#include "runtime/operands.h"
#include "runtime/sanitizer.h"
#include "runtime/stream.h"
#include "runtime/watchdog.h"

namespace openreg {

namespace {

bool environment_flag(const char* name) {
  const char* text = std::getenv(name);
  return text != nullptr && text[0] != '\0' && std::strcmp(text, "0") != 0;
}

bool launch_trace() {
  static const bool on = environment_flag("OPENREG_LAUNCH_TRACE");
  return on;
}

thread_local bool in_host_function = false;

// A descriptor on its way through the driver, with the operands that were noted for it.
class Description {
 public:
  explicit Description(const char* name, void (*cleanup)(void*) = nullptr) {
    if (__builtin_expect(in_host_function, 0)) refuse_in_host_function(name);
    desc_.struct_size = sizeof(desc_);
    desc_.name = name;
    desc_.cleanup = cleanup;
    if (__builtin_expect(launch_trace(), 0)) desc_.tag = call_stack();
    if (__builtin_expect(wants_ranges(), 0)) {
      add_operands(&desc_);
      if (sanitizing() != 0) desc_.tag = call_stack();
    }
  }
  ~Description() {
    if (__builtin_expect(desc_.ranges != nullptr, 0)) forget_operands();
  }
  Description(const Description&) = delete;
  const openreg_launch_desc* get() const { return &desc_; }

 private:
  openreg_launch_desc desc_ = {};
};

// Calls the driver, which waits where the queue is full.
template <class Call>
void enqueue(const char* name, c10::Stream stream, Call&& call) {
  count_captured_task(stream);
  const openreg_status status = [&] {
    const WatchedLaunch watched(name);
    return call();
  }();
  check(status, name);
}

}  // namespace

void set_in_host_function(bool inside) noexcept { in_host_function = inside; }

void refuse_in_host_function(const char* what) {
  TORCH_CHECK(!in_host_function, what, " was called in a host function of a stream. Such a function may not use the device: its stream waits until it "
                                       "returns. Use the device on another thread, or after a synchronization.");
}

bool launch_blocking() noexcept {
  static const bool on = environment_flag("OPENREG_LAUNCH_BLOCKING");
  return on;
}

std::string launch_site(uint64_t tag) { return call_stack_text(tag); }

void after_launch(c10::Stream stream) {
  if (__builtin_expect(!launch_blocking(), 1) || capture_of(stream) != 0) return;
  const RuntimeWait wait;
  synchronize_stream(stream);
}

void launch_host_func(c10::Stream stream, const char* name, openreg_host_func fn, const void* args, size_t size,
                      void (*cleanup)(void*)) {
  const Description desc(name, cleanup);
  enqueue(name, stream, [&] { return hal().launch_host_func(stream_handle(stream), fn, args, size, desc.get()); });
  // With a cleanup, an exception would leave open who owns what the bytes own; whoever launches so waits by itself.
  if (cleanup == nullptr) after_launch(stream);
}

namespace {

struct HostKernel {
  void (*function)(const openreg_geometry*, const void*);
  openreg_geometry geometry;
};
constexpr size_t kHostKernelBytes = (sizeof(HostKernel) + 15) / 16 * 16;

openreg_status run_host_kernel(void* args, openreg_error*) {
  const auto* task = static_cast<const HostKernel*>(args);
  task->function(&task->geometry, static_cast<const char*>(args) + kHostKernelBytes);
  return OPENREG_OK;
}

void launch_on_host(c10::Stream stream, const char* op, void (*function)(const openreg_geometry*, const void*),
                    const openreg_geometry& geometry, const void* args, size_t size) {
  std::vector<char> bytes(kHostKernelBytes + size);
  new (bytes.data()) HostKernel{function, geometry};
  if (size != 0) std::memcpy(bytes.data() + kHostKernelBytes, args, size);
  launch_host_func(stream, op, run_host_kernel, bytes.data(), bytes.size());
}

}  // namespace

openreg_kernel Kernel::handle(c10::DeviceIndex device) {
  auto& entry = handles_[device];
  if (openreg_kernel loaded = entry.load(std::memory_order_acquire)) return loaded;
  static std::mutex mutex;
  std::lock_guard<std::mutex> lock(mutex);
  if (openreg_kernel loaded = entry.load()) return loaded;
  if (host_only_[device]) return nullptr;
  openreg_kernel kernel = nullptr;
  const openreg_status status =
      hal().kernel_load(driver_device(device), name_, reinterpret_cast<const void*>(function_), 0, &kernel);
  host_only_[device] = status == OPENREG_UNSUPPORTED && has_kernel_view(device);
  if (host_only_[device]) return nullptr;
  check(status, name_);
  entry.store(kernel, std::memory_order_release);
  return kernel;
}

void Kernel::launch_bytes(c10::Stream stream, const char* op, uint64_t threads, const void* args, size_t size) {
  constexpr uint64_t kBlock = 1024;
  const uint64_t blocks = (threads + kBlock - 1) / kBlock;
  openreg_geometry geometry = {{static_cast<uint32_t>(blocks), static_cast<uint32_t>(blocks >> 32) + 1, 1}, {kBlock, 1, 1}};
  const openreg_kernel kernel = handle(stream.device_index());
  if (__builtin_expect(kernel == nullptr, 0)) return launch_on_host(stream, op, function_, geometry, args, size);
  const Description desc(op);
  enqueue(op, stream, [&] { return hal().launch_kernel(stream_handle(stream), kernel, &geometry, args, size, desc.get()); });
  after_launch(stream);
}

void launch_copy(c10::Stream stream, const char* name, void* dst, c10::Device dst_device, const void* src, c10::Device src_device,
                 size_t bytes) {
  if (bytes == 0) return;
  const auto index = [](c10::Device device) { return device.is_cpu() ? -1 : driver_device(device.index()); };
  const Description desc(name);
  enqueue(name, stream, [&] { return hal().copy(stream_handle(stream), dst, index(dst_device), src, index(src_device), bytes, desc.get()); });
  after_launch(stream);
}

void launch_fill(c10::Stream stream, const char* name, void* dst, uint8_t value, size_t bytes) {
  if (bytes == 0) return;
  const Description desc(name);
  enqueue(name, stream, [&] { return hal().fill(stream_handle(stream), dst, value, bytes, desc.get()); });
  after_launch(stream);
}

}  // namespace openreg
