// memory.h: device memory as two views of the same pages.
//
// Torch sees addresses of the device view, which nobody can read or write. Code that runs on the
// device adds one constant and reaches the same bytes in the kernel view. See Note [Two views].
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "driver/sim/address_range.h"
#include "driver/sim/options.h"
#include "hal/openreg_hal.h"

namespace openreg::sim {

// Note [Two views]
// All devices share two reservations of address space of the same length, so that one constant leads from
// one view to the other on every device. The device view stays PROT_NONE for the life of the driver: a host
// access faults always, on every thread, without a lock or an mprotect. A segment (one mem_alloc) is a
// memfd of its own, mapped into the kernel view only. Freeing it puts anonymous PROT_NONE pages back, which
// returns the memory to the system. The kernel view is invisible to forked children and core dumps.
class AddressSpace {
 public:
  // Reserves several times options.memory_bytes for each device, less (with a message on stderr) when address space is
  // limited. False when nothing could be reserved.
  bool reserve(const Options& options);
  void release();

  uint64_t device_view() const { return device_view_; }
  uint64_t bytes_per_device() const { return bytes_per_device_; }
  intptr_t delta() const { return static_cast<intptr_t>(kernel_view_ - device_view_); }

  // The device whose view holds the address, or -1.
  int32_t device_of(const void* address) const {
    const uint64_t offset = reinterpret_cast<uint64_t>(address) - device_view_;
    return offset < total_bytes_ ? static_cast<int32_t>(offset / bytes_per_device_) : -1;
  }

 private:
  uint64_t device_view_ = 0, kernel_view_ = 0, bytes_per_device_ = 0, total_bytes_ = 0;
};

struct Segment {
  uint64_t bytes;       // whole pages
  int fd;               // kept for sharing; -1 when the process is short of descriptors
  int32_t report_slot;  // in the fault report's table
  uint64_t reservation; // where the reservation begins in which these pages are mapped; 0: from mem_alloc
  bool imported = false;  // from another process: its pages are not counted here
};

// Addresses for memory that grows. Its mapped pages, where they lie side by side, are one Segment.
struct Reservation {
  uint64_t bytes;
  int fd;  // a sparse file of that length
};

// The memory of one device. Any thread.
class DeviceMemory {
 public:
  DeviceMemory(int32_t device, uint64_t base, uint64_t range_bytes, intptr_t delta, uint64_t capacity_bytes);
  ~DeviceMemory();  // forgets the segments; the pages go with the address space

  openreg_status allocate(uint64_t bytes, void** ptr);
  openreg_status free(void* ptr);

  // reservation.cpp
  openreg_status reserve(uint64_t bytes, void** ptr);
  openreg_status unreserve(void* ptr);
  openreg_status map(void* ptr, uint64_t bytes);
  openreg_status unmap(void* ptr, uint64_t bytes);

  // Where the segment that begins at ptr lies in which file, for another process; INVALID_VALUE when there is none or it is imported.
  openreg_status file_of(void* ptr, int* fd, uint64_t* offset, uint64_t* bytes) const;

  // Maps a part of another process's file; the descriptor stays the caller's. unmap_imported takes it away again.
  openreg_status map_imported(int fd, uint64_t offset, uint64_t bytes, void** ptr);
  openreg_status unmap_imported(void* ptr);

  // Between the two a task that was given up may still write: pages that are freed are replaced by pages of nobody, not by a trap.
  void begin_loss();
  void end_loss();

  uint64_t capacity_bytes() const { return capacity_bytes_; }
  uint64_t used_bytes() const { return used_bytes_.load(std::memory_order_relaxed); }

  // The live segment around an address. False when there is none.
  bool find(const void* address, uint64_t* base, uint64_t* bytes) const;

 private:
  bool map_segment(uint64_t at, Segment* segment);
  void add_mapped(uint64_t at, uint64_t bytes, uint64_t reservation);
  std::map<uint64_t, Reservation>::iterator reservation_around(uint64_t at, uint64_t bytes);
  bool map_file(uint64_t at, uint64_t bytes, int fd, uint64_t offset);
  void unmap_segment(std::map<uint64_t, Segment>::iterator found);
  bool take_away(void* view, uint64_t bytes);

  const int32_t device_;
  const intptr_t delta_;
  const uint64_t capacity_bytes_;
  std::atomic<uint64_t> used_bytes_{0};
  mutable std::mutex mutex_;
  AddressRange range_;                     // LOCK: mutex_
  std::map<uint64_t, Segment> segments_;   // LOCK: mutex_. By device address
  std::map<uint64_t, Reservation> reservations_;  // LOCK: mutex_. By device address
  bool lost_ = false;                      // LOCK: mutex_
  std::vector<std::pair<void*, uint64_t>> left_open_;  // LOCK: mutex_. Freed since the loss: kernel-view address, bytes
};

// INVALID_VALUE with a sentence unless [address, address + bytes) lies in one live segment of the device.
// `role` names the argument, `operation` the entry.
openreg_status check_device_range(const char* operation, const char* role, int32_t device, const void* address, uint64_t bytes);

openreg_status mem_alloc(int32_t device, uint64_t bytes, void** ptr);
openreg_status mem_free(int32_t device, void* ptr);
openreg_status mem_info(int32_t device, uint64_t* free_bytes, uint64_t* total_bytes);
openreg_status mem_query(const void* ptr, int32_t* device, void** base, uint64_t* bytes);
openreg_status mem_kernel_view(int32_t device, intptr_t* delta);
openreg_status mem_reserve(int32_t device, uint64_t bytes, void** ptr);
openreg_status mem_unreserve(int32_t device, void* ptr);
openreg_status mem_map(int32_t device, void* ptr, uint64_t bytes);
openreg_status mem_unmap(int32_t device, void* ptr, uint64_t bytes);

}  // namespace openreg::sim
