// From a device address to the block that begins there, without a lock.
//
// Note [Block lookup]
// A DataPtr of this allocator has the device address as data and as context, as core's raw_allocate and every CUDA-minded library
// expect. So a deleter gets an address and needs the block. The table is a radix tree over the address: a list of 512 GiB regions (one
// or two in practice), in each an array of leaves of 2 MiB, in each a slot per 512 bytes. A lookup is three dependent loads and takes
// no lock, which a hash map shared by all devices could not offer. The price is 32 KiB of host memory per 2 MiB of
// address space in which a block has ever begun. Regions and leaves are never freed, so a lookup of a foreign address is safe: it finds
// nothing.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

#include "runtime/device_block.h"

namespace openreg {

class BlockTable {
 public:
  // Enters the block under its address; null removes the entry. Throws std::bad_alloc. Two threads never set one address at a time.
  void set(const void* address, Block* block);

  // The block that begins at the address, or null. Only the owner of an address may rely on the answer; anybody else
  // compares Block::address under the heap's mutex. Any thread.
  Block* find(const void* address) const noexcept {
    const uint64_t key = reinterpret_cast<uint64_t>(address);
    if (key % kBlockAlignment != 0) return nullptr;
    for (const Region* region = first_.load(std::memory_order_acquire); region != nullptr;
         region = region->next.load(std::memory_order_acquire)) {
      if (region->number != key >> kRegionBits) continue;
      const Leaf* leaf = region->leaves[leaf_index(key)].load(std::memory_order_acquire);
      return leaf == nullptr ? nullptr : leaf->slots[slot_index(key)].load(std::memory_order_acquire);
    }
    return nullptr;
  }

  // The block with the highest address at or below this one, as far as the table knows; it may end before the address. Null when there
  // is none in the region. Takes no lock and allocates nothing: signal handlers may call it. Any thread.
  Block* find_at_or_below(const void* address) const noexcept;

 private:
  static constexpr int kRegionBits = 39, kLeafBits = 21, kSlotBits = 9;
  static constexpr uint64_t kLeaves = uint64_t{1} << (kRegionBits - kLeafBits);
  static constexpr uint64_t kSlots = uint64_t{1} << (kLeafBits - kSlotBits);
  static_assert(kBlockAlignment == uint64_t{1} << kSlotBits);

  static uint64_t leaf_index(uint64_t key) { return (key >> kLeafBits) % kLeaves; }
  static uint64_t slot_index(uint64_t key) { return (key >> kSlotBits) % kSlots; }

  struct Leaf {
    std::atomic<Block*> slots[kSlots];
  };
  struct Region {
    uint64_t number;
    std::atomic<Region*> next;
    std::atomic<Leaf*> leaves[kLeaves];
  };

  Leaf& leaf_of(uint64_t key);

  std::atomic<Region*> first_{nullptr};
  std::mutex grow_mutex_;  // LOCK: creation of regions and leaves
};

}  // namespace openreg
