// Allocation, release, deferral and flushing on one device.
#include "runtime/device_heap.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <limits>
#include <sstream>
#include <utility>

#include "runtime/device.h"
#include "runtime/driver.h"
#include "runtime/ipc.h"
#include "runtime/stream.h"

namespace openreg {

namespace {

using c10::CachingAllocator::Stat;
using c10::CachingAllocator::StatArray;
using c10::CachingDeviceAllocator::DeviceStats;

constexpr uint64_t kLargestRequest = uint64_t{1} << 60;  // bytes; beyond it rounding could overflow, and no device has it

uint64_t round_up(uint64_t bytes, uint64_t step) { return (bytes + step - 1) / step * step; }

// A StatArray has the total, small blocks and large blocks, in this order.
void add(StatArray& stat, bool large, uint64_t amount) {
  stat[0].increase(amount);
  stat[large ? 2 : 1].increase(amount);
}
void subtract(StatArray& stat, bool large, uint64_t amount) {
  stat[0].decrease(amount);
  stat[large ? 2 : 1].decrease(amount);
}

template <class F>
void for_each_array(DeviceStats& stats, F&& f) {
  for (StatArray* array : {&stats.allocation, &stats.segment, &stats.active, &stats.inactive_split, &stats.allocated_bytes,
                           &stats.reserved_bytes, &stats.active_bytes, &stats.inactive_split_bytes, &stats.requested_bytes}) {
    for (Stat& stat : *array) f(stat);
  }
}

// Reports to a profiler of the calling thread, if there is one. Constructed before the mutex is taken, used after it is released.
class MemoryReport {
 public:
  explicit MemoryReport(c10::DeviceIndex device) : enabled_(c10::memoryProfilingEnabled()), device_(device) {}
  void take(const DeviceStats& stats) {
    if (!enabled_) return;
    allocated_ = static_cast<size_t>(stats.allocated_bytes[0].current);
    reserved_ = static_cast<size_t>(stats.reserved_bytes[0].current);
  }
  void send(void* address, int64_t bytes) const {
    if (enabled_) c10::reportMemoryUsageToProfiler(address, bytes, allocated_, reserved_, {c10::DeviceType::PrivateUse1, device_});
  }
  void send_out_of_memory(int64_t bytes) const {
    if (enabled_) c10::reportOutOfMemoryToProfiler(bytes, allocated_, reserved_, {c10::DeviceType::PrivateUse1, device_});
  }

