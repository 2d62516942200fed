// Blocks and their contents: Note [Blocks].
#include <algorithm>
#include <iterator>
#include <utility>

#include "layers/sanitizer/state.h"

namespace openreg::layers::sanitizer {

namespace {

constexpr uint64_t kMostRuns = 4096;  // of a strided operand that is looked at run by run

uintptr_t number(const void* address) { return reinterpret_cast<uintptr_t>(address); }

// The uses of a block that touch [begin, end).
std::vector<Use> uses_in(const std::vector<Use>& uses, uintptr_t begin, uintptr_t end) {
  std::vector<Use> inside;
  for (const Use& use : uses) {
    if (use.touched().set.begin < end && begin < use.touched().set.end) inside.push_back(use);
  }
  return inside;
}

// Of what a block inherits the oldest uses are forgotten, and those of its own stream first: what comes next there is behind them anyway.
void forget_oldest(std::vector<Use>* uses, uint32_t home) {
  constexpr size_t kMostOwn = 64, kMostOthers = 1024;
  if (uses->size() <= kMostOwn) return;
  size_t own = 0, others = 0;
  std::vector<Use> kept;
  for (auto use = uses->rbegin(); use != uses->rend(); ++use) {
    if (use->launch->stream == home ? ++own <= kMostOwn : ++others <= kMostOthers) kept.push_back(std::move(*use));
  }
  uses->assign(std::make_move_iterator(kept.rbegin()), std::make_move_iterator(kept.rend()));
}

}  // namespace

// The blocks that have a byte of [begin, end), live or not.
std::vector<Block*> State::blocks_in(uintptr_t begin, uintptr_t end) {
  std::vector<Block*> found;
  auto next = blocks_.upper_bound(begin);
  if (next != blocks_.begin() && std::prev(next)->second.end > begin) --next;
  for (; next != blocks_.end() && next->first < end; ++next) found.push_back(&next->second);
  return found;
}

Block* State::block_at(const void* address) {
  const auto found = blocks_.find(number(address));
  return found == blocks_.end() || !found->second.live ? nullptr : &found->second;
}

void State::allocated(openreg_stream stream, void* address, uint64_t size_bytes, uint64_t requested_bytes, uint64_t tag, bool known_contents,
                      bool host) {
  const bool captured = stream != nullptr && capture_of(stream) != 0;
  std::lock_guard<std::mutex> lock(mutex_);
  Block block;
  block.begin = number(address);
  block.end = block.begin + size_bytes;
  block.owner = std::make_shared<Owner>();
  block.owner->number = ++allocations_;
  block.owner->requested_bytes = requested_bytes;
  block.owner->allocation_tag = tag;
  block.owner->captured = captured;
  if (stream != nullptr) block.owner->home = number_of(stream);
  block.live = true;
  block.host = host;
  block.known_contents = known_contents;

  // What lies in the new block inherits its history; what of the old blocks lies beside it stays.
  std::vector<Block> rest;
  const std::vector<Block*> covered = blocks_in(block.begin, block.end);
  for (Block* old : covered) {
    if (has(kLifetime) && !old->live) {
      if (old->begin == block.begin && old->end == block.end) {
        block.uses = std::move(old->uses);
      } else {
        for (Use& use : uses_in(old->uses, block.begin, block.end)) block.uses.push_back(std::move(use));
      }
    }
    const auto keep = [&](uintptr_t begin, uintptr_t end) {
      Block part = *old;
      part.begin = begin;
      part.end = end;
      part.uses = uses_in(old->uses, begin, end);
      rest.push_back(std::move(part));
    };
    if (old->begin < block.begin) keep(old->begin, block.begin);
    if (old->end > block.end) keep(block.end, old->end);
  }
  for (Block* old : covered) blocks_.erase(old->begin);
  for (Block& part : rest) blocks_[part.begin] = std::move(part);

  // What the next owner's stream and the host are behind anyway needs no comparison any more.
  std::erase_if(block.uses, [&](const Use& use) { return host_.of(use.launch->stream) >= use.launch->tick; });
  forget_oldest(&block.uses, block.owner->home);
  blocks_[block.begin] = std::move(block);
}

void State::freed(void* address, uint64_t tag) {
  std::lock_guard<std::mutex> lock(mutex_);
  Block* block = block_at(address);
  if (block == nullptr) return;
  block->live = false;
  block->guarded = false;
  block->written.clear();
  block->owner->free_tag = tag;
  block->owner->freed = true;
  for (const uint32_t user : block->users) block->awaited.join(streams_[user].clock);
  block->users.clear();
}

void State::used_by(void* address, openreg_stream stream) {
  std::lock_guard<std::mutex> lock(mutex_);
  Block* block = block_at(address);
  if (block == nullptr) return;
  const uint32_t user = number_of(stream);
  if (std::find(block->users.begin(), block->users.end(), user) == block->users.end()) block->users.push_back(user);
}

// The allocator has seen the events of the freed block's users complete.
void State::idle(void* address) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = blocks_.find(number(address));
  if (found == blocks_.end() || found->second.live) return;
  Block& block = found->second;
  std::erase_if(block.uses, [&](const Use& use) { return block.awaited.of(use.launch->stream) >= use.launch->tick; });
  block.awaited = Clock();
}

