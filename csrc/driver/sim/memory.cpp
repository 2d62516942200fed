// memory.cpp: reserves the two views, maps and unmaps segments, and answers questions about addresses.
#include "driver/sim/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "driver/sim/capture.h"
#include "driver/sim/device.h"
#include "driver/sim/fault_report.h"
#include "driver/sim/pages.h"
#include "driver/sim/recovery.h"
#include "driver/sim/status.h"

namespace openreg::sim {
namespace {

constexpr uint64_t kMiB = 1u << 20, kGiB = 1u << 30;

// Address space that RLIMIT_AS leaves to the two views: half of what is not in use yet.
uint64_t address_space_budget() {
  rlimit limit;
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return UINT64_MAX;
  unsigned long long pages = 0;
  if (FILE* file = fopen("/proc/self/statm", "re")) {
    if (fscanf(file, "%llu", &pages) != 1) pages = 0;
    fclose(file);
  }
  const uint64_t used = pages * page_bytes();
  return used < limit.rlim_cur ? (limit.rlim_cur - used) / 2 : 0;
}

// Segments keep their descriptor, so that they can be shared, until a quarter of the process's descriptors are taken.
std::atomic<int64_t> kept_descriptors{0};

int keep_or_close(int fd) {
  rlimit limit;
  const int64_t allowed = getrlimit(RLIMIT_NOFILE, &limit) == 0 ? static_cast<int64_t>(std::min<uint64_t>(limit.rlim_cur, 1 << 20) / 4) : 0;
  if (kept_descriptors.fetch_add(1, std::memory_order_relaxed) < allowed) return fd;
  kept_descriptors.fetch_sub(1, std::memory_order_relaxed);
  close(fd);
  return -1;
}

void close_kept(int fd) {
  if (fd < 0) return;
  close(fd);
  kept_descriptors.fetch_sub(1, std::memory_order_relaxed);
}

}  // namespace

bool AddressSpace::reserve(const Options& options) {
  const uint64_t devices = static_cast<uint64_t>(options.devices);
  const uint64_t wanted = round_up(std::max(4 * options.memory_bytes, 64 * kGiB), kLargeSegment);
  const uint64_t budget = address_space_budget();
  uint64_t bytes = wanted;
  if (budget != UINT64_MAX) bytes = std::min(bytes, budget / (2 * devices) / kLargeSegment * kLargeSegment);
  for (; bytes >= kLargeSegment; bytes = bytes / 2 / kLargeSegment * kLargeSegment) {
    // Room to align both views, so that an address of one has the alignment of the other.
    const uint64_t total = bytes * devices;
    void* device = reserve_range(total + kLargeSegment);
    if (device == MAP_FAILED) continue;
    void* kernel = reserve_range(total + kLargeSegment);
    if (kernel == MAP_FAILED) {
      munmap(device, total + kLargeSegment);
      continue;
    }
    hide_from_fork_and_dump(kernel, total + kLargeSegment);
    madvise(device, total + kLargeSegment, MADV_DONTDUMP);
    device_view_ = round_up(reinterpret_cast<uint64_t>(device), kLargeSegment);
    kernel_view_ = round_up(reinterpret_cast<uint64_t>(kernel), kLargeSegment);
    // The slack goes back, so that the views begin and end exactly where the fault report says.
    const auto trim = [total](void* mapped, uint64_t view) {
      const uint64_t start = reinterpret_cast<uint64_t>(mapped), end = start + total + kLargeSegment;
      if (view > start) munmap(mapped, view - start);
      if (end > view + total) munmap(reinterpret_cast<void*>(view + total), end - view - total);
    };
    trim(device, device_view_);
    trim(kernel, kernel_view_);
    bytes_per_device_ = bytes;
    total_bytes_ = total;
    if (bytes < wanted)
      fprintf(stderr,
              "openreg: address space is limited; each device gets %llu MiB of addresses instead of %llu MiB for its %llu MiB of "
              "memory\n",
              static_cast<unsigned long long>(bytes / kMiB), static_cast<unsigned long long>(wanted / kMiB),
              static_cast<unsigned long long>(options.memory_bytes / kMiB));
    fault_report_set_views(device_view_, kernel_view_, bytes, options.devices);
    return true;
  }
  return false;
}

void AddressSpace::release() {
  fault_report_clear_views();
  munmap(reinterpret_cast<void*>(device_view_), total_bytes_);
  munmap(reinterpret_cast<void*>(kernel_view_), total_bytes_);
  total_bytes_ = 0;
}

DeviceMemory::DeviceMemory(int32_t device, uint64_t base, uint64_t range_bytes, intptr_t delta, uint64_t capacity_bytes)
    : device_(device), delta_(delta), capacity_bytes_(std::min(capacity_bytes, range_bytes)), range_(base, range_bytes) {}

DeviceMemory::~DeviceMemory() {
  for (const auto& [base, reservation] : reservations_) close(reservation.fd);
  for (auto& [base, segment] : segments_) {
    fault_report_remove(segment.report_slot);
    close_kept(segment.fd);
  }
}

bool DeviceMemory::map_file(uint64_t at, uint64_t bytes, int fd, uint64_t offset) {
  void* view = reinterpret_cast<void*>(at + static_cast<uint64_t>(delta_));
  const bool mapped =
      mmap(view, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd, static_cast<off_t>(offset)) != MAP_FAILED;
  const int cause = errno;
  if (!mapped) reserve_range(bytes, view);
  hide_from_fork_and_dump(view, bytes);
  if (mapped && bytes >= kLargeSegment) madvise(view, bytes, MADV_HUGEPAGE);
  errno = cause;
  return mapped;
}

bool DeviceMemory::map_segment(uint64_t at, Segment* segment) {
  const int fd = make_memory_file(device_);
  if (fd < 0) return false;
  if (ftruncate(fd, static_cast<off_t>(segment->bytes)) != 0 || !map_file(at, segment->bytes, fd, 0)) {
    const int cause = errno;
    close(fd);
    errno = cause;
    return false;
  }
  segment->fd = keep_or_close(fd);
  return true;
}

openreg_status DeviceMemory::allocate(uint64_t bytes, void** ptr) {
  std::lock_guard<std::mutex> guard(mutex_);
  const uint64_t used = used_bytes();
  const auto refuse = [&](const char* why) {
    return fail(OPENREG_OUT_OF_MEMORY, "device %d: cannot allocate %llu bytes: %s; %llu of %llu bytes are in use", device_,
                static_cast<unsigned long long>(bytes), why, static_cast<unsigned long long>(used),
                static_cast<unsigned long long>(capacity_bytes_));
  };
  if (bytes > capacity_bytes_) return refuse("more than the device has");
  const uint64_t whole = round_up(bytes, page_bytes());
  if (whole > capacity_bytes_ - used) return refuse("its memory is used up");
  fault_report_install();
  const uint64_t at = range_.take(whole, whole >= kLargeSegment ? kLargeSegment : page_bytes());
  if (!at) return refuse("its addresses are fragmented");
  Segment segment{whole, -1, -1, 0};
  if (!map_segment(at, &segment)) {
    const int cause = errno;
    range_.give(at, whole);
    return refuse(strerror(cause));
  }
  segment.report_slot = fault_report_add(at, whole);
  segments_.emplace(at, segment);
  used_bytes_.store(used + whole, std::memory_order_relaxed);
  *ptr = reinterpret_cast<void*>(at);
  return OPENREG_OK;
}

openreg_status DeviceMemory::free(void* ptr) {
  std::lock_guard<std::mutex> guard(mutex_);
  const auto found = segments_.find(reinterpret_cast<uint64_t>(ptr));
  if (found == segments_.end() || found->second.imported || found->second.reservation != 0)
    return fail(OPENREG_INVALID_VALUE, "mem_free: %p is not the start of a live allocation of device %d", ptr, device_);
  used_bytes_.fetch_sub(found->second.bytes, std::memory_order_relaxed);
  unmap_segment(found);
  return OPENREG_OK;
}

bool DeviceMemory::take_away(void* view, uint64_t bytes) {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
  void* mapped = lost_ ? mmap(view, bytes, PROT_READ | PROT_WRITE, flags, -1, 0) : reserve_range(bytes, view);
  if (mapped == MAP_FAILED) return false;
  hide_from_fork_and_dump(view, bytes);
  if (lost_) left_open_.emplace_back(view, bytes);
  return true;
}

void DeviceMemory::begin_loss() {
  std::lock_guard<std::mutex> guard(mutex_);
  lost_ = true;
}

void DeviceMemory::end_loss() {
  std::lock_guard<std::mutex> guard(mutex_);
  lost_ = false;
  for (const auto& [view, bytes] : left_open_) take_away(view, bytes);
  left_open_.clear();
}

void DeviceMemory::unmap_segment(std::map<uint64_t, Segment>::iterator found) {
  const uint64_t at = found->first;
  const Segment segment = found->second;
  void* view = reinterpret_cast<void*>(at + static_cast<uint64_t>(delta_));
  fault_report_remove(segment.report_slot);
  if (take_away(view, segment.bytes)) {
    range_.give(at, segment.bytes);
  } else if (!segment.imported) {
    madvise(view, segment.bytes, MADV_REMOVE);  // no mapping left to give: the pages go, the addresses stay taken
  }
  close_kept(segment.fd);
  segments_.erase(found);
}

openreg_status DeviceMemory::file_of(void* ptr, int* fd, uint64_t* offset, uint64_t* bytes) const {
  std::lock_guard<std::mutex> guard(mutex_);
  const auto found = segments_.find(reinterpret_cast<uint64_t>(ptr));
  if (found == segments_.end() || found->second.imported)
    return fail(OPENREG_INVALID_VALUE, "mem_export: %p is not the start of a live allocation of device %d", ptr, device_);
  *offset = 0;
  *bytes = found->second.bytes;
  if (found->second.reservation != 0) {
    *fd = reservations_.at(found->second.reservation).fd;
    *offset = found->first - found->second.reservation;
    return OPENREG_OK;
  }
  if (found->second.fd < 0)
    return fail(OPENREG_OUT_OF_MEMORY, "mem_export: the process has too few descriptors to share %p; raise RLIMIT_NOFILE (ulimit -n)", ptr);
  *fd = found->second.fd;
  return OPENREG_OK;
}

openreg_status DeviceMemory::map_imported(int fd, uint64_t offset, uint64_t bytes, void** ptr) {
  std::lock_guard<std::mutex> guard(mutex_);
  fault_report_install();
  const uint64_t at = range_.take(bytes, bytes >= kLargeSegment ? kLargeSegment : page_bytes());
  if (!at)
    return fail(OPENREG_OUT_OF_MEMORY, "mem_import: device %d has no addresses left for %llu bytes", device_, static_cast<unsigned long long>(bytes));
  if (!map_file(at, bytes, fd, offset)) {
    const int cause = errno;
    range_.give(at, bytes);
    return fail(OPENREG_OUT_OF_MEMORY, "mem_import: cannot map %llu bytes: %s", static_cast<unsigned long long>(bytes), strerror(cause));
  }
  segments_.emplace(at, Segment{bytes, -1, fault_report_add(at, bytes), 0, true});
  *ptr = reinterpret_cast<void*>(at);
  return OPENREG_OK;
}

openreg_status DeviceMemory::unmap_imported(void* ptr) {
  std::lock_guard<std::mutex> guard(mutex_);
  const auto found = segments_.find(reinterpret_cast<uint64_t>(ptr));
  if (found == segments_.end() || !found->second.imported)
    return fail(OPENREG_INVALID_VALUE, "mem_close: %p is not the start of imported memory of device %d", ptr, device_);
  unmap_segment(found);
  return OPENREG_OK;
}

bool DeviceMemory::find(const void* address, uint64_t* base, uint64_t* bytes) const {
  const uint64_t at = reinterpret_cast<uint64_t>(address);
  std::lock_guard<std::mutex> guard(mutex_);
  auto after = segments_.upper_bound(at);
  if (after == segments_.begin()) return false;
  --after;
  if (at - after->first >= after->second.bytes) return false;
  *base = after->first;
  *bytes = after->second.bytes;
  return true;
}

openreg_status check_device_range(const char* operation, const char* role, int32_t device, const void* address, uint64_t bytes) {
  uint64_t base, length;
  if (!chip().devices[static_cast<size_t>(device)]->memory.find(address, &base, &length))
    return fail(OPENREG_INVALID_VALUE, "%s: %s %p is not in live memory of device %d", operation, role, address, device);
  const uint64_t offset = reinterpret_cast<uint64_t>(address) - base;
  if (bytes > length - offset)
    return fail(OPENREG_INVALID_VALUE,
                "%s: %llu bytes at %s %p reach past the end of the allocation (device %d, base 0x%llx, %llu bytes, offset %llu)",
                operation, static_cast<unsigned long long>(bytes), role, address, device, static_cast<unsigned long long>(base),
                static_cast<unsigned long long>(length), static_cast<unsigned long long>(offset));
  return OPENREG_OK;
}

openreg_status mem_alloc(int32_t device, uint64_t bytes, void** ptr) {
  return entry([&]() -> openreg_status {
    if (!ptr) return fail(OPENREG_INVALID_VALUE, "mem_alloc: ptr is null");
    if (openreg_status status = check_device("mem_alloc", device)) return status;
    if (openreg_status status = refuse_unsafe("mem_alloc")) return status;
    if (bytes == 0) return fail(OPENREG_INVALID_VALUE, "mem_alloc: bytes is 0");
    Device& on = *chip().devices[static_cast<size_t>(device)];
    if (openreg_status status = refuse_lost("mem_alloc", on)) return status;
    return on.memory.allocate(bytes, ptr);
  });
}

openreg_status mem_free(int32_t device, void* ptr) {
  return entry([&]() -> openreg_status {
    if (openreg_status status = check_device("mem_free", device)) return status;
    if (openreg_status status = refuse_unsafe("mem_free")) return status;
    return chip().devices[static_cast<size_t>(device)]->memory.free(ptr);
  });
}

openreg_status mem_info(int32_t device, uint64_t* free_bytes, uint64_t* total_bytes) {
  return entry([&]() -> openreg_status {
    if (!free_bytes || !total_bytes) return fail(OPENREG_INVALID_VALUE, "mem_info: free_bytes or total_bytes is null");
    if (openreg_status status = check_device("mem_info", device)) return status;
    const DeviceMemory& memory = chip().devices[static_cast<size_t>(device)]->memory;
    *total_bytes = memory.capacity_bytes();
    *free_bytes = memory.capacity_bytes() - memory.used_bytes();
    return OPENREG_OK;
  });
}

openreg_status mem_query(const void* ptr, int32_t* device, void** base, uint64_t* bytes) {
  return entry([&]() -> openreg_status {
    const int32_t owner = chip().address_space.device_of(ptr);
    uint64_t start, length;
    if (owner < 0 || !chip().devices[static_cast<size_t>(owner)]->memory.find(ptr, &start, &length))
      return fail(OPENREG_INVALID_VALUE, "mem_query: %p is not in live device memory", ptr);
    if (device) *device = owner;
    if (base) *base = reinterpret_cast<void*>(start);
    if (bytes) *bytes = length;
    return OPENREG_OK;
  });
}

openreg_status mem_kernel_view(int32_t device, intptr_t* delta) {
  return entry([&]() -> openreg_status {
    if (!delta) return fail(OPENREG_INVALID_VALUE, "mem_kernel_view: delta is null");
    if (openreg_status status = check_device("mem_kernel_view", device)) return status;
    if (!chip().options.kernel_view) return fail(OPENREG_UNSUPPORTED, "mem_kernel_view: the option kernel_view is off");
    *delta = chip().address_space.delta();
    return OPENREG_OK;
  });
}

}  // namespace openreg::sim
