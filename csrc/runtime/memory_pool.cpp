// Ids, and the way to the heap.
#include "runtime/memory_pool.h"

#include <atomic>
#include <utility>

#include "runtime/device_heap.h"

namespace openreg {

c10::MempoolId_t new_memory_pool_id(bool by_program) {
  static std::atomic<c10::CaptureId_t> programs{0}, graphs{0};
  return by_program ? c10::MempoolId_t{0, ++programs} : c10::MempoolId_t{++graphs, 0};
}

void retain_memory_pool(c10::DeviceIndex device, c10::MempoolId_t id, bool no_split, bool use_on_oom) {
  device_heap(device).retain_pool(id, no_split, use_on_oom);
}

void release_memory_pool(c10::DeviceIndex device, c10::MempoolId_t id) { device_heap(device).release_pool(id); }

int memory_pool_use_count(c10::DeviceIndex device, c10::MempoolId_t id) { return device_heap(device).pool_use_count(id); }

void begin_allocate_to_pool(c10::DeviceIndex device, c10::MempoolId_t id, std::function<bool(c10::StreamId)> filter) {
  DeviceHeap& heap = device_heap(device);
  heap.retain_pool(id, false, false);
  heap.begin_routing(id, std::move(filter));
}

void begin_allocate_current_thread_to_pool(c10::DeviceIndex device, c10::MempoolId_t id) { begin_allocate_to_pool(device, id, nullptr); }

void end_allocate_to_pool(c10::DeviceIndex device, c10::MempoolId_t id) { device_heap(device).end_routing(id); }

}  // namespace openreg
