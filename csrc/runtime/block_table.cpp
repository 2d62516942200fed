// Growth of the address table, and the search that a fault report needs.
#include "runtime/block_table.h"

#include <cstdlib>
#include <new>

namespace openreg {

namespace {

// Zero bytes are valid null atomics; calloc leaves untouched pages of a region to the system.
template <class T>
T* make_zeroed() {
  void* memory = std::calloc(1, sizeof(T));
  if (memory == nullptr) throw std::bad_alloc();
  return static_cast<T*>(memory);
}

}  // namespace

void BlockTable::set(const void* address, Block* block) {
  const uint64_t key = reinterpret_cast<uint64_t>(address);
  leaf_of(key).slots[slot_index(key)].store(block, std::memory_order_release);
}

Block* BlockTable::find_at_or_below(const void* address) const noexcept {
  const uint64_t key = reinterpret_cast<uint64_t>(address);
  for (const Region* region = first_.load(std::memory_order_acquire); region != nullptr; region = region->next.load(std::memory_order_acquire)) {
    if (region->number != key >> kRegionBits) continue;
    uint64_t slots = slot_index(key) + 1;  // to look at in the leaf
    for (uint64_t index = leaf_index(key) + 1; index-- > 0; slots = kSlots) {
      const Leaf* leaf = region->leaves[index].load(std::memory_order_acquire);
      while (leaf != nullptr && slots-- > 0) {
        if (Block* block = leaf->slots[slots].load(std::memory_order_acquire)) return block;
      }
    }
  }
  return nullptr;
}

BlockTable::Leaf& BlockTable::leaf_of(uint64_t key) {
  std::atomic<Region*>* link = &first_;
  Region* region = link->load(std::memory_order_acquire);
  while (region != nullptr && region->number != key >> kRegionBits) {
    link = &region->next;
    region = link->load(std::memory_order_acquire);
  }
  if (region != nullptr) {
    if (Leaf* leaf = region->leaves[leaf_index(key)].load(std::memory_order_acquire)) return *leaf;
  }

  std::lock_guard<std::mutex> lock(grow_mutex_);
  for (region = link->load(); region != nullptr && region->number != key >> kRegionBits; region = link->load()) link = &region->next;
  if (region == nullptr) {
    region = make_zeroed<Region>();
    region->number = key >> kRegionBits;
    link->store(region, std::memory_order_release);
  }
  std::atomic<Leaf*>& entry = region->leaves[leaf_index(key)];
  if (entry.load() == nullptr) entry.store(make_zeroed<Leaf>(), std::memory_order_release);
  return *entry.load();
}

}  // namespace openreg
