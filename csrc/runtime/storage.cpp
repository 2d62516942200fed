// Resizing storages, and the allocators of those that are copied on write.
#include "runtime/storage.h"

#include <algorithm>
#include <utility>

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

}  // namespace openreg
