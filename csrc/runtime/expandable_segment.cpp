// Reserving and mapping through the HAL.
#include "runtime/expandable_segment.h"

#include <algorithm>

#include "runtime/driver.h"

namespace openreg {

namespace {

uint64_t round_up(uint64_t bytes) {
  constexpr uint64_t kPage = ExpandableSegment::kPage;
  return (bytes + kPage - 1) / kPage * kPage;
}

}  // namespace

std::unique_ptr<ExpandableSegment> ExpandableSegment::reserve(c10::DeviceIndex device, uint64_t least) {
  const openreg_driver& table = hal();
  if (!has_entry(table, &openreg_driver::mem_reserve)) return nullptr;
  uint64_t free_bytes = 0, total_bytes = 0;
  check(table.mem_info(driver_device(device), &free_bytes, &total_bytes), "Reading the device's free memory");
  // A quarter of the device, so that several streams and pools have one each in a range of addresses a few times its memory.
  least = round_up(least);
  for (uint64_t bytes = std::max(least, round_up(total_bytes / 4)); bytes >= least; bytes = round_up(bytes / 2)) {
    void* address = nullptr;
    const openreg_status status = table.mem_reserve(driver_device(device), bytes, &address);
    if (status == OPENREG_OK) {
      return std::unique_ptr<ExpandableSegment>(new ExpandableSegment(device, static_cast<char*>(address), bytes));
    }
    if (status == OPENREG_UNSUPPORTED || bytes == kPage) return nullptr;
    if (status != OPENREG_OUT_OF_MEMORY) check(status, "Reserving device addresses");
  }
  return nullptr;
}

ExpandableSegment::~ExpandableSegment() { hal().mem_unreserve(driver_device(device_), address_); }

bool ExpandableSegment::map(char* at, uint64_t size_bytes) {
  const openreg_status status = hal().mem_map(driver_device(device_), at, size_bytes);
  if (status == OPENREG_OUT_OF_MEMORY) return false;
  check(status, "Mapping device memory");
  mapped_bytes_ += size_bytes;
  return true;
}

void ExpandableSegment::unmap(char* at, uint64_t size_bytes) {
  check(hal().mem_unmap(driver_device(device_), at, size_bytes), "Unmapping device memory");
  mapped_bytes_ -= size_bytes;
}

}  // namespace openreg
