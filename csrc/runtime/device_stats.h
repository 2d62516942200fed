// Counting in c10's DeviceStats.
#pragma once

#include <c10/core/CachingDeviceAllocator.h>

#include <cstdint>

namespace openreg {

using c10::CachingDeviceAllocator::DeviceStats;

// A StatArray has the total, small blocks and large blocks, in this order.
inline void add(c10::CachingAllocator::StatArray& stat, bool large, uint64_t amount) {
  stat[0].increase(amount);
  stat[large ? 2 : 1].increase(amount);
}

inline void subtract(c10::CachingAllocator::StatArray& stat, bool large, uint64_t amount) {
  stat[0].decrease(amount);
  stat[large ? 2 : 1].decrease(amount);
}

// Calls f on every Stat.
template <class F>
void for_each_stat(DeviceStats& stats, F&& f) {
  for (auto* array : {&stats.allocation, &stats.segment, &stats.active, &stats.inactive_split, &stats.allocated_bytes, &stats.reserved_bytes,
                      &stats.active_bytes, &stats.inactive_split_bytes, &stats.requested_bytes}) {
    for (auto& stat : *array) f(stat);
  }
  for (auto& [pool, array] : stats.reserved_bytes_by_private_pools) {
    for (auto& stat : array) f(stat);
  }
  f(stats.oversize_allocations);
  f(stats.oversize_segments);
}

}  // namespace openreg
