// Allocation, release and deferral on one device, pools and statistics. device_heap_segments.cpp deals with the driver.
#include "runtime/device_heap.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <utility>

#include "runtime/capture.h"
#include "runtime/device.h"
#include "runtime/driver.h"
#include "runtime/interpreter_lock.h"
#include "runtime/recovery.h"
#include "runtime/sanitizer.h"
#include "runtime/stream.h"

namespace openreg {

namespace {

using c10::CachingDeviceAllocator::RecordContext;
using c10::CachingDeviceAllocator::TraceEntry;

constexpr uint64_t kLargestRequest = uint64_t{1} << 60;  // bytes; beyond it rounding could overflow, and no device has it

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

 private:
  const bool enabled_;
  const c10::DeviceIndex device_;
  size_t allocated_ = 0, reserved_ = 0;
};

bool is_lost(c10::DeviceIndex device) noexcept {
  try {
    return loss_reason(device).has_value();
  } catch (const std::exception&) {
    return false;
  }
}

}  // namespace

DeviceHeap::DeviceHeap(c10::DeviceIndex device, BlockTable& table)
    : device_(device), table_(table), arena_(this), pool_({0, 0}), granularity_bytes_(device_info(device).allocation_granularity_bytes),
      fraction_(allocator_config().memory_fraction) {
  uint64_t free_bytes = 0;
  check(hal().mem_info(driver_device(device), &free_bytes, &total_bytes_), "Reading the device's memory");
}

void* DeviceHeap::allocate(size_t bytes, c10::StreamId stream) {
  const AllocatorConfig& config = allocator_config();
  MemoryReport report(device_);
  MemoryContext context = memory_context(RecordContext::STATE);
  const WithoutInterpreterLock released;
  Lock lock(mutex_);
  if (waiting_count_ != 0) collect_completed(lock);
  ++allocations_;

  const bool possible = bytes <= kLargestRequest;
  const uint64_t size_bytes = possible ? config.rounded(bytes + sanitizer_guard_bytes()) : bytes;
  const Request request{config, pool_for(stream).of(stream), bytes, size_bytes, size_bytes > kSmallRequest, memory_caching(), context};
  Block* block = possible && request.cached ? find_free(request.home, request) : nullptr;
  if (block == nullptr) {
    const PoolInUse in_use(*this, request.home.pool());
    if (possible) block = grow(request, lock);
    if (block == nullptr) fail(request, lock);
  }
  remove_free(block);
  trim(block, request);

  block->state = BlockState::in_use;
  block->requested_bytes = bytes;
  record(TraceEntry::ALLOC, *block, bytes, context);
  block->context = std::move(context);
  add(stats_.allocation, block->large, 1);
  add(stats_.allocated_bytes, block->large, block->size_bytes);
  add(stats_.requested_bytes, block->large, bytes);
  add(stats_.active, block->large, 1);
  add(stats_.active_bytes, block->large, block->size_bytes);
  if (block->size_bytes >= config.max_split_bytes) {
    block->oversize = true;
    stats_.oversize_allocations.increase(1);
  }
  report.take(stats_);
  void* address = block->address;
  const uint64_t given_bytes = block->size_bytes;
  lock.unlock();
  if (C10_UNLIKELY(sanitizing() != 0)) sanitize_allocation(device_, stream, address, given_bytes, bytes);
  report.send(address, static_cast<int64_t>(given_bytes));
  return address;
}

bool DeviceHeap::release(Block* block, const void* address) noexcept {
  MemoryReport report(device_);
  const MemoryContext context = memory_context(RecordContext::ALL);
  const uint64_t freed_at = C10_UNLIKELY(sanitizing() != 0) ? sanitize_end(address) : 0;
  Lock lock(mutex_);
  if (block->state != BlockState::in_use || block->address != address) return false;
  if (C10_UNLIKELY(sanitizing() != 0)) layers::sanitizer::block_freed(block->address, freed_at);
  const int64_t reported = static_cast<int64_t>(block->size_bytes);
  subtract(stats_.allocation, block->large, 1);
  subtract(stats_.allocated_bytes, block->large, block->size_bytes);
  subtract(stats_.requested_bytes, block->large, block->requested_bytes);
  if (block->oversize) {
    block->oversize = false;
    stats_.oversize_allocations.decrease(1);
  }
  report.take(stats_);
  record(TraceEntry::FREE_REQUESTED, *block, block->requested_bytes, context ? context : block->context);
  const bool cached = block->cached;
  if (!cached) block->users.emplace_back(c10::Stream::UNSAFE, c10::Device(c10::DeviceType::PrivateUse1, device_), block->home->stream());
  if (block->users.empty()) {
    finish(block, context);
  } else {
    defer(block, lock);
  }
  if (!cached) collect_completed(lock);
  lock.unlock();
  report.send(const_cast<void*>(address), -reported);
  return true;
}