void State::freed_twice(void* address, uint64_t tag) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!has(kLifetime)) return;
    Finding finding;
    finding.mode = kLifetime;
    finding.sentence = "Memory was freed that is no allocation in use.";
    finding.accesses.push_back({"free", "the host", "", tag});
    const auto found = blocks_in(number(address), number(address) + 1);
    if (!found.empty()) {
      finding.sentence = found[0]->live ? "An address inside of an allocation was freed." : "Memory was freed twice.";
      describe(*found[0]->owner, &finding);
    }
    finding.remedy = "Free an allocation once, with the address that the allocator returned.";
    add(std::move(finding), tag, 0);
  }
  deliver();
}

void State::returned(void* address, uint64_t bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  const uintptr_t begin = number(address), end = begin + bytes;
  for (Block* block : blocks_in(begin, end)) {
    if (block->begin >= begin && block->end <= end) blocks_.erase(block->begin);
  }
}

void State::contents_unknown() {
  if (!has(kInit)) return;
  std::lock_guard<std::mutex> lock(mutex_);
  for (auto& [begin, block] : blocks_) block.known_contents = true;
}

void State::host_reused(void* address, uint64_t bytes, uint64_t tag) {
  returned(address, bytes);
  allocated(nullptr, address, bytes, bytes, tag, true, true);
}

void State::adopt_host(const void* address) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!blocks_in(number(address), number(address) + 1).empty()) return;
  }
  void* base = nullptr;
  uint64_t bytes = 0;
  if (below_->host_query(address, &base, &bytes) == OPENREG_OK) allocated(nullptr, base, bytes, bytes, 0, true, true);
}

std::vector<LiveBlock> State::live_blocks() {
  std::vector<LiveBlock> all;
  std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& [begin, block] : blocks_) {
    if (!block.live || block.host) continue;
    const Owner& owner = *block.owner;
    const std::string stream = owner.home == kHost ? "" : describe(owner.home);
    all.push_back({owner.number, reinterpret_cast<void*>(begin), owner.requested_bytes, owner.allocation_tag, stream});
  }
  std::sort(all.begin(), all.end(), [](const LiveBlock& a, const LiveBlock& b) { return a.number < b.number; });
  return all;
}

// ---- Contents ---------------------------------------------------------------

void State::read_contents(const std::shared_ptr<const Launch>& launch, uint32_t index) {
  const Operand& operand = launch->operands[index];
  if (operand.some && operand.told != nullptr && !operand.moved) return expect_chosen(launch, index);
  if (operand.some || operand.moved || operand.set.empty() || !operand.set.exact) return;
  for (Block* block : blocks_in(operand.set.begin, operand.set.end)) {
    if (!block->live || block->host || block->known_contents) continue;
    const uintptr_t from = std::max(operand.set.begin, block->begin), to = std::min(operand.set.end, block->end);
    uintptr_t missing = 0;
    const bool looked = for_each_run(operand.set, kMostRuns, [&](uintptr_t begin, uintptr_t end) {
      begin = std::max(begin, from);
      end = std::min(end, to);
      if (missing != 0 || begin >= end) return;
      const uintptr_t found = block->written.first_missing(begin, end);
      if (found != end) missing = found;
    });
    if (!looked && !block->written.touches(from, to)) missing = from;
    if (missing == 0) continue;
    add_unwritten(*launch, operand, *block->owner, missing - block->begin);
    block->written.add(from, to);  // one finding for one mistake
  }
}

