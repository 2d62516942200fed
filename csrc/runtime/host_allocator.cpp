// Core's CachingHostAllocatorImpl with the HAL underneath.
#include "runtime/host_allocator.h"

#include <chrono>
#include <cstring>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "runtime/allocator_config.h"
#include "runtime/capture.h"
#include "runtime/device.h"
#include "runtime/driver.h"
#include "runtime/event.h"
#include "runtime/interpreter_lock.h"
#include "runtime/sanitizer.h"
#include "runtime/stream.h"

namespace openreg {

namespace {

class Stopwatch {
 public:
  int64_t elapsed_us() const {
    return std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

struct PinnedMemory final : at::CachingHostAllocatorImpl<c10::Stream, Event> {
  void copy_data(void* dest, const void* src, std::size_t count) const override { std::memcpy(dest, src, count); }

  // Core reads the pinned_ settings itself, once they are parsed.
  std::pair<void*, void*> allocate(size_t size) override {
    allocator_config();
    const auto block = CachingHostAllocatorImpl::allocate(size);
    if (sanitizing() != 0 && block.first != nullptr) layers::sanitizer::host_block_allocated(block.first, size, call_stack());
    return block;
  }

 private:
  using Block = at::HostBlock<c10::Stream>;

  // Core calls this without its locks, so that cached blocks can be given back first when the driver has no memory.
  void allocate_host_memory(size_t bytes, void** pointer) override {
    Stopwatch time;
    const RelaxedCapture relaxed;
    openreg_status status = hal().host_alloc(bytes, pointer);
    if (status == OPENREG_OUT_OF_MEMORY) {
      empty_cache();
      status = hal().host_alloc(bytes, pointer);
    }
    check(status, "Allocating pinned host memory");
    std::lock_guard<std::mutex> lock(stats_.timing_mutex_);
    stats_.host_alloc_time.increase(time.elapsed_us());
  }

  void free_block(Block* block) override {
    Stopwatch time;
    const RelaxedCapture relaxed;
    check(hal().host_free(block->ptr_), "Freeing pinned host memory");
    std::lock_guard<std::mutex> lock(stats_.timing_mutex_);
    stats_.host_free_time.increase(time.elapsed_us());
  }

  // Runs in a deleter, which must not throw. A block without its event (a lost device; a captured stream, whose graph may be replayed at any
  // time) is never reused: core waits for as many events as the block has streams.
  void record_stream(std::optional<std::vector<Event>>& events, c10::Stream stream) override {
    try {
      if (capture_of(stream) != 0) return;
      Event event;
      event.record(stream);
      events->push_back(std::move(event));
    } catch (const std::exception&) {
    }
  }

  bool query_event(Event& event) override {
    const RelaxedCapture relaxed;
    const RuntimeWait wait;
    return event.query();
  }
  c10::Stream get_current_stream() const override { return current_stream(current_device()); }
  bool stream_is_capturing(c10::Stream stream) const override { return capture_of(stream) != 0; }
};

void release_pinned_memory(void* context) noexcept;

struct PinnedAllocator final : at::CachingHostAllocatorInterface<PinnedMemory, release_pinned_memory> {
  at::DataPtr allocate(size_t bytes) override {
    const WithoutInterpreterLock released;  // asks whether blocks are free
    return CachingHostAllocatorInterface::allocate(bytes);
  }
};

PinnedAllocator& allocator() {
  static PinnedAllocator* leaked = new PinnedAllocator;
  return *leaked;
}

// In a forked child and after the driver has stopped the memory is not ours any more.
void release_pinned_memory(void* context) noexcept {
  if (driver_started() && !driver_stopped()) allocator().free(context);
}

}  // namespace

at::HostAllocator* host_allocator() { return &allocator(); }

void register_host_allocator() { at::setHostAllocator(c10::DeviceType::PrivateUse1, host_allocator()); }

bool is_pinned(const void* pointer) {
  return driver_started() && hal().host_query(pointer, nullptr, nullptr) == OPENREG_OK;
}

bool record_pinned(const c10::DataPtr& pointer, c10::Stream stream) {
  if (pointer.get() == nullptr) return false;
  return allocator().record_event(pointer.get(), const_cast<void*>(pointer.get_context()), stream);
}

}  // namespace openreg