void DeviceHeap::record_stream(Block* block, const void* address, c10::Stream stream) {
  stream_handle(stream);  // refuses a stream on which no event could be recorded later
  std::lock_guard<std::mutex> lock(mutex_);
  if (block->state != BlockState::in_use || block->address != address) return;
  if (stream.device_index() == device_ && stream.id() == block->home->stream()) return;
  if (std::find(block->users.begin(), block->users.end(), stream) == block->users.end()) block->users.push_back(stream);
  if (C10_UNLIKELY(sanitizing() != 0)) layers::sanitizer::block_used_by(block->address, stream_handle(stream));
}

void DeviceHeap::record(Action action, const Block& block, uint64_t bytes, const MemoryContext& context) const {
  MemoryRecorder* recorder = memory_recorder.load(std::memory_order_acquire);
  if (C10_LIKELY(recorder == nullptr)) return;
  const FreeBlocks& home = *block.home;
  recorder->record({action, device_, reinterpret_cast<uint64_t>(block.address), bytes, home.stream(), home.pool().id()}, context);
}

// ---- Free blocks ------------------------------------------------------------

// The block that serves the request, still in the lists. Blocks that are not split serve only requests about as large.
Block* DeviceHeap::find_free(FreeBlocks& home, const Request& request) const {
  Block* block = home.best_fit(request.size_bytes, request.large);
  if (block == nullptr || !request.large || block->expandable != nullptr) return block;
  const uint64_t limit = request.config.max_split_bytes;
  const bool too_large = request.size_bytes < limit ? block->size_bytes >= limit
                                                    : block->size_bytes >= request.size_bytes + request.config.max_non_split_rounding_bytes;
  return too_large ? nullptr : block;
}

// Cuts what the block has beyond the request off as a free block. Pieces that are too small for any large request cost nothing: they join
// the block again when it is free.
void DeviceHeap::trim(Block* block, const Request& request) {
  if (block->size_bytes == request.size_bytes) return;
  if (!request.cached || block->home->pool().no_split || (block->large && request.size_bytes >= request.config.max_split_bytes)) return;
  insert_free(split(block, request.size_bytes));
}

// Cuts the block; the part beyond size_bytes is returned, in no list.
Block* DeviceHeap::split(Block* block, uint64_t size_bytes) {
  Block* rest = arena_.make();
  rest->address = block->address + size_bytes;
  table_.set(rest->address, rest);
  rest->size_bytes = block->size_bytes - size_bytes;
  rest->home = block->home;
  rest->large = block->large;
  rest->expandable = block->expandable;
  rest->lower = block;
  rest->upper = block->upper;
  if (rest->upper != nullptr) rest->upper->lower = rest;
  block->upper = rest;
  block->size_bytes = size_bytes;
  return rest;
}

void DeviceHeap::absorb_upper(Block* block) {
  Block* upper = block->upper;
  table_.set(upper->address, nullptr);
  block->size_bytes += upper->size_bytes;
  block->upper = upper->upper;
  if (block->upper != nullptr) block->upper->lower = block;
  arena_.recycle(upper);
}

void DeviceHeap::insert_free(Block* block) {
  block->state = BlockState::free;
  block->freed_at = allocations_;
  block->home->insert(block);
  if (block->whole_segment() || block->expandable != nullptr) return;
  add(stats_.inactive_split, block->large, 1);
  add(stats_.inactive_split_bytes, block->large, block->size_bytes);
}

void DeviceHeap::remove_free(Block* block) {
  block->home->remove(block);
  block->idle_epoch = 0;
  if (block->whole_segment() || block->expandable != nullptr) return;
  subtract(stats_.inactive_split, block->large, 1);
  subtract(stats_.inactive_split_bytes, block->large, block->size_bytes);
}

// Joins a block that is in no list with its free neighbours; the result is in no list.
Block* DeviceHeap::merge(Block* block) {
  if (block->upper != nullptr && block->upper->state == BlockState::free) {
    remove_free(block->upper);
    absorb_upper(block);
  }
  if (block->lower != nullptr && block->lower->state == BlockState::free) {
    block = block->lower;
    remove_free(block);
    absorb_upper(block);
  }
  return block;
}

