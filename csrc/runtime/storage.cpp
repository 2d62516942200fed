// Resizing storages, the allocators of those that are copied on write, and storages over memory of other owners.
#include "runtime/storage.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "runtime/capture.h"
#include "runtime/device.h"
#include "runtime/device_allocator.h"
#include "runtime/driver.h"
#include "runtime/launch.h"
#include "runtime/stream.h"

namespace openreg {

namespace {

// The device allocator for one device, whichever is current.
class BoundAllocator final : public c10::Allocator {
 public:
  c10::DeviceIndex device = -1;
  c10::DataPtr allocate(size_t bytes) override { return allocate_device_memory(device, bytes); }
  c10::DeleterFnPtr raw_deleter() const override { return device_allocator()->raw_deleter(); }
  void copy_data(void* dest, const void* src, size_t count) const override { device_allocator()->copy_data(dest, src, count); }
};

c10::Allocator* allocator_of(c10::DeviceIndex device) {
  static BoundAllocator* const leaked = [] {
    auto* made = new BoundAllocator[kMaxDevices];
    for (int i = 0; i < kMaxDevices; ++i) made[i].device = static_cast<c10::DeviceIndex>(i);
    return made;
  }();
  return &leaked[device];
}

struct Release {
  void (*function)(void*);
  void* context;
  std::atomic<uint64_t> awaited{1};  // streams, and the call that asks for it
};

void finish(Release* release) noexcept {
  if (release->awaited.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  release->function(release->context);
  delete release;
}

openreg_status run_nothing(void*, openreg_error*) { return OPENREG_OK; }
void finish_behind_stream(void* args) { finish(*static_cast<Release**>(args)); }

// A release that waits for the end of a capture of the stream.
struct Deferred {
  Release* release;
  c10::Stream stream;
};
struct DeferredReleases {
  std::mutex mutex;               // held for a moment, and for the driver's answer whether a stream is captured
  std::vector<Deferred> waiting;  // LOCK: mutex
};

DeferredReleases& deferred_releases() {
  static auto* leaked = new DeferredReleases;
  return *leaked;
}

// False when the driver refuses (a lost device): nobody can say when the stream's work ends, so the memory is kept.
bool finish_behind(Release* release, c10::Stream stream) noexcept {
  try {
    launch_host_func(stream, "openreg::release_memory", run_nothing, &release, sizeof(release), finish_behind_stream);
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

bool is_captured(c10::Stream stream) noexcept {
  try {
    return capture_of(stream) != 0;
  } catch (const std::exception&) {  // it is gone
    return false;
  }
}

void release_wrapped(void* context) noexcept {
  auto* release = static_cast<Release*>(context);
  if (driver_started() && !driver_stopped()) release_behind_streams(release->function, release->context);
  delete release;
}

}  // namespace

void resize_storage(c10::StorageImpl* storage, size_t bytes) {
  TORCH_CHECK(storage->resizable(), "Trying to resize storage that is not resizable");
  const c10::Device device = storage->device();
  c10::DataPtr data = allocate_device_memory(device.index(), bytes);
  const size_t kept = std::min(bytes, storage->nbytes());
  if (kept != 0 && storage->data() != nullptr) {
    launch_copy(current_stream(device.index()), "openreg::resize_storage", data.get(), device, storage->data(), device, kept);
  }
  // The copy may run on another stream than the one that the old block belongs to.
  record_block_on_stream(storage->mutable_data(), current_stream(device.index()));
  storage->set_data_ptr_noswap(std::move(data));
  storage->set_nbytes(bytes);
}

void bind_allocator_to_device(c10::StorageImpl* storage) { storage->set_allocator(allocator_of(storage->device().index())); }

void release_behind_streams(void (*function)(void*), void* context) noexcept {
  auto* release = new Release{function, context};
  bool deferred = false;
  for (const c10::Stream& stream : used_streams()) {
    release->awaited.fetch_add(1, std::memory_order_relaxed);
    if (is_captured(stream)) {
      std::lock_guard<std::mutex> lock(deferred_releases().mutex);
      deferred_releases().waiting.push_back({release, stream});
      deferred = true;
    } else if (!finish_behind(release, stream)) {
      return;
    }
  }
  finish(release);
  if (deferred) release_deferred();  // the capture may have ended meanwhile
}

void release_deferred() noexcept {
  std::vector<Deferred> ready;
  {
    std::lock_guard<std::mutex> lock(deferred_releases().mutex);
    std::vector<Deferred>& waiting = deferred_releases().waiting;
    const auto first = std::stable_partition(waiting.begin(), waiting.end(), [](const Deferred& one) { return is_captured(one.stream); });
    ready.assign(first, waiting.end());
    waiting.erase(first, waiting.end());
  }
  for (const Deferred& one : ready) finish_behind(one.release, one.stream);
}

c10::Storage wrap_device_memory(void* pointer, size_t bytes, void (*release)(void*), void* context) {
  const c10::Device device = device_of_pointer(pointer);
  c10::DataPtr data = release == nullptr ? c10::DataPtr(pointer, device)
                                         : c10::DataPtr(pointer, new Release{release, context}, &release_wrapped, device);
  return c10::Storage(c10::Storage::use_byte_size_t(), bytes, std::move(data), /*allocator=*/nullptr, /*resizable=*/false);
}

}  // namespace openreg
