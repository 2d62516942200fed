// Bins and the sorted vector: see Note [Free lists].
#include "runtime/free_blocks.h"

#include <algorithm>
#include <bit>

namespace openreg {

void FreeBlocks::insert(Block* block) {
  if (block->large || block->size_bytes > kSmallSegment) {
    const LargeEntry entry{block->size_bytes, block};
    std::vector<LargeEntry>& entries = sorted(block);
    entries.insert(std::lower_bound(entries.begin(), entries.end(), entry, before), entry);
    return;
  }
  const uint64_t bin = bin_of(block->size_bytes);
  Block* head = bins_[bin];
  block->bin_previous = nullptr;
  block->bin_next = head;
  bins_[bin] = block;
  if (head != nullptr) {
    head->bin_previous = block;
    return;
  }
  words_[bin / 64] |= uint64_t{1} << (bin % 64);
  summary_ |= uint64_t{1} << (bin / 64);
}

void FreeBlocks::remove(Block* block) {
  if (block->large || block->size_bytes > kSmallSegment) {
    std::vector<LargeEntry>& entries = sorted(block);
    entries.erase(std::lower_bound(entries.begin(), entries.end(), LargeEntry{block->size_bytes, block}, before));
    return;
  }
  if (block->bin_next != nullptr) block->bin_next->bin_previous = block->bin_previous;
  if (block->bin_previous != nullptr) {
    block->bin_previous->bin_next = block->bin_next;
    return;
  }
  const uint64_t bin = bin_of(block->size_bytes);
  bins_[bin] = block->bin_next;
  if (block->bin_next != nullptr) return;
  words_[bin / 64] &= ~(uint64_t{1} << (bin % 64));
  if (words_[bin / 64] == 0) summary_ &= ~(uint64_t{1} << (bin / 64));
}

Block* FreeBlocks::best_fit(uint64_t size_bytes, bool large) const {
  if (large) {
    const auto entry = std::lower_bound(large_.begin(), large_.end(), size_bytes,
                                        [](const LargeEntry& a, uint64_t wanted) { return a.size_bytes < wanted; });
    return entry == large_.end() ? nullptr : entry->block;
  }
  const uint64_t bin = bin_of(size_bytes);
  uint64_t word = bin / 64;
  uint64_t bits = words_[word] >> (bin % 64) << (bin % 64);
  if (bits == 0) {
    const uint64_t later = word == kWords - 1 ? 0 : summary_ >> (word + 1) << (word + 1);
    if (later == 0) return wide_.empty() ? nullptr : wide_.front().block;
    word = static_cast<uint64_t>(std::countr_zero(later));
    bits = words_[word];
  }
  return bins_[word * 64 + static_cast<uint64_t>(std::countr_zero(bits))];
}

void FreeBlocks::append_releasable(std::vector<Block*>& blocks) const {
  for (Block* block = bins_[kBins - 1]; block != nullptr; block = block->bin_next) blocks.push_back(block);
  for (const std::vector<LargeEntry>* entries : {&wide_, &large_}) {
    for (const LargeEntry& entry : *entries) {
      if (entry.block->whole_segment() || entry.block->expandable != nullptr) blocks.push_back(entry.block);
    }
  }
}

void FreeBlocks::append_outgrown(std::vector<Block*>& blocks, uint64_t size_bytes) const {
  for (const LargeEntry& entry : large_) {
    if (entry.size_bytes >= size_bytes) return;
    if (entry.block->whole_segment()) blocks.push_back(entry.block);
  }
}

void FreeBlocks::insert_hole(Block* hole) {
  std::vector<Block*>& holes = holes_[hole->large ? 1 : 0];
  holes.insert(std::lower_bound(holes.begin(), holes.end(), hole, [](Block* a, Block* b) { return a->address < b->address; }), hole);
}

void FreeBlocks::remove_hole(Block* hole) {
  std::vector<Block*>& holes = holes_[hole->large ? 1 : 0];
  holes.erase(std::find(holes.begin(), holes.end(), hole));
}

}  // namespace openreg
