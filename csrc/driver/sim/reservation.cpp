// reservation.cpp: memory that grows. A reservation is a range of addresses and one sparse memfd of its length; mapping shows a part of
// the file in the kernel view, unmapping punches it out.
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "driver/sim/capture.h"
#include "driver/sim/device.h"
#include "driver/sim/fault_report.h"
#include "driver/sim/memory.h"
#include "driver/sim/pages.h"
#include "driver/sim/recovery.h"
#include "driver/sim/status.h"

namespace openreg::sim {
namespace {

unsigned long long number(uint64_t value) { return value; }

}  // namespace

openreg_status DeviceMemory::reserve(uint64_t bytes, void** ptr) {
  if (bytes == 0 || bytes % page_bytes() != 0)
    return fail(OPENREG_INVALID_VALUE, "mem_reserve: %llu bytes are no multiple of the granularity, %llu", number(bytes), number(page_bytes()));
  std::lock_guard<std::mutex> guard(mutex_);
  const uint64_t at = range_.take(bytes, kLargeSegment);
  if (!at) return fail(OPENREG_OUT_OF_MEMORY, "mem_reserve: device %d has no %llu bytes of addresses left", device_, number(bytes));
  const int fd = make_memory_file(device_);
  if (fd < 0 || ftruncate(fd, static_cast<off_t>(bytes)) != 0) {
    const int cause = errno;
    if (fd >= 0) close(fd);
    range_.give(at, bytes);
    return fail(OPENREG_OUT_OF_MEMORY, "mem_reserve: device %d: no file for %llu bytes: %s", device_, number(bytes), strerror(cause));
  }
  fault_report_install();
  reservations_.emplace(at, Reservation{bytes, fd});
  *ptr = reinterpret_cast<void*>(at);
  return OPENREG_OK;
}

openreg_status DeviceMemory::unreserve(void* ptr) {
  std::lock_guard<std::mutex> guard(mutex_);
  const auto found = reservations_.find(reinterpret_cast<uint64_t>(ptr));
  if (found == reservations_.end())
    return fail(OPENREG_INVALID_VALUE, "mem_unreserve: %p is not the start of a reservation of device %d", ptr, device_);
  const auto mapped = segments_.lower_bound(found->first);
  if (mapped != segments_.end() && mapped->second.reservation == found->first)
    return fail(OPENREG_INVALID_VALUE, "mem_unreserve: memory is still mapped in the reservation at %p of device %d", ptr, device_);
  close(found->second.fd);
  range_.give(found->first, found->second.bytes);
  reservations_.erase(found);
  return OPENREG_OK;
}

std::map<uint64_t, Reservation>::iterator DeviceMemory::reservation_around(uint64_t at, uint64_t bytes) {
  auto after = reservations_.upper_bound(at);
  if (after == reservations_.begin()) return reservations_.end();
  --after;
  const uint64_t offset = at - after->first;
  if (offset >= after->second.bytes || bytes > after->second.bytes - offset) return reservations_.end();
  return after;
}

void DeviceMemory::add_mapped(uint64_t at, uint64_t bytes, uint64_t reservation) {
  segments_.emplace(at, Segment{bytes, -1, fault_report_add(at, bytes), reservation});
}

openreg_status DeviceMemory::map(void* ptr, uint64_t bytes) {
  uint64_t at = reinterpret_cast<uint64_t>(ptr);
  std::lock_guard<std::mutex> guard(mutex_);
  const auto found = reservation_around(at, bytes);
  if (bytes == 0 || bytes % page_bytes() != 0 || at % page_bytes() != 0 || found == reservations_.end())
    return fail(OPENREG_INVALID_VALUE, "mem_map: %llu bytes at %p are no pages of one reservation of device %d", number(bytes), ptr, device_);
  const uint64_t base = found->first;
  auto next = segments_.lower_bound(at);
  auto previous = next == segments_.begin() ? segments_.end() : std::prev(next);
  const bool above = next != segments_.end() && next->first < at + bytes;
  const bool below = previous != segments_.end() && previous->first + previous->second.bytes > at;
  if (above || below) return fail(OPENREG_INVALID_VALUE, "mem_map: part of %llu bytes at %p of device %d is mapped", number(bytes), ptr, device_);
  const uint64_t used = used_bytes();
  if (bytes > capacity_bytes_ - used)
    return fail(OPENREG_OUT_OF_MEMORY, "device %d: cannot map %llu bytes: its memory is used up; %llu of %llu bytes are in use", device_,
                number(bytes), number(used), number(capacity_bytes_));

  void* view = reinterpret_cast<void*>(at + static_cast<uint64_t>(delta_));
  if (mmap(view, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, found->second.fd, static_cast<off_t>(at - base)) ==
      MAP_FAILED) {
    const int cause = errno;
    reserve_range(bytes, view);
    hide_from_fork_and_dump(view, bytes);
    return fail(OPENREG_OUT_OF_MEMORY, "device %d: cannot map %llu bytes: %s", device_, number(bytes), strerror(cause));
  }
  hide_from_fork_and_dump(view, bytes);
  madvise(view, bytes, MADV_HUGEPAGE);
  used_bytes_.store(used + bytes, std::memory_order_relaxed);

  if (next != segments_.end() && next->second.reservation == base && next->first == at + bytes) {
    bytes += next->second.bytes;
    fault_report_remove(next->second.report_slot);
    segments_.erase(next);
  }
  if (previous != segments_.end() && previous->second.reservation == base && previous->first + previous->second.bytes == at) {
    at = previous->first;
    bytes += previous->second.bytes;
    fault_report_remove(previous->second.report_slot);
    segments_.erase(previous);
  }
  add_mapped(at, bytes, base);
  return OPENREG_OK;
}

openreg_status DeviceMemory::unmap(void* ptr, uint64_t bytes) {
  const uint64_t at = reinterpret_cast<uint64_t>(ptr);
  std::lock_guard<std::mutex> guard(mutex_);
  const auto found = reservation_around(at, bytes);
  auto mapped = segments_.upper_bound(at);
  mapped = mapped == segments_.begin() ? segments_.end() : std::prev(mapped);
  if (bytes == 0 || bytes % page_bytes() != 0 || at % page_bytes() != 0 || found == reservations_.end() || mapped == segments_.end() ||
      mapped->second.reservation != found->first || at + bytes > mapped->first + mapped->second.bytes)
    return fail(OPENREG_INVALID_VALUE, "mem_unmap: %llu bytes at %p of device %d are no pages that mem_map mapped", number(bytes), ptr, device_);

  const uint64_t begin = mapped->first, end = begin + mapped->second.bytes;
  void* view = reinterpret_cast<void*>(at + static_cast<uint64_t>(delta_));
  if (!take_away(view, bytes))  // no mapping left to give
    return fail(OPENREG_OUT_OF_MEMORY, "mem_unmap: device %d: %s", device_, strerror(errno));
  fallocate(found->second.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(at - found->first), static_cast<off_t>(bytes));
  fault_report_remove(mapped->second.report_slot);
  segments_.erase(mapped);
  if (begin < at) add_mapped(begin, at - begin, found->first);
  if (at + bytes < end) add_mapped(at + bytes, end - at - bytes, found->first);
  used_bytes_.fetch_sub(bytes, std::memory_order_relaxed);
  return OPENREG_OK;
}

openreg_status mem_reserve(int32_t device, uint64_t bytes, void** ptr) {
  return entry([&]() -> openreg_status {
    if (!ptr) return fail(OPENREG_INVALID_VALUE, "mem_reserve: ptr is null");
    if (openreg_status status = check_device("mem_reserve", device)) return status;
    if (openreg_status status = refuse_unsafe("mem_reserve")) return status;
    return chip().devices[static_cast<size_t>(device)]->memory.reserve(bytes, ptr);
  });
}

openreg_status mem_unreserve(int32_t device, void* ptr) {
  return entry([&]() -> openreg_status {
    if (openreg_status status = check_device("mem_unreserve", device)) return status;
    if (openreg_status status = refuse_unsafe("mem_unreserve")) return status;
    return chip().devices[static_cast<size_t>(device)]->memory.unreserve(ptr);
  });
}

openreg_status mem_map(int32_t device, void* ptr, uint64_t bytes) {
  return entry([&]() -> openreg_status {
    if (openreg_status status = check_device("mem_map", device)) return status;
    if (openreg_status status = refuse_unsafe("mem_map")) return status;
    Device& on = *chip().devices[static_cast<size_t>(device)];
    if (openreg_status status = refuse_lost("mem_map", on)) return status;
    return on.memory.map(ptr, bytes);
  });
}

openreg_status mem_unmap(int32_t device, void* ptr, uint64_t bytes) {
  return entry([&]() -> openreg_status {
    if (openreg_status status = check_device("mem_unmap", device)) return status;
    if (openreg_status status = refuse_unsafe("mem_unmap")) return status;
    return chip().devices[static_cast<size_t>(device)]->memory.unmap(ptr, bytes);
  });
}

}  // namespace openreg::sim