void State::add_unwritten(const Launch& launch, const Operand& operand, const Owner& owner, uint64_t offset) {
  Finding finding;
  finding.mode = kInit;
  finding.sentence = std::string(launch.name) + " reads memory that nothing has written, from byte " + std::to_string(offset) + " of its allocation on.";
  finding.accesses.push_back(describe(launch, operand));
  describe(owner, &finding);
  finding.remedy = "Fill the tensor first, or make it with zeros() instead of empty().";
  add(std::move(finding), launch.tag, owner.allocation_tag);
}

// Data choose which elements are used: keeps what nobody has written until the task tells.
void State::expect_chosen(const std::shared_ptr<const Launch>& launch, uint32_t index) {
  constexpr size_t kMostParts = 1024;
  const Operand& operand = launch->operands[index];
  Told& told = *operand.told;
  told.launch = launch;
  told.operand = index;
  for (const Block* block : blocks_in(operand.set.begin, operand.set.end)) {
    if (!block->live || block->host || block->known_contents) continue;
    block->written.for_each_missing(std::max(operand.set.begin, block->begin), std::min(operand.set.end, block->end), [&](uintptr_t begin, uintptr_t end) {
      if (told.unwritten.size() < kMostParts) told.unwritten.push_back({begin, end, block->begin, block->owner});
    });
  }
  if (told.known) read_chosen(told);
}

// The task has told.
void State::read_chosen(const Told& told) {
  const auto launch = told.launch.lock();
  if (launch == nullptr) return;
  for (const auto& part : told.unwritten) {
    const Footprint unwritten = Footprint::bytes(reinterpret_cast<const void*>(part.begin), part.end - part.begin);
    const bool used = std::any_of(told.sets.begin(), told.sets.end(), [&](const Footprint& set) { return overlap(set, unwritten) == Overlap::yes; });
    if (used) return add_unwritten(*launch, launch->operands[told.operand], *part.owner, part.begin - part.block);
  }
}

void State::write_contents(const Operand& operand, std::vector<Written>* first) {
  if (operand.set.empty()) return;
  for (Block* block : blocks_in(operand.set.begin, operand.set.end)) {
    if (!block->live || block->host || block->known_contents) continue;
    const auto write = [&](uintptr_t begin, uintptr_t end) {
      begin = std::max(begin, block->begin);
      end = std::min(end, block->end);
      block->written.for_each_missing(begin, end, [&](uintptr_t from, uintptr_t to) { first->push_back({block->owner->number, from, to}); });
      block->written.add(begin, end);
    };
    // Which of the elements were written is not known, or too much to keep: all of them may have been.
    if (operand.some || !for_each_run(operand.set, kMostRuns, write)) write(operand.set.begin, operand.set.end);
  }
}

// A copy of bytes moves what is known of them, so that copying memory that nobody has written is no mistake, and using the copy is.
void State::move_contents(const Operand& from, const Operand& to, std::vector<Written>* first) {
  const auto device_block = [&](const Operand& operand) -> Block* {
    for (Block* block : blocks_in(operand.set.begin, operand.set.end)) {
      if (block->live && !block->host) return block;
    }
    return nullptr;
  };
  Block* source = device_block(from);
  Block* target = device_block(to);
  if (target == nullptr || target->known_contents) return;
  if (source == nullptr || source->known_contents || !from.set.dense() || !to.set.dense()) return write_contents(to, first);
  std::vector<std::pair<uintptr_t, uintptr_t>> parts;
  source->written.for_each(from.set.begin, from.set.end, [&](uintptr_t begin, uintptr_t end) {
    parts.push_back({begin - from.set.begin + to.set.begin, end - from.set.begin + to.set.begin});
  });
  const ByteSet before = target->written;
  target->written.remove(to.set.begin, to.set.end);
  for (const auto& [begin, end] : parts) {
    before.for_each_missing(begin, std::min(end, target->end), [&](uintptr_t low, uintptr_t high) { first->push_back({target->owner->number, low, high}); });
    target->written.add(begin, std::min(end, target->end));
  }
}

}  // namespace openreg::layers::sanitizer
