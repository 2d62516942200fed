// The stream pool. Handles are created at first use and leaked with the process.
#include "runtime/stream.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <mutex>

#include "runtime/device.h"
#include "runtime/driver.h"
#include "runtime/error.h"

namespace openreg {

namespace {

constexpr int kPools = 1 - kGreatestPriority;
constexpr int kPooled = kPools * kStreamsPerPool;
constexpr int kSlots = 1 + kPooled;  // default, then a pool for each priority
constexpr c10::StreamId kLastPooledId = kMaxDevices * kPooled;

struct DeviceStreams {
  std::atomic<openreg_stream> handles[kSlots];
  std::atomic<uint32_t> next[kPools];
};

DeviceStreams streams[kMaxDevices];  // zero-initialised, trivially destroyed
std::mutex create_mutex;

struct ExternalStreams {
  std::mutex mutex;
  std::vector<c10::Stream> seen;  // LOCK: mutex. Some may not exist any more
};

ExternalStreams& external_streams() {
  static ExternalStreams* leaked = new ExternalStreams;
  return *leaked;
}

thread_local c10::StreamId current_ids[kMaxDevices] = {};

c10::Stream make(c10::StreamId id, c10::DeviceIndex device) {
  return c10::Stream(c10::Stream::UNSAFE, c10::Device(c10::DeviceType::PrivateUse1, device), id);
}

c10::StreamId pooled_id(c10::DeviceIndex device, int pool, int slot) {
  return (static_cast<c10::StreamId>(device) * kPools + pool) * kStreamsPerPool + slot + 1;
}

bool is_external(c10::StreamId id) { return static_cast<uint64_t>(id) > static_cast<uint64_t>(kLastPooledId); }

// Fills in `info`, or is false for a handle that the driver does not know.
bool find_stream(openreg_stream handle, openreg_stream_info& info) {
  info = {};
  info.struct_size = sizeof(info);
  return hal().stream_info(handle, &info) == OPENREG_OK;
}

openreg_stream external_handle(c10::StreamId id) { return reinterpret_cast<openreg_stream>(static_cast<uintptr_t>(id)); }

// The slot of an id on its device, or -1 for an id that the device never handed out.
int slot_of(c10::StreamId id, c10::DeviceIndex device) {
  if (id == 0) return 0;
  const c10::StreamId first = pooled_id(device, 0, 0);
  const c10::StreamId slot = id - first;
  return slot >= 0 && slot < kPooled ? static_cast<int>(slot) + 1 : -1;
}

openreg_stream create(c10::DeviceIndex device, int slot) {
  std::lock_guard<std::mutex> lock(create_mutex);
  auto& entry = streams[device].handles[slot];
  if (openreg_stream existing = entry.load()) return existing;
  const int32_t priority = slot == 0 ? 0 : -((slot - 1) / kStreamsPerPool);
  openreg_stream handle = nullptr;
  check(hal().stream_create(driver_device(device), priority, &handle), "Creating a stream");
  entry.store(handle, std::memory_order_release);
  return handle;
}

openreg_stream handle_of_slot(c10::DeviceIndex device, int slot) {
  openreg_stream handle = streams[device].handles[slot].load(std::memory_order_acquire);
  if (__builtin_expect(handle == nullptr || !driver_started(), 0)) {
    hal();  // raises in a forked child, where an old handle is no stream
    handle = create(device, slot);
  }
  return handle;
}

}  // namespace

c10::Stream current_stream(c10::DeviceIndex device) noexcept { return make(current_ids[device], device); }
c10::Stream default_stream(c10::DeviceIndex device) noexcept { return make(0, device); }

c10::Stream exchange_stream(c10::Stream stream) {
  const c10::DeviceIndex device = stream.device_index();
  check_device(device);
  TORCH_CHECK(is_external(stream.id()) || slot_of(stream.id(), device) >= 0, "Stream ", stream.id(), " does not belong to openreg:", static_cast<int>(device),
              ".");
  const c10::Stream before = current_stream(device);
  current_ids[device] = stream.id();
  return before;
}

c10::Stream stream_from_pool(c10::DeviceIndex device, int priority) {
  check_device(device);
  const int pool = -std::clamp(priority, kGreatestPriority, 0);
  const uint32_t turn = streams[device].next[pool].fetch_add(1, std::memory_order_relaxed);
  return make(pooled_id(device, pool, static_cast<int>(turn % kStreamsPerPool)), device);
}

c10::Stream external_stream(openreg_stream handle, c10::DeviceIndex device) {
  check_device(device);
  openreg_stream_info info;
  TORCH_CHECK_VALUE(find_stream(handle, info), "The driver knows no stream with the handle ", static_cast<void*>(handle), ".");
  TORCH_CHECK_VALUE(info.device == driver_device(device), "The stream with the handle ", static_cast<void*>(handle), " is not on openreg:",
                    static_cast<int>(device), "; name the device on which it was created.");
  const auto id = static_cast<c10::StreamId>(reinterpret_cast<uintptr_t>(handle));
  TORCH_CHECK(is_external(id), "The handle ", static_cast<void*>(handle), " is too small to be told from a pooled stream.");
  const c10::Stream stream = make(id, device);
  ExternalStreams& external = external_streams();
  std::lock_guard<std::mutex> lock(external.mutex);
  if (std::find(external.seen.begin(), external.seen.end(), stream) == external.seen.end()) external.seen.push_back(stream);
  return stream;
}

int stream_priority(c10::Stream stream) {
  openreg_stream_info info = {};
  info.struct_size = sizeof(info);
  check(hal().stream_info(stream_handle(stream), &info), "Asking for a stream's priority");
  return info.priority;
}

openreg_stream stream_handle(c10::Stream stream) {
  const c10::DeviceIndex device = stream.device_index();
  TORCH_CHECK(stream.device_type() == c10::DeviceType::PrivateUse1 && device >= 0 && device < device_count(), "The stream ",
              stream.id(), " of ", stream.device(), " is no stream of a visible openreg device.");
  if (__builtin_expect(is_external(stream.id()), 0)) return external_handle(stream.id());
  const int slot = slot_of(stream.id(), device);
  TORCH_CHECK(slot >= 0, "Stream ", stream.id(), " does not belong to openreg:", static_cast<int>(device), ".");
  return handle_of_slot(device, slot);
}

openreg_stream current_stream_handle(c10::DeviceIndex device) {
  const c10::StreamId id = current_ids[device];
  if (__builtin_expect(is_external(id), 0)) return external_handle(id);
  return handle_of_slot(device, id == 0 ? 0 : slot_of(id, device));
}

bool query_stream(c10::Stream stream) {
  const HostWait borrowed;
  const openreg_status status = hal().stream_query(stream_handle(stream));
  if (status == OPENREG_NOT_READY) return false;
  check(status, "Querying a stream");
  return true;
}

void synchronize_stream(c10::Stream stream) {
  openreg_stream handle = stream_handle(stream);
  wait_for(
      [](void* object, uint64_t timeout_ns, openreg_error* error) {
        return hal().stream_synchronize(static_cast<openreg_stream>(object), timeout_ns, error);
      },
      handle, "a stream", stream.device_index());
}

bool stream_exists(c10::StreamId id) {
  openreg_stream_info info;
  return !is_external(id) || find_stream(external_handle(id), info);
}

bool stream_exists(c10::Stream stream) {
  const c10::DeviceIndex device = stream.device_index();
  if (stream.device_type() != c10::DeviceType::PrivateUse1 || device < 0 || device >= device_count()) return false;
  if (!is_external(stream.id())) return slot_of(stream.id(), device) >= 0;
  openreg_stream_info info;
  return find_stream(external_handle(stream.id()), info) && info.device == driver_device(device);
}

std::vector<c10::Stream> used_streams() {
  std::vector<c10::Stream> used;
  for (c10::DeviceIndex device = 0; device < device_count(); ++device) {
    for (int slot = 0; slot < kSlots; ++slot) {
      if (streams[device].handles[slot].load(std::memory_order_acquire) == nullptr) continue;
      used.push_back(make(slot == 0 ? 0 : pooled_id(device, 0, 0) + slot - 1, device));
    }
  }
  ExternalStreams& external = external_streams();
  std::lock_guard<std::mutex> lock(external.mutex);
  for (size_t i = external.seen.size(); i-- > 0;) {
    const bool lives = stream_exists(external.seen[i].id());
    if (lives) used.push_back(external.seen[i]);
    if (!lives) external.seen.erase(external.seen.begin() + static_cast<std::ptrdiff_t>(i));
  }
  return used;
}

void print_streams(c10::DeviceIndex device) {
  for (const c10::Stream& stream : used_streams()) {
    openreg_stream_info info;
    if (stream.device_index() != device || !find_stream(stream_handle(stream), info) || info.queued == 0) continue;
    std::fprintf(stderr, "  openreg:%d stream %llu: %llu tasks queued, running: %s (for %.3f s)\n", static_cast<int>(device),
                 static_cast<unsigned long long>(info.stream_id), static_cast<unsigned long long>(info.queued),
                 info.running[0] ? info.running : "nothing (it waits for an event)", info.running_for_ns * 1e-9);
  }
}

}  // namespace openreg
