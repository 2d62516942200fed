// A segment that grows: a range of device addresses behind which the heap maps memory as it needs it, and takes it away page by page.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <memory>

namespace openreg {

// LOCK: the heap's mutex.
class ExpandableSegment {
 public:
  static constexpr uint64_t kPage = uint64_t{2} << 20;  // bytes; what is mapped and unmapped is a multiple

  // Reserves at least `least` bytes, several times more where addresses allow it. Null when the driver cannot reserve or has no
  // addresses left.
  static std::unique_ptr<ExpandableSegment> reserve(c10::DeviceIndex device, uint64_t least);

  // Nothing is mapped any more.
  ~ExpandableSegment();
  ExpandableSegment(const ExpandableSegment&) = delete;

  char* address() const { return address_; }
  uint64_t size_bytes() const { return size_bytes_; }
  uint64_t mapped_bytes() const { return mapped_bytes_; }

  // Puts memory behind whole pages that have none. False when the device has not enough.
  bool map(char* at, uint64_t size_bytes);
  void unmap(char* at, uint64_t size_bytes);

 private:
  ExpandableSegment(c10::DeviceIndex device, char* address, uint64_t size_bytes)
      : device_(device), address_(address), size_bytes_(size_bytes) {}

  const c10::DeviceIndex device_;
  char* const address_;
  const uint64_t size_bytes_;
  uint64_t mapped_bytes_ = 0;
};

}  // namespace openreg
