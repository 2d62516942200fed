// The c10 face of the device heaps: which heap and stream an allocation uses, the deleter, and what torch.accelerator asks.
#include "runtime/device_allocator.h"

#include <c10/util/Exception.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <mutex>
#include <unordered_set>
#include <utility>

#include "runtime/device.h"
#include "runtime/device_heap.h"
#include "runtime/driver.h"
#include "runtime/event.h"
#include "runtime/faults.h"
#include "runtime/fault_report.h"
#include "runtime/launch.h"
#include "runtime/sanitizer.h"
#include "runtime/stream.h"

namespace openreg {

namespace {

// Every heap, and the table that they share. Leaked on purpose.
struct Heaps {
  BlockTable table;
  std::array<std::atomic<DeviceHeap*>, kMaxDevices> of_device{};
  std::mutex create_mutex;
  std::mutex lent_mutex;
  std::unordered_set<void*> lent;  // by allocate_device_block. LOCK: lent_mutex
};

Heaps& heaps() {
  static Heaps* leaked = new Heaps;
  return *leaked;
}

DeviceHeap& create_heap(c10::DeviceIndex device) {
  check_device(device);
  Heaps& all = heaps();
  std::lock_guard<std::mutex> lock(all.create_mutex);
  std::atomic<DeviceHeap*>& entry = all.of_device[static_cast<size_t>(device)];
  if (entry.load() == nullptr) entry.store(new DeviceHeap(device, all.table), std::memory_order_release);
  install_fault_report(all.table);
  return *entry.load();
}

bool release_block(void* address) noexcept {
  Block* block = heaps().table.find(address);
  return block != nullptr && block->heap->release(block, address);
}

// The deleter of every DataPtr from here; its context is the device address (Note [Block lookup]). Host threads only. In a forked child
// and after the driver has stopped the memory is not ours any more.
void release_device_memory(void* address) noexcept {
  if (address == nullptr || !driver_started()) return;
  if (driver_stopped()) {
    if (sanitizing() != 0) layers::sanitizer::block_freed(address, 0);
    return;
  }
  if (release_block(address)) return;
  if (sanitizing() != 0) layers::sanitizer::block_freed_twice(address, call_stack(false));
  std::fprintf(stderr, "torch_openreg: %p was freed, but it is not an allocated block of device memory (freed twice?)\n", address);
}

class Allocator final : public c10::DeviceAllocator {
 public:
  c10::DataPtr allocate(size_t bytes) override { return allocate_device_memory(current_device(), bytes); }
  c10::DeleterFnPtr raw_deleter() const override { return &release_device_memory; }

  // In stream order on the destination device's current stream.
  void copy_data(void* dest, const void* src, size_t count) const override {
    if (count == 0) return;
    const c10::Device to = device_of_pointer(dest), from = device_of_pointer(src);
    const c10::Stream stream = current_stream(to.index());
    if (from != to) {
      Event ready;
      ready.record(current_stream(from.index()));
      ready.block(stream);
    }
    launch_copy(stream, "openreg::copy_data", dest, to, src, from, count);
    record_block_on_stream(dest, stream);
    record_block_on_stream(const_cast<void*>(src), stream);
  }

  bool initialized() override { return driver_started(); }

  void emptyCache(c10::MempoolId_t pool) override {
    if (!driver_started() || driver_stopped()) return;
    for (auto& entry : heaps().of_device) {
      if (DeviceHeap* heap = entry.load(std::memory_order_acquire)) heap->empty_cache(pool);
    }
  }

  void recordStream(const c10::DataPtr& data, c10::Stream stream) override { record_block_on_stream(data.get(), stream); }

  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex device) override { return device_heap(device).stats(); }
  void resetAccumulatedStats(c10::DeviceIndex device) override { device_heap(device).reset_accumulated_stats(); }
  void resetPeakStats(c10::DeviceIndex device) override { device_heap(device).reset_peak_stats(); }

  std::pair<size_t, size_t> getMemoryInfo(c10::DeviceIndex device) override {
    check_device(device);
    uint64_t free_bytes = 0, total_bytes = 0;
    check(hal().mem_info(driver_device(device), &free_bytes, &total_bytes), "Reading the device's free memory");
    return {free_bytes, total_bytes};
  }
};

}  // namespace

c10::DeviceAllocator* device_allocator() {
  static Allocator* leaked = new Allocator;
  return leaked;
}

DeviceHeap* find_heap(c10::DeviceIndex device) noexcept {
  return heaps().of_device[static_cast<size_t>(device)].load(std::memory_order_acquire);
}

const BlockTable& block_table() noexcept { return heaps().table; }

void register_device_allocator() {
  register_allocator_config();
  c10::SetAllocator(c10::DeviceType::PrivateUse1, device_allocator());
}

DeviceHeap& device_heap(c10::DeviceIndex device) {
  const auto index = static_cast<size_t>(static_cast<uint8_t>(device));
  if (C10_LIKELY(index < kMaxDevices)) {
    if (DeviceHeap* heap = heaps().of_device[index].load(std::memory_order_acquire)) return *heap;
  }
  return create_heap(device);
}

c10::DataPtr allocate_device_memory(c10::DeviceIndex device, size_t bytes) {
  DeviceHeap& heap = device_heap(device);
  hal();  // raises in a forked child
  if (bytes != 0) check_fault_of_allocation(device, bytes);
  void* address = bytes == 0 ? nullptr : heap.allocate(bytes, current_stream(device).id());
  return {address, address, &release_device_memory, c10::Device(c10::DeviceType::PrivateUse1, device)};
}

void* allocate_device_block(c10::Stream stream, size_t bytes) {
  DeviceHeap& heap = device_heap(stream.device_index());
  hal();  // raises in a forked child
  TORCH_CHECK_VALUE(stream_exists(stream), "There is no stream ", stream.id(), " of ", stream.device(), ".");
  if (bytes == 0) return nullptr;
  void* address = heap.allocate(bytes, stream.id());
  std::lock_guard<std::mutex> lock(heaps().lent_mutex);
  heaps().lent.insert(address);
  return address;
}

void free_device_block(void* address) {
  if (address == nullptr) return;
  const bool lent = [&] {
    std::lock_guard<std::mutex> lock(heaps().lent_mutex);
    return heaps().lent.erase(address) != 0;
  }();
  if (lent && release_block(address)) return;
  if (sanitizing() != 0) layers::sanitizer::block_freed_twice(address, call_stack());
  TORCH_CHECK_VALUE(false, address, " is not the address of a block of device memory that was allocated by address (freed twice?).");
}

void record_deferred_blocks() {
  for (auto& entry : heaps().of_device) {
    if (DeviceHeap* heap = entry.load(std::memory_order_acquire)) heap->record_deferred();
  }
}

void set_memory_fraction(c10::DeviceIndex device, double fraction) { device_heap(device).set_memory_fraction(fraction); }
double memory_fraction(c10::DeviceIndex device) { return device_heap(device).memory_fraction(); }

void record_block_on_stream(void* block_address, c10::Stream stream) {
  if (block_address == nullptr) return;
  if (Block* block = heaps().table.find(block_address)) block->heap->record_stream(block, block_address, stream);
}

}  // namespace openreg
