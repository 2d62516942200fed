// The heap's dealings with the driver: new segments, segments that grow, giving memory back, and running out of it.
#include <c10/util/Exception.h>

#include <algorithm>
#include <utility>

#include "runtime/capture.h"
#include "runtime/device.h"
#include "runtime/device_heap.h"
#include "runtime/driver.h"
#include "runtime/interpreter_lock.h"
#include "runtime/sanitizer.h"
#include "runtime/ipc.h"
#include "runtime/out_of_memory.h"
#include "runtime/stream.h"

namespace openreg {

namespace {

using c10::CachingDeviceAllocator::TraceEntry;

constexpr uint64_t kPage = ExpandableSegment::kPage;

uint64_t round_up(uint64_t bytes, uint64_t step) { return (bytes + step - 1) / step * step; }

uint64_t free_bytes_of(const Block* block) { return block != nullptr && block->state == BlockState::free ? block->size_bytes : 0; }

// The least that the driver must have for the request to be served from a new segment.
uint64_t least_segment(uint64_t size_bytes, bool large, uint64_t granularity_bytes) {
  if (!large) return kSmallSegment;
  return round_up(size_bytes, size_bytes < kOwnSegment ? std::max(kFineSegmentStep, granularity_bytes) : kSegmentStep);
}

}  // namespace

// A free block that serves the request, in the lists, when they had none: from new memory, if need be after a flush, and then from
// pools that lend theirs. Null when there is none.
Block* DeviceHeap::grow(const Request& request, Lock& lock) {
  const uint64_t least = request.cached ? least_segment(request.size_bytes, request.large, granularity_bytes_)
                                        : round_up(request.size_bytes, granularity_bytes_);
  const bool possible = static_cast<double>(least) <= fraction_ * static_cast<double>(total_bytes_);
  if (request.config.garbage_collection_threshold > 0) collect_garbage(request, lock);
  if (possible) give_back_outgrown(request, lock);
  if (Block* block = from_driver(request)) return block;
  if (possible) {
    ++stats_.num_alloc_retries;
    flush({0, 0}, lock);
    Block* block = request.cached ? find_free(request.home, request) : nullptr;
    if (block == nullptr) block = from_driver(request);
    if (block != nullptr) return block;
  }
  for (const auto& pool : private_pools_) {
    if (!pool->use_on_oom || pool.get() == &request.home.pool()) continue;
    if (Block* block = find_free(pool->of(request.home.stream()), request)) return block;
  }
  return nullptr;
}

// New memory as one free block in the lists; null when the driver has none. Where a segment of the usual size does not fit any more, one
// that just fits the request is tried.
Block* DeviceHeap::from_driver(const Request& request) {
  const RelaxedCapture relaxed;
  if (!request.cached) return new_segment(request, round_up(request.size_bytes, granularity_bytes_));
  if (request.config.expandable_segments && !request.home.pool().no_split) {
    if (Block* block = extend(request)) return block;
  }
  const uint64_t least = least_segment(request.size_bytes, request.large, granularity_bytes_);
  const uint64_t usual = request.large && request.size_bytes < kOwnSegment ? std::max(least, request.config.large_segment_bytes) : least;
  Block* block = new_segment(request, usual);
  return block == nullptr && least < usual ? new_segment(request, least) : block;
}

Block* DeviceHeap::new_segment(const Request& request, uint64_t size_bytes) {
  void* address = nullptr;
  if (!allowed(size_bytes)) return nullptr;
  const openreg_status status = hal().mem_alloc(driver_device(device_), size_bytes, &address);
  if (status == OPENREG_OUT_OF_MEMORY) return nullptr;
  check(status, "Allocating device memory");
  Block* block = arena_.make();
  table_.set(address, block);
  block->address = static_cast<char*>(address);
  block->size_bytes = size_bytes;
  block->home = &request.home;
  block->large = request.large;
  block->cached = request.cached;
  block->segment_context = request.context;
  block->oversize_segment = size_bytes >= request.config.max_split_bytes;
  if (block->oversize_segment) stats_.oversize_segments.increase(1);
  add(stats_.segment, block->large, 1);
  ++request.home.segments;
  count_reserved(request.home.pool(), block->large, size_bytes);
  record(TraceEntry::SEGMENT_ALLOC, *block, size_bytes, request.context);
  insert_free(block);
  return block;
}

bool DeviceHeap::allowed(uint64_t more_bytes) const {
  if (fraction_ == 1) return true;
  return static_cast<double>(stats_.reserved_bytes[0].current) + static_cast<double>(more_bytes) <=
         fraction_ * static_cast<double>(total_bytes_);
}

void DeviceHeap::count_reserved(DevicePool& pool, bool large, uint64_t size_bytes) {
  ++stats_.num_device_alloc;
  add(stats_.reserved_bytes, large, size_bytes);
  if (pool.is_private()) add(stats_.reserved_bytes_by_private_pools[pool.id()], large, size_bytes);
}

void DeviceHeap::count_given_back(DevicePool& pool, bool large, uint64_t size_bytes) {
  ++stats_.num_device_free;
  subtract(stats_.reserved_bytes, large, size_bytes);
  if (pool.is_private()) subtract(stats_.reserved_bytes_by_private_pools[pool.id()], large, size_bytes);
}

// ---- Note [Expandable segments] ---------------------------------------------

Block* DeviceHeap::extend(const Request& request) {
  for (Block* hole : request.home.holes(request.large)) {
    const uint64_t lower = free_bytes_of(hole->lower);
    if (lower + hole->size_bytes + free_bytes_of(hole->upper) < request.size_bytes) continue;
    const uint64_t missing = request.size_bytes > lower ? request.size_bytes - lower : kPage;
    if (Block* block = map_hole(hole, request, std::min(hole->size_bytes, round_up(missing, kPage)))) return block;
  }
  std::unique_ptr<ExpandableSegment> segment = ExpandableSegment::reserve(device_, request.size_bytes);
  if (segment == nullptr) return nullptr;
  Block* hole = arena_.make();
  hole->state = BlockState::unmapped;
  hole->address = segment->address();
  hole->size_bytes = segment->size_bytes();
  hole->home = &request.home;
  hole->large = request.large;
  hole->expandable = segment.get();
  request.home.insert_hole(hole);
  expandable_.push_back(std::move(segment));
  Block* block = map_hole(hole, request, round_up(request.size_bytes, kPage));
  if (block == nullptr) release_hole(hole);
  return block;
}

// Maps the hole's first size_bytes and joins them with the free blocks beside them: a block in the lists. Null when there is no memory.
Block* DeviceHeap::map_hole(Block* hole, const Request& request, uint64_t size_bytes) {
  ExpandableSegment& segment = *hole->expandable;
  if (!allowed(size_bytes) || !segment.map(hole->address, size_bytes)) return nullptr;
  hole->home->remove_hole(hole);
  if (size_bytes < hole->size_bytes) {
    Block* rest = split(hole, size_bytes);
    table_.set(rest->address, nullptr);
    rest->state = BlockState::unmapped;
    rest->home->insert_hole(rest);
  }
  Block* block = hole;
  table_.set(block->address, block);
  block->segment_context = request.context;
  DevicePool& pool = block->home->pool();
  if (segment.mapped_bytes() == size_bytes) {
    add(stats_.segment, block->large, 1);
    ++block->home->segments;
  }
  count_reserved(pool, block->large, size_bytes);
  record(TraceEntry::SEGMENT_MAP, *block, size_bytes, request.context);
  block = merge(block);
  insert_free(block);
  return block;
}

// Unmaps the whole pages inside a free block.
void DeviceHeap::unmap_pages(Block* block) {
  ExpandableSegment& segment = *block->expandable;
  const uint64_t offset = static_cast<uint64_t>(block->address - segment.address());
  const uint64_t begin = round_up(offset, kPage), end = (offset + block->size_bytes) / kPage * kPage;
  block->idle_epoch = 0;
  if (begin >= end) return;
  segment.unmap(segment.address() + begin, end - begin);
  remove_free(block);
  Block* hole = block;
  if (begin > offset) {
    hole = split(block, begin - offset);
    insert_free(block);
  }
  if (hole->size_bytes > end - begin) insert_free(split(hole, end - begin));
  record(TraceEntry::SEGMENT_UNMAP, *hole, hole->size_bytes, hole->segment_context);
  count_given_back(hole->home->pool(), hole->large, hole->size_bytes);
  hole->state = BlockState::unmapped;
  table_.set(hole->address, nullptr);

  FreeBlocks& home = *hole->home;
  if (hole->upper != nullptr && hole->upper->state == BlockState::unmapped) {
    home.remove_hole(hole->upper);
    absorb_upper(hole);
  }
  if (hole->lower != nullptr && hole->lower->state == BlockState::unmapped) {
    hole = hole->lower;
    home.remove_hole(hole);
    absorb_upper(hole);
  }
  home.insert_hole(hole);
  if (segment.mapped_bytes() != 0) return;
  subtract(stats_.segment, hole->large, 1);
  --hole->home->segments;
  release_hole(hole);
}

// Ends an expandable segment of which nothing is mapped.
void DeviceHeap::release_hole(Block* hole) {
  hole->home->remove_hole(hole);
  expandable_.erase(std::find_if(expandable_.begin(), expandable_.end(), [&](const auto& segment) { return segment.get() == hole->expandable; }));
  arena_.recycle(hole);
}

// ---- Note [Giving segments back] --------------------------------------------

void DeviceHeap::empty_cache(c10::MempoolId_t pool) {
  const WithoutInterpreterLock released;
  Lock lock(mutex_);
  flush(pool, lock);
}

// Frees pending blocks and gives free memory back. Releases the mutex while it waits.
void DeviceHeap::flush(c10::MempoolId_t scope, Lock& lock) {
  if (captures_underway()) return;  // no wait is legal then, and cached memory may belong to what is captured
  await_pending(lock);
  give_back_idle(releasable(scope), scope, lock);
}

void DeviceHeap::await_pending(Lock& lock) {
  ++stats_.num_sync_all_streams;
  unlocked(lock, collect_shared_memory);  // blocks that other processes have finished with
  std::vector<std::pair<c10::Stream, std::shared_ptr<Event>>> awaited;
  for (const WaitingQueue& queue : queues_) {
    if (!queue.waiting.empty()) awaited.emplace_back(queue.stream, queue.waiting.back().event);
  }
  if (awaited.empty()) return;
  unlocked(lock, [&] {
    const RuntimeWait wait;
    for (const auto& [stream, last] : awaited) stream_exists(stream.id()) ? synchronize_stream(stream) : last->synchronize();
  });
  collect_completed(lock);
}

// The free blocks of a pool, {0, 0} and those that nobody counts on, or a private one, that can go back to the driver.
std::vector<Block*> DeviceHeap::releasable(c10::MempoolId_t scope) const {
  std::vector<Block*> blocks;
  const bool common = scope == pool_.id();
  if (common) pool_.append_releasable(blocks);
  for (const auto& pool : private_pools_) {
    if (common ? pool->use_count == 0 : pool->id() == scope) pool->append_releasable(blocks);
  }
  return blocks;
}

void DeviceHeap::give_back_idle(const std::vector<Block*>& chosen, c10::MempoolId_t scope, Lock& lock) {
  if (chosen.empty()) return;
  const uint64_t epoch = ++epoch_;
  for (Block* block : chosen) {
    if (block->idle_epoch == 0) block->idle_epoch = epoch;
  }
  try {
    unlocked(lock, [&] {
      const RuntimeWait wait;
      synchronize_device(device_);
    });
  } catch (...) {
    for (Block* block : releasable(scope)) {
      if (block->idle_epoch == epoch) block->idle_epoch = 0;
    }
    throw;
  }
  for (Block* block : releasable(scope)) {
    if (block->idle_epoch != 0 && block->idle_epoch <= epoch) give_back(block);
  }
}

void DeviceHeap::give_back(Block* block) {
  const RelaxedCapture relaxed;
  DevicePool& pool = block->home->pool();
  if (block->expandable != nullptr) {
    unmap_pages(block);
  } else {
    check(hal().mem_free(driver_device(device_), block->address), "Freeing device memory");
    table_.set(block->address, nullptr);
    subtract(stats_.segment, block->large, 1);
    --block->home->segments;
    if (block->oversize_segment) stats_.oversize_segments.decrease(1);
    count_given_back(pool, block->large, block->size_bytes);
    record(TraceEntry::SEGMENT_FREE, *block, block->size_bytes, block->segment_context);
    remove_free(block);
    arena_.recycle(block);
  }
  drop_pool_if_unused(pool);
}

// Gives cached segments of the large pool back, the longest unused first, until reserved memory is below the threshold.
void DeviceHeap::collect_garbage(const Request& request, Lock& lock) {
  const double threshold = request.config.garbage_collection_threshold * fraction_ * static_cast<double>(total_bytes_);
  double excess = static_cast<double>(stats_.reserved_bytes[0].current) - threshold;
  if (excess <= 0 || captures_underway()) return;
  std::vector<Block*> idle = releasable({0, 0});
  std::erase_if(idle, [](const Block* block) { return !block->large || !block->whole_segment(); });
  std::sort(idle.begin(), idle.end(), [](const Block* a, const Block* b) { return a->freed_at < b->freed_at; });
  size_t count = 0;
  for (; count < idle.size() && excess > 0; ++count) excess -= static_cast<double>(idle[count]->size_bytes);
  idle.resize(count);
  give_back_idle(idle, {0, 0}, lock);
}

// Note [Outgrown segments]. Without an event, as on a lost device, nothing goes back.
void DeviceHeap::give_back_outgrown(const Request& request, Lock& lock) {
  FreeBlocks& home = request.home;
  if (!request.cached || !request.large || home.pool().is_private() || captures_underway()) return;
  std::vector<Block*> outgrown;
  home.append_outgrown(outgrown, request.size_bytes);
  if (outgrown.empty()) return;
  const c10::Stream stream(c10::Stream::UNSAFE, c10::Device(c10::DeviceType::PrivateUse1, device_), home.stream());
  Event passed = std::move(home.passed);  // for this thread alone: the driver may run a queued task when it is asked
  uint64_t passed_at = std::exchange(home.passed_at, 0);
  bool complete = false;
  const uint64_t now = allocations_;
  try {
    unlocked(lock, [&] {
      if (passed_at == 0) passed.record(stream);
      const RuntimeWait wait;
      complete = passed.query();
    });
  } catch (const std::exception&) {
    return;
  }
  if (passed_at == 0) passed_at = now;
  if (!complete) home.passed_at = passed_at;
  if (!complete || home.passed_at == 0) home.passed = std::move(passed);
  if (!complete) return;
  outgrown.clear();
  home.append_outgrown(outgrown, request.size_bytes);
  uint64_t given_back = 0;
  for (Block* block : outgrown) {
    if (block->freed_at >= passed_at) continue;
    given_back += block->size_bytes;
    give_back(block);
    if (given_back >= request.size_bytes) return;
  }
}

// A pool of which nothing is left and that nobody can name any more. Its count goes with it: a program that makes a pool for each of its
// graphs would have statistics that grow without end.
void DeviceHeap::drop_pool_if_unused(DevicePool& pool) {
  if (!pool.is_private() || pool.use_count != 0 || pool.has_segments() || pool.allocating != 0) return;
  if (std::any_of(routes_.begin(), routes_.end(), [&](const Route& route) { return route.pool == &pool; })) return;
  stats_.reserved_bytes_by_private_pools.erase(pool.id());
  private_pools_.erase(std::find_if(private_pools_.begin(), private_pools_.end(), [&](const auto& entry) { return entry.get() == &pool; }));
}

void DeviceHeap::fail(const Request& request, Lock& lock) {
  ++stats_.num_ooms;
  OutOfMemory facts{};
  facts.device = device_;
  facts.requested_bytes = request.bytes;
  facts.allowed_bytes = static_cast<uint64_t>(fraction_ * static_cast<double>(total_bytes_));
  facts.allocated_bytes = static_cast<uint64_t>(stats_.allocated_bytes[0].current);
  facts.reserved_bytes = static_cast<uint64_t>(stats_.reserved_bytes[0].current);
  for (const auto& [pool, reserved] : stats_.reserved_bytes_by_private_pools) facts.private_pool_bytes += static_cast<uint64_t>(reserved[0].current);
  hal().mem_info(driver_device(device_), &facts.free_bytes, &facts.total_bytes);
  if (MemoryRecorder* recorder = memory_recorder.load(std::memory_order_acquire)) {
    const FreeBlocks& home = request.home;
    recorder->record({TraceEntry::OOM, device_, facts.free_bytes, request.bytes, home.stream(), home.pool().id()}, request.context);
  }
  unlocked(lock, [&] { throw_out_of_memory(facts); });
}

}  // namespace openreg
