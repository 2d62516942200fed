// Sending and receiving storages.
#include "runtime/ipc.h"

#include <c10/util/Exception.h>

#include <cstddef>
#include <cstring>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "runtime/device.h"
#include "runtime/driver.h"
#include "runtime/lease.h"
#include "runtime/storage.h"
#include "runtime/stream.h"

namespace openreg {

namespace {

constexpr uint32_t kVersion = 1;

// The bytes of a message.
struct StorageName {
  uint32_t version = kVersion;
  int32_t device = -1;  // the driver's number
  LeaseName lease;
  openreg_ipc_handle segment = {};
  uint64_t offset_bytes = 0, bytes = 0;
};

// ---- Sent -------------------------------------------------------------------

struct Sent {
  c10::DataPtr block;
  StorageName name;
};

// ---- Received ---------------------------------------------------------------

struct Mapping {
  int32_t device = -1;
  void* base = nullptr;
  uint64_t bytes = 0, storages = 0;
};

struct Received {
  LeaseName lease;
  std::string segment;  // key of its mapping
};

struct State {
  std::mutex mutex;  // LOCK: everything below. Never held across a launch or a wait: workers take it
  std::vector<Sent*> limbo;
  std::unordered_map<std::string, Mapping> mappings;  // by handle
  std::vector<Received*> finished;
};

State& state() {
  static State* leaked = new State;
  return *leaked;
}

bool driver_usable() { return driver_started() && !driver_stopped(); }

void release_sent(void* context) noexcept {
  if (!driver_usable()) return;  // what is shared stays as it is
  auto* sent = static_cast<Sent*>(context);
  if (try_end_lease(sent->name.lease)) {
    delete sent;
    return;
  }
  std::lock_guard<std::mutex> lock(state().mutex);
  state().limbo.push_back(sent);
}

void finish_received(void* context) noexcept {
  auto* received = static_cast<Received*>(context);
  drop_lease(received->lease);
  std::lock_guard<std::mutex> lock(state().mutex);
  state().finished.push_back(received);
}

void release_received(void* context) noexcept {
  if (driver_usable()) release_behind_streams(finish_received, context);
}

void unmap_finished() {
  State& all = state();
  std::vector<Received*> finished;
  std::vector<Mapping> unused;
  {
    std::lock_guard<std::mutex> lock(all.mutex);
    finished.swap(all.finished);
    for (const Received* received : finished) {
      const auto found = all.mappings.find(received->segment);
      if (--found->second.storages != 0) continue;
      unused.push_back(found->second);
      all.mappings.erase(found);
    }
  }
  for (const Received* received : finished) delete received;
  openreg_status status = OPENREG_OK;
  for (const Mapping& mapping : unused) {
    const openreg_status closed = hal().mem_close(mapping.device, mapping.base);
    if (status == OPENREG_OK) status = closed;
  }
  check(status, "Unmapping another process's memory");
}

void free_limbo() {
  State& all = state();
  std::vector<Sent*> waiting, ended;
  {
    std::lock_guard<std::mutex> lock(all.mutex);
    waiting.swap(all.limbo);
  }
  std::vector<Sent*> still;
  for (Sent* sent : waiting) (try_end_lease(sent->name.lease) ? ended : still).push_back(sent);
  {
    std::lock_guard<std::mutex> lock(all.mutex);
    all.limbo.insert(all.limbo.end(), still.begin(), still.end());
  }
  for (Sent* sent : ended) delete sent;
}

const openreg_driver& sharing_driver() {
  const openreg_driver& driver = hal();
  const bool shares = has_entry(driver, &openreg_driver::mem_export) && has_entry(driver, &openreg_driver::mem_import) &&
                      has_entry(driver, &openreg_driver::mem_close);
  TORCH_CHECK_NOT_IMPLEMENTED(shares, "The driver '", driver.name,
                              "' cannot share device memory with other processes: it has no mem_export. Send the tensor's .cpu() instead.");
  return driver;
}

c10::DeviceIndex visible_device(int32_t device) {
  const int index = torch_device(device);
  TORCH_CHECK(index >= 0, "A tensor on device ", device, " of the driver was received, which this process does not see: OPENREG_DEVICES or "
              "OPENREG_VISIBLE_DEVICES leaves it out.");
  return static_cast<c10::DeviceIndex>(index);
}

// Names the segment around the block, and the block in it.
void name_block(const openreg_driver& driver, const void* block, StorageName* name) {
  void* base = nullptr;
  uint64_t segment_bytes = 0;
  check(driver.mem_query(block, &name->device, &base, &segment_bytes), "Looking up a storage that is to be shared");
  check(driver.mem_export(name->device, base, &name->segment), "Sharing device memory");
  name->offset_bytes = static_cast<uint64_t>(static_cast<const char*>(block) - static_cast<char*>(base));
}

// LOCK: state().mutex.
Mapping& mapping_of(const openreg_driver& driver, const StorageName& name, const std::string& key) {
  Mapping& mapping = state().mappings[key];
  openreg_status status = OPENREG_OK;
  if (mapping.base == nullptr) status = driver.mem_import(&name.segment, &mapping.device, &mapping.base, &mapping.bytes);
  if (status == OPENREG_OK && name.bytes <= mapping.bytes && name.offset_bytes <= mapping.bytes - name.bytes) return mapping;
  if (mapping.storages == 0) {
    if (status == OPENREG_OK) driver.mem_close(mapping.device, mapping.base);
    state().mappings.erase(key);
  }
  check(status, "Receiving device memory");
  TORCH_CHECK(false, "The received storage does not lie in the memory that came with it.");
}

}  // namespace

std::string share_storage(const c10::Storage& storage) {
  const openreg_driver& driver = sharing_driver();
  collect_shared_memory();
  c10::StorageImpl* impl = storage.unsafeGetStorageImpl();
  StorageName name;
  name.bytes = impl->nbytes();
  name.device = driver_device(impl->device().index());
  if (name.bytes != 0) {
    void* block = impl->mutable_data();  // a lazy clone gets memory of its own: others may write
    TORCH_CHECK(block != nullptr, "A storage that has no memory cannot be shared.");
    const auto deleter = impl->data_ptr().get_deleter();
    TORCH_CHECK(deleter != &release_received,
                "This openreg tensor was received from another process, and only the process that made it can send it. Send a clone().");
    synchronize_stream(current_stream(impl->device().index()));
    if (deleter == &release_sent) {
      name = static_cast<Sent*>(impl->data_ptr().get_context())->name;
      name.bytes = impl->nbytes();
      extend_lease(name.lease);
    } else {
      name_block(driver, block, &name);
      name.lease = begin_lease();
      auto* sent = new Sent{{}, name};
      sent->block = impl->set_data_ptr({block, sent, &release_sent, impl->device()});
    }
  }
  return {reinterpret_cast<const char*>(&name), sizeof(name)};
}

c10::Storage open_storage(const std::string& bytes) {
  const openreg_driver& driver = sharing_driver();
  collect_shared_memory();
  StorageName name;
  TORCH_CHECK(bytes.size() == sizeof(name), "These ", bytes.size(), " bytes are no storage that openreg has shared.");
  std::memcpy(&name, bytes.data(), sizeof(name));
  TORCH_CHECK(name.version == kVersion, "The storage was shared by another version of torch_openreg.");
  c10::DataPtr data;
  if (name.bytes == 0) {
    data = c10::DataPtr(nullptr, {c10::DeviceType::PrivateUse1, visible_device(name.device)});
  } else {
    hold_lease(name.lease);  // first: a message that cannot be used is received all the same
    try {
      const c10::Device device(c10::DeviceType::PrivateUse1, visible_device(name.device));
      auto received = std::make_unique<Received>();
      received->lease = name.lease;
      received->segment.assign(reinterpret_cast<const char*>(&name.segment), sizeof(name.segment));
      std::lock_guard<std::mutex> lock(state().mutex);
      Mapping& mapping = mapping_of(driver, name, received->segment);
      ++mapping.storages;
      data = c10::DataPtr(static_cast<char*>(mapping.base) + name.offset_bytes, received.release(), &release_received, device);
    } catch (...) {
      drop_lease(name.lease);
      throw;
    }
  }
  return c10::Storage(c10::Storage::use_byte_size_t(), name.bytes, std::move(data), /*allocator=*/nullptr, /*resizable=*/false);
}

void collect_shared_memory() {
  if (!driver_usable()) return;
  unmap_finished();
  free_limbo();
}

}  // namespace openreg