// Ends the block's activity. Memory that the driver does not take back stays in the cache.
void DeviceHeap::finish(Block* block, const MemoryContext& context) {
  record(TraceEntry::FREE_COMPLETED, *block, block->requested_bytes, context ? context : block->context);
  block->context.reset();
  if (C10_UNLIKELY(sanitizing() != 0)) layers::sanitizer::block_idle(block->address);
  subtract(stats_.active, block->large, 1);
  subtract(stats_.active_bytes, block->large, block->size_bytes);
  const bool cached = block->cached;
  block = merge(block);
  insert_free(block);
  if (cached) return;
  try {
    give_back(block);
  } catch (const std::exception&) {
  }
}

// ---- Waiting for other streams ----------------------------------------------

// The block waits for every stream that used it.
void DeviceHeap::defer(Block* block, Lock& lock) {
  block->state = BlockState::pending;
  block->pending_events = static_cast<uint32_t>(block->users.size());
  std::vector<Use> uses;
  for (const c10::Stream& user : block->users) uses.emplace_back(block, user);
  block->users.clear();
  await(std::move(uses), lock);
}

void DeviceHeap::record_deferred() {
  Lock lock(mutex_);
  await(std::exchange(deferred_, {}), lock);
}

// Records an event on the stream of each use and lets the block wait for it; uses on captured streams are deferred. The driver is called without
// the mutex. A lost device has dropped its work, so nothing is left to wait for; any other failure keeps the block from being used again.
void DeviceHeap::await(std::vector<Use> uses, Lock& lock) {
  enum class Outcome : uint8_t { failed, recorded, captured, lost };
  std::vector<Outcome> outcomes(uses.size());
  std::vector<std::shared_ptr<Event>> events(uses.size());
  for (size_t i = 0; i < uses.size(); ++i) {
    std::vector<std::shared_ptr<Event>>& spare = waiting_queue(uses[i].second).spare;
    if (spare.empty()) continue;
    events[i] = std::move(spare.back());
    spare.pop_back();
  }
  lock.unlock();
  for (size_t i = 0; i < uses.size(); ++i) {
    try {
      outcomes[i] = Outcome::captured;
      if (capture_of(uses[i].second) != 0) continue;
      if (events[i] == nullptr) events[i] = std::make_shared<Event>();
      events[i]->record(uses[i].second);
      if (capture_of(uses[i].second) == 0) outcomes[i] = Outcome::recorded;  // else the record may have become part of the capture
    } catch (const std::exception&) {
      outcomes[i] = is_lost(uses[i].second.device_index()) ? Outcome::lost : Outcome::failed;
    }
  }
  lock.lock();
  for (size_t i = 0; i < uses.size(); ++i) {
    if (outcomes[i] == Outcome::captured) deferred_.push_back(uses[i]);
    if (outcomes[i] == Outcome::lost && --uses[i].first->pending_events == 0) finish(uses[i].first, nullptr);
    if (outcomes[i] != Outcome::recorded) continue;
    waiting_queue(uses[i].second).waiting.push_back({std::move(events[i]), uses[i].first});
    ++waiting_count_;
  }
}

DeviceHeap::WaitingQueue& DeviceHeap::waiting_queue(c10::Stream stream) {
  for (WaitingQueue& queue : queues_) {
    if (queue.stream == stream) return queue;
  }
  for (WaitingQueue& queue : queues_) {  // that of a stream which does not exist any more serves another
    if (!queue.waiting.empty() || stream_exists(queue.stream.id())) continue;
    queue.spare.clear();
    queue.stream = stream;
    return queue;
  }
  return queues_.emplace_back(stream);
}

// Finishes the blocks that need not wait any more. Each event is asked without the mutex, because the driver may run a queued task for the
// question; meanwhile other threads may take the entry out, and record its event again. A block whose event cannot be asked, because
// its record became part of a capture, waits for another one.
void DeviceHeap::collect_completed(Lock& lock) {
  for (size_t i = 0; i < queues_.size(); ++i) {
    WaitingQueue& queue = queues_[i];
    while (!queue.waiting.empty()) {
      const std::shared_ptr<Event> event = queue.waiting.front().event;
      const uint64_t taken = queue.taken;
      bool complete = false, failed = false;
      unlocked(lock, [&] {
        const RelaxedCapture relaxed;
        const RuntimeWait wait;
        try {
          complete = event->query();
        } catch (const std::exception&) {
          failed = true;
        }
      });
      if (queue.taken != taken) continue;
      if (!complete && !failed) break;
      Block* block = queue.waiting.front().block;
      queue.waiting.pop_front();
      ++queue.taken;
      --waiting_count_;
      if (failed) {
        await({{block, queue.stream}}, lock);
        break;
      }
      queue.spare.push_back(event);
      if (--block->pending_events == 0) finish(block, nullptr);
    }
  }
}