 private:
  const bool enabled_;
  const c10::DeviceIndex device_;
  size_t allocated_ = 0, reserved_ = 0;
};

}  // namespace

DeviceHeap::DeviceHeap(c10::DeviceIndex device, BlockTable& table)
    : device_(device), table_(table), arena_(this), pool_({0, 0}) {
  stats_.max_split_size = std::numeric_limits<int64_t>::max();  // no limit
}

void* DeviceHeap::allocate(size_t bytes, c10::StreamId stream) {
  MemoryReport report(device_);
  std::unique_lock<std::mutex> lock(mutex_);
  if (waiting_count_ != 0) collect_completed();
  if (bytes > kLargestRequest) throw_out_of_memory(bytes, lock);

  const uint64_t size_bytes = round_up(bytes, kBlockAlignment);
  FreeBlocks& home = pool_.of(stream);
  Block* block = home.best_fit(size_bytes, size_bytes > kSmallRequest);
  if (block == nullptr) block = grow(home, size_bytes, bytes, lock);
  remove_free(block);
  trim(block, size_bytes);

  block->state = BlockState::in_use;
  block->requested_bytes = bytes;
  add(stats_.allocation, block->large, 1);
  add(stats_.allocated_bytes, block->large, block->size_bytes);
  add(stats_.requested_bytes, block->large, bytes);
  add(stats_.active, block->large, 1);
  add(stats_.active_bytes, block->large, block->size_bytes);
  report.take(stats_);
  void* address = block->address;
  const int64_t reported = static_cast<int64_t>(block->size_bytes);
  lock.unlock();
  report.send(address, reported);
  return address;
}

bool DeviceHeap::release(Block* block, const void* address) noexcept {
  MemoryReport report(device_);
  std::unique_lock<std::mutex> lock(mutex_);
  if (block->state != BlockState::in_use || block->address != address) return false;
  const int64_t reported = static_cast<int64_t>(block->size_bytes);
  subtract(stats_.allocation, block->large, 1);
  subtract(stats_.allocated_bytes, block->large, block->size_bytes);
  subtract(stats_.requested_bytes, block->large, block->requested_bytes);
  report.take(stats_);
  if (block->users.empty()) {
    coalesce(block);
    lock.unlock();
  } else {
    defer(block, lock);
  }
  report.send(const_cast<void*>(address), -reported);
  return true;
}

void DeviceHeap::record_stream(Block* block, const void* address, c10::Stream stream) {
  stream_handle(stream);  // refuses a stream on which no event could be recorded later
  std::lock_guard<std::mutex> lock(mutex_);
  if (block->state != BlockState::in_use || block->address != address) return;
  if (stream.device_index() == device_ && stream.id() == block->home->stream()) return;
  if (std::find(block->users.begin(), block->users.end(), stream) == block->users.end()) block->users.push_back(stream);
}

void DeviceHeap::empty_cache() {
  std::unique_lock<std::mutex> lock(mutex_);
  flush(lock);
}

DeviceStats DeviceHeap::stats() {
  std::lock_guard<std::mutex> lock(mutex_);
  return stats_;
}

void DeviceHeap::reset_accumulated_stats() {
  std::lock_guard<std::mutex> lock(mutex_);
  for_each_array(stats_, [](Stat& stat) { stat.reset_accumulated(); });
  stats_.num_alloc_retries = stats_.num_ooms = stats_.num_sync_all_streams = stats_.num_device_alloc = stats_.num_device_free = 0;
  stats_.oversize_allocations.reset_accumulated();
  stats_.oversize_segments.reset_accumulated();
}

void DeviceHeap::reset_peak_stats() {
  std::lock_guard<std::mutex> lock(mutex_);
  for_each_array(stats_, [](Stat& stat) { stat.reset_peak(); });
  stats_.oversize_allocations.reset_peak();
  stats_.oversize_segments.reset_peak();
}

// A free block of at least size_bytes, in the lists, when they had none: from a new segment, if need be after a flush. Where a
// segment of the usual size does not fit any more, one that just fits the request is tried before anything is flushed.
Block* DeviceHeap::grow(FreeBlocks& home, uint64_t size_bytes, size_t requested_bytes, std::unique_lock<std::mutex>& lock) {
  const bool large = size_bytes > kSmallRequest;
  const uint64_t least = large ? round_up(size_bytes, kSegmentStep) : kSmallSegment;
  const uint64_t usual = large && size_bytes < kOwnSegment ? kLargeSegment : least;
  auto from_driver = [&]() -> Block* {
    Block* block = new_segment(home, usual, large);
    return block == nullptr && least < usual ? new_segment(home, least, large) : block;
  };

  if (Block* block = from_driver()) return block;
  uint64_t free_bytes = 0, total_bytes = 0;
  check(hal().mem_info(driver_device(device_), &free_bytes, &total_bytes), "Reading the device's free memory");
  if (least <= total_bytes) {
    ++stats_.num_alloc_retries;
    flush(lock);
    if (Block* block = home.best_fit(size_bytes, large)) return block;
    if (Block* block = from_driver()) return block;
  }
  throw_out_of_memory(requested_bytes, lock);
}

// A new segment as one free block in the lists; null when the driver has no memory for it.
Block* DeviceHeap::new_segment(FreeBlocks& home, uint64_t size_bytes, bool large) {
  void* address = nullptr;
  const openreg_status status = hal().mem_alloc(driver_device(device_), size_bytes, &address);
  if (status == OPENREG_OUT_OF_MEMORY) return nullptr;
  check(status, "Allocating device memory");
  Block* block = arena_.make();
  table_.set(address, block);
  block->address = static_cast<char*>(address);
  block->size_bytes = size_bytes;
  block->home = &home;
  block->large = large;
  add(stats_.segment, large, 1);
  add(stats_.reserved_bytes, large, size_bytes);
  ++stats_.num_device_alloc;
  insert_free(block);
  return block;
}

// Cuts what the block has beyond size_bytes off as a free block, where that is worth a block: from large ones only more than the small
// pool could have served.
void DeviceHeap::trim(Block* block, uint64_t size_bytes) {
  const uint64_t rest_bytes = block->size_bytes - size_bytes;
  if (block->large ? rest_bytes <= kSmallRequest : rest_bytes == 0) return;
  Block* rest = arena_.make();
  rest->address = block->address + size_bytes;
  table_.set(rest->address, rest);
  rest->size_bytes = rest_bytes;
  rest->home = block->home;
  rest->large = block->large;
  rest->lower = block;
  rest->upper = block->upper;
  if (rest->upper != nullptr) rest->upper->lower = rest;
  block->upper = rest;
  block->size_bytes = size_bytes;
  insert_free(rest);
}

void DeviceHeap::insert_free(Block* block) {
  block->state = BlockState::free;
  block->home->insert(block);
  if (block->whole_segment()) return;
  add(stats_.inactive_split, block->large, 1);
  add(stats_.inactive_split_bytes, block->large, block->size_bytes);
}

void DeviceHeap::remove_free(Block* block) {
  block->home->remove(block);
  block->idle_epoch = 0;
  if (block->whole_segment()) return;
  subtract(stats_.inactive_split, block->large, 1);
  subtract(stats_.inactive_split_bytes, block->large, block->size_bytes);
}

// Ends the block's activity: joins it with free neighbours and puts the result into the lists.
void DeviceHeap::coalesce(Block* block) {
  subtract(stats_.active, block->large, 1);
  subtract(stats_.active_bytes, block->large, block->size_bytes);
  auto absorb_upper = [this](Block* lower) {
    Block* upper = lower->upper;
    table_.set(upper->address, nullptr);
    lower->size_bytes += upper->size_bytes;
    lower->upper = upper->upper;
    if (lower->upper != nullptr) lower->upper->lower = lower;
    arena_.recycle(upper);
  };
  if (block->upper != nullptr && block->upper->state == BlockState::free) {
    remove_free(block->upper);
    absorb_upper(block);
  }
  if (block->lower != nullptr && block->lower->state == BlockState::free) {
    block = block->lower;
    remove_free(block);
    absorb_upper(block);
  }
  insert_free(block);
}

// Records an event on every stream that used the block and lets it wait for them. The driver is called without the mutex. A block for
// which an event could not be recorded (a lost device) is never reused.
void DeviceHeap::defer(Block* block, std::unique_lock<std::mutex>& lock) {
  block->state = BlockState::pending;
  block->pending_events = static_cast<uint32_t>(block->users.size());
  std::vector<c10::Stream> users;
  users.swap(block->users);
  std::vector<Event> events(users.size());
  for (size_t i = 0; i < users.size(); ++i) {
    std::vector<Event>& spare = waiting_queue(users[i]).spare;
    if (spare.empty()) continue;
    events[i] = std::move(spare.back());
    spare.pop_back();
  }
  lock.unlock();
  size_t recorded = 0;
  try {
    for (; recorded < users.size(); ++recorded) events[recorded].record(users[recorded]);
  } catch (const std::exception&) {
  }
  lock.lock();
  for (size_t i = 0; i < recorded; ++i) waiting_queue(users[i]).waiting.push_back({std::move(events[i]), block});
  waiting_count_ += recorded;
  lock.unlock();
}

DeviceHeap::WaitingQueue& DeviceHeap::waiting_queue(c10::Stream stream) {
  for (WaitingQueue& queue : queues_) {
    if (queue.stream == stream) return queue;
  }
  return queues_.emplace_back(stream);
}

void DeviceHeap::collect_completed() {
  for (WaitingQueue& queue : queues_) {
    while (!queue.waiting.empty() && queue.waiting.front().event.query()) {
      Block* block = queue.waiting.front().block;
      queue.spare.push_back(std::move(queue.waiting.front().event));
      queue.waiting.pop_front();
      --waiting_count_;
      if (--block->pending_events == 0) coalesce(block);
    }
  }
}

// Frees pending blocks and gives whole free segments back: Note [Giving segments back]. Releases the mutex while it waits.
void DeviceHeap::flush(std::unique_lock<std::mutex>& lock) {
  ++stats_.num_sync_all_streams;
  lock.unlock();
  collect_shared_memory();  // blocks that other processes have finished with
  lock.lock();
  std::vector<c10::Stream> awaited;
  for (const WaitingQueue& queue : queues_) {
    if (!queue.waiting.empty()) awaited.push_back(queue.stream);
  }
  if (!awaited.empty()) {
    lock.unlock();
    for (c10::Stream stream : awaited) synchronize_stream(stream);
    lock.lock();
    collect_completed();
  }

  std::vector<Block*> segments;
  pool_.append_whole_segments(segments);
  if (segments.empty()) return;
  const uint64_t epoch = ++epoch_;
  for (Block* segment : segments) {
    if (segment->idle_epoch == 0) segment->idle_epoch = epoch;
  }
  lock.unlock();
  synchronize_device(device_);
  lock.lock();

  segments.clear();
  pool_.append_whole_segments(segments);
  for (Block* segment : segments) {
    if (segment->idle_epoch != 0 && segment->idle_epoch <= epoch) give_back(segment);
  }
}

void DeviceHeap::give_back(Block* segment) {
  check(hal().mem_free(driver_device(device_), segment->address), "Freeing device memory");
  table_.set(segment->address, nullptr);
  subtract(stats_.segment, segment->large, 1);
  subtract(stats_.reserved_bytes, segment->large, segment->size_bytes);
  ++stats_.num_device_free;
  remove_free(segment);
  arena_.recycle(segment);
}

void DeviceHeap::throw_out_of_memory(size_t requested_bytes, std::unique_lock<std::mutex>& lock) {
  using c10::CachingAllocator::format_size;
  ++stats_.num_ooms;
  MemoryReport report(device_);
  report.take(stats_);
  const uint64_t allocated = static_cast<uint64_t>(stats_.allocated_bytes[0].current);
  const uint64_t reserved = static_cast<uint64_t>(stats_.reserved_bytes[0].current);
  lock.unlock();
  report.send_out_of_memory(static_cast<int64_t>(requested_bytes));

  uint64_t free_bytes = 0, total_bytes = 0;
  hal().mem_info(driver_device(device_), &free_bytes, &total_bytes);
  const c10::Device device(c10::DeviceType::PrivateUse1, device_);
  std::ostringstream text;
  text << c10::DeviceTypeName(device.type(), /*lower_case=*/true) << " out of memory. Tried to allocate "
       << format_size(requested_bytes) << ". Device " << device << " has a total capacity of " << format_size(total_bytes)
       << " of which " << format_size(free_bytes) << " is free. Of the allocated memory " << format_size(allocated)
       << " is allocated by PyTorch, and " << format_size(reserved - allocated) << " is reserved by PyTorch but unallocated.";
  C10_THROW_ERROR(OutOfMemoryError, text.str());
}

}  // namespace openreg
