// Resizing storages.
#include "runtime/storage.h"

#include <algorithm>
#include <utility>

#include "runtime/device_allocator.h"
#include "runtime/launch.h"
#include "runtime/stream.h"

namespace openreg {

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

}  // namespace openreg
