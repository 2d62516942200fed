// Guard zones: bytes behind what a block's owner may use, filled when the block is handed out and looked at in stream order after every
// launch that writes the block, and when it is given back. Only where host code reaches the device's memory.
#include <algorithm>

#include "layers/sanitizer/state.h"

namespace openreg::layers::sanitizer {

namespace {

constexpr uint8_t kPattern = 0xC7;

struct Fill {
  uint8_t* zone;  // kernel view
  uint64_t bytes;
  uint64_t number;  // of the allocation
};

openreg_status run_fill(void* args, openreg_error*) {
  const auto& fill = *static_cast<const Fill*>(args);
  std::fill_n(fill.zone, fill.bytes, kPattern);
  state().guard_filled(fill.number);
  return OPENREG_OK;
}

struct Check {
  const uint8_t* zone;  // kernel view
  uint64_t bytes;
  uint64_t number;  // of the allocation
  const char* name;
  uint64_t tag;
  uint32_t stream;
  bool one_launch;  // the check follows that launch and no other
};

openreg_status run_check(void* args, openreg_error*) {
  const auto& check = *static_cast<const Check*>(args);
  for (uint64_t i = 0; i < check.bytes; ++i) {
    if (check.zone[i] == kPattern) continue;
    state().guard_broken(check.number, i, check.name, check.tag, check.stream, check.one_launch);
    break;
  }
  return OPENREG_OK;
}

openreg_launch_desc description(const char* name) {
  openreg_launch_desc desc = {};
  desc.struct_size = sizeof(desc);
  desc.name = name;
  return desc;
}

// A block may have much more than was asked for; the first bytes behind it are enough.
uintptr_t guard_end(const Block& block) { return std::min<uintptr_t>(block.end, block.usable_end() + 8 * kGuardBytes); }

}  // namespace

void State::fill_guard(openreg_stream stream, void* address) {
  Fill fill = {};
  {
    std::lock_guard<std::mutex> lock(mutex_);
    Block* block = block_at(address);
    if (block == nullptr || stream == nullptr || captures_underway()) return;  // a check is no part of a graph
    intptr_t delta = 0;
    const int32_t device = streams_[number_of(stream)].device;
    if (below_->mem_kernel_view == nullptr || below_->mem_kernel_view(device, &delta) != OPENREG_OK) return;
    const uintptr_t begin = block->usable_end(), end = guard_end(*block);
    if (begin >= end) return;
    fill = {reinterpret_cast<uint8_t*>(begin + static_cast<uintptr_t>(delta)), end - begin, block->owner->number};
    block->guarded = true;
    block->guard_filled = false;
  }
  const openreg_launch_desc desc = description("layer::fill_guard_zone");
  below_->launch_host_func(stream, run_fill, &fill, sizeof(fill), &desc);
}

void State::check_guard(openreg_stream stream, const void* address, const char* name, uint64_t tag) {
  Check check = {};
  {
    std::lock_guard<std::mutex> lock(mutex_);
    Block* block = block_at(address);
    if (block == nullptr || !block->guarded || captures_underway()) return;
    if (stream == nullptr) {
      if (block->owner->home == kHost) return;
      stream = streams_[block->owner->home].handle;
      if (stream == nullptr) return;  // destroyed
    }
    const uint32_t number = number_of(stream);
    intptr_t delta = 0;
    if (below_->mem_kernel_view(streams_[number].device, &delta) != OPENREG_OK) return;
    check.zone = reinterpret_cast<const uint8_t*>(block->usable_end() + static_cast<uintptr_t>(delta));
    check.bytes = guard_end(*block) - block->usable_end();
    check.number = block->owner->number;
    check.name = name;
    check.tag = tag;
    check.stream = number;
    check.one_launch = name != nullptr;
  }
  const openreg_launch_desc desc = description("layer::check_guard_zone");
  below_->launch_host_func(stream, run_check, &check, sizeof(check), &desc);
}

void State::check_written_guards(openreg_stream stream, const std::vector<uintptr_t>& addresses, const char* name, uint64_t tag) {
  std::vector<const void*> guarded;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (const uintptr_t address : addresses) {
      for (Block* block : blocks_in(address, address + 1)) {
        if (block->live && block->guarded) guarded.push_back(reinterpret_cast<const void*>(block->begin));
      }
    }
  }
  for (const void* address : guarded) check_guard(stream, address, name, tag);
}

void State::check_all_guards() {
  std::vector<const void*> guarded;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& [begin, block] : blocks_) {
      if (block.live && block.guarded) guarded.push_back(reinterpret_cast<const void*>(begin));
    }
  }
  for (const void* address : guarded) check_guard(nullptr, address, nullptr, 0);
}

// From the task; it is skipped behind a failure, and then there is nothing to look at.
void State::guard_filled(uint64_t number) {
  std::lock_guard<std::mutex> lock(mutex_);
  for (auto& [begin, block] : blocks_) {
    if (block.owner->number == number) block.guard_filled = true;
  }
}

// From a task. One broken zone is reported once.
void State::guard_broken(uint64_t number, uint64_t offset, const char* name, uint64_t tag, uint32_t stream, bool one_launch) {
  std::lock_guard<std::mutex> lock(mutex_);
  for (auto& [begin, block] : blocks_) {
    if (block.owner->number != number) continue;
    if (!block.guard_filled) return;
    block.guarded = false;
    Finding finding;
    finding.mode = kBounds;
    finding.sentence = one_launch ? std::string(name) + " wrote " : "An operator wrote ";
    finding.sentence += std::to_string(offset) + " bytes past the end of an allocation of " + std::to_string(block.owner->requested_bytes) + " bytes.";
    if (one_launch) {
      Launch launch;
      launch.name = name;
      launch.stream = stream;
      launch.tag = tag;
      Operand operand;
      operand.set = Footprint::bytes(reinterpret_cast<void*>(block.usable_end()), offset + 1);
      operand.write = true;
      finding.accesses.push_back(describe(launch, operand));
    }
    describe(*block.owner, &finding);
    finding.remedy = "Check the sizes that the kernel is launched with.";
    add(std::move(finding), tag, block.owner->allocation_tag);
    return;
  }
}

}  // namespace openreg::layers::sanitizer