// ---- Pools ------------------------------------------------------------------

DevicePool& DeviceHeap::pool_for(c10::StreamId stream) {
  for (auto route = routes_.rbegin(); C10_UNLIKELY(route != routes_.rend()); ++route) {
    if (route->filter ? route->filter(stream) : route->thread == std::this_thread::get_id()) return *route->pool;
  }
  return pool_;
}

DevicePool& DeviceHeap::private_pool(c10::MempoolId_t id) const {
  for (const auto& pool : private_pools_) {
    if (pool->id() == id) return *pool;
  }
  TORCH_CHECK_VALUE(false, "Device openreg:", static_cast<int>(device_), " has no memory pool (", id.first, ", ", id.second,
                    "): it was released, or never used on this device.");
}

void DeviceHeap::retain_pool(c10::MempoolId_t id, bool no_split, bool use_on_oom) {
  TORCH_CHECK_VALUE(id != pool_.id(), "The memory pool (0, 0) is the one that everything uses; it cannot be a private pool.");
  std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& pool : private_pools_) {
    if (pool->id() != id) continue;
    ++pool->use_count;
    return;
  }
  DevicePool& pool = *private_pools_.emplace_back(std::make_unique<DevicePool>(id));
  pool.use_count = 1;
  pool.no_split = no_split;
  pool.use_on_oom = use_on_oom;
}

void DeviceHeap::release_pool(c10::MempoolId_t id) {
  std::lock_guard<std::mutex> lock(mutex_);
  DevicePool& pool = private_pool(id);
  TORCH_CHECK_VALUE(pool.use_count > 0, "The memory pool (", id.first, ", ", id.second, ") was released more often than retained.");
  --pool.use_count;
  drop_pool_if_unused(pool);
}

int DeviceHeap::pool_use_count(c10::MempoolId_t id) {
  std::lock_guard<std::mutex> lock(mutex_);
  return private_pool(id).use_count;
}

void DeviceHeap::begin_routing(c10::MempoolId_t id, StreamFilter filter) {
  std::lock_guard<std::mutex> lock(mutex_);
  const std::thread::id thread = filter ? std::thread::id() : std::this_thread::get_id();
  routes_.push_back({&private_pool(id), thread, std::move(filter)});
}

void DeviceHeap::end_routing(c10::MempoolId_t id) {
  std::lock_guard<std::mutex> lock(mutex_);
  for (size_t i = routes_.size(); i-- > 0;) {
    if (routes_[i].pool->id() != id || (!routes_[i].filter && routes_[i].thread != std::this_thread::get_id())) continue;
    DevicePool& pool = *routes_[i].pool;
    routes_.erase(routes_.begin() + static_cast<std::ptrdiff_t>(i));
    drop_pool_if_unused(pool);
    return;
  }
  TORCH_CHECK_VALUE(false, "No allocations of this thread go to the memory pool (", id.first, ", ", id.second, ").");
}

// ---- Limits and statistics --------------------------------------------------

void DeviceHeap::set_memory_fraction(double fraction) {
  TORCH_CHECK_VALUE(fraction >= 0 && fraction <= 1, "The memory fraction is ", fraction, ", which is not between 0 and 1.");
  std::lock_guard<std::mutex> lock(mutex_);
  fraction_ = fraction;
}

double DeviceHeap::memory_fraction() {
  std::lock_guard<std::mutex> lock(mutex_);
  return fraction_;
}

DeviceStats DeviceHeap::stats() {
  const uint64_t limit = allocator_config().max_split_bytes;
  std::lock_guard<std::mutex> lock(mutex_);
  stats_.max_split_size = static_cast<int64_t>(limit);  // no limit is -1, as on cuda
  return stats_;
}

void DeviceHeap::reset_accumulated_stats() {
  std::lock_guard<std::mutex> lock(mutex_);
  for_each_stat(stats_, [](auto& stat) { stat.reset_accumulated(); });
  stats_.num_alloc_retries = stats_.num_ooms = stats_.num_sync_all_streams = stats_.num_device_alloc = stats_.num_device_free = 0;
}

void DeviceHeap::reset_peak_stats() {
  std::lock_guard<std::mutex> lock(mutex_);
  for_each_stat(stats_, [](auto& stat) { stat.reset_peak(); });
}

}  // namespace openreg
