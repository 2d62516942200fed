// Tasks that fail, and contents that were never written because of it.
//
// Note [Skipped tasks]
// A launch counts as having written when it is accepted, because the verdict may not wait for it. When a wait tells the host of a failure, what
// the failed task should have written first is taken back, and what every task should have that was enqueued by then and whose clock reaches the
// failure: they are skipped, and later ones run again. Where a wait without an error has covered a failed task before, and in graphs, tasks count as run.
#include <algorithm>
#include <utility>

#include "layers/sanitizer/state.h"

namespace openreg::layers::sanitizer {

void State::task_failed(uint64_t task) {
  std::lock_guard<std::mutex> lock(mutex_);
  failed_tasks_.insert(task);
}

void State::forget_written(const std::vector<Written>& written) {
  for (const Written& part : written) {
    for (Block* block : blocks_in(part.begin, part.end)) {
      if (block->live && block->owner->number == part.number) block->written.remove(part.begin, part.end);
    }
  }
}

void State::settle(const Clock& clock, bool failed) {
  std::vector<std::pair<uint32_t, uint64_t>> failures;  // stream, tick
  for (const Unsettled& entry : unsettled_) {
    const Launch& launch = *entry.launch;
    if (!failed || launch.task == 0 || clock.of(launch.stream) < launch.tick || !failed_tasks_.contains(launch.task)) continue;
    failures.push_back({launch.stream, launch.tick});
  }
  std::erase_if(unsettled_, [&](const Unsettled& entry) {
    const bool skipped = std::any_of(failures.begin(), failures.end(), [&](const auto& failure) { return entry.clock.of(failure.first) >= failure.second; });
    if (skipped) forget_written(entry.written);
    if (!skipped && clock.of(entry.launch->stream) < entry.launch->tick) return false;
    failed_tasks_.erase(entry.launch->task);
    return true;
  });
}

// Nothing of the device runs any more, and what its memory has is undefined.
void State::device_was_reset(int32_t device) {
  const Clock all = clock_of_device(device);
  std::lock_guard<std::mutex> lock(mutex_);
  host_.join(all);
  for (auto& [begin, block] : blocks_) {
    if (block.host || block.owner->home == kHost || streams_[block.owner->home].device != device) continue;
    block.written.clear();
    block.known_contents = false;
    block.guarded = false;
  }
  std::erase_if(unsettled_, [&](const Unsettled& entry) { return streams_[entry.launch->stream].device == device; });
}

}  // namespace openreg::layers::sanitizer
