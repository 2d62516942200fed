// Findings in words.
#include <utility>

#include "layers/sanitizer/state.h"

namespace openreg::layers::sanitizer {

std::string State::describe(uint32_t stream) {
  if (stream == kHost) return "the host";
  return streams_[stream].name;
}

Access State::describe(const Launch& launch, const Operand& operand) {
  Access access;
  access.name = launch.name;
  access.stream = describe(launch.stream);
  access.tag = launch.tag;
  access.touched = operand.write ? "writes " : "reads ";
  if (operand.some) access.touched += "some of ";
  if (operand.dtype == nullptr) {
    access.touched += std::to_string(operand.set.end - operand.set.begin) + " bytes";
    return access;
  }
  access.touched += operand.dtype;
  access.touched += "[";
  for (int i = 0; i < operand.dims; ++i) access.touched += (i == 0 ? "" : ", ") + std::to_string(operand.sizes[i]);
  access.touched += "]";
  return access;
}

void State::describe(const Owner& owner, Finding* finding) {
  finding->allocation = "allocation " + std::to_string(owner.number) + " of " + std::to_string(owner.requested_bytes) + " bytes";
  if (owner.home != kHost) finding->allocation += ", made on " + describe(owner.home);
  finding->allocation_tag = owner.allocation_tag;
  finding->free_tag = owner.free_tag;
}

Finding State::conflict(const Use& first, const Use& second, bool possible) {
  const Launch &before = *first.launch, &after = *second.launch;
  const std::string first_stream = describe(before.stream), second_stream = describe(after.stream);
  Finding finding;
  finding.possible = possible;
  finding.accesses = {describe(before, first.touched()), describe(after, second.touched())};
  if (first.owner == second.owner) {
    finding.mode = kRaces;
    describe(*second.owner, &finding);
    finding.free_tag = 0;
    if (after.stream == kHost) {
      finding.sentence = "The host " + std::string(second.touched().write ? "writes" : "reads") + " memory that " + before.name + " on " +
                         first_stream + " may still be " + (first.touched().write ? "writing." : "reading.");
      finding.remedy = std::string("Wait on the host before ") + after.name + ": synchronize " + first_stream + ", or an event recorded on it after " + before.name + ".";
    } else {
      finding.sentence = std::string(after.name) + " on " + second_stream + " and " + before.name + " on " + first_stream +
                         " touch the same memory, one of them writes it, and nothing orders them.";
      finding.remedy = "Let " + second_stream + " wait before " + after.name + ": wait_stream(" + first_stream +
                       "), or wait_event() for an event recorded on " + first_stream + " after " + before.name + ".";
    }
    return finding;
  }
  finding.mode = kLifetime;
  finding.sentence = std::string(after.name) + " on " + second_stream + " uses memory that was freed and handed out again while " + before.name +
                     " on " + first_stream + " may still use it for the tensor that it belonged to before.";
  describe(*first.owner, &finding);
  const bool home = before.stream == first.owner->home;
  finding.remedy = home ? "Let " + second_stream + " wait for " + first_stream + ", for which the new tensor was allocated, before it uses it."
                        : "Call record_stream(" + first_stream + ") on the freed tensor before it is freed, or let the stream that it was allocated on wait for " +
                              first_stream + ".";
  return finding;
}

void State::add(Finding finding, uint64_t first_tag, uint64_t second_tag) {
  if (!seen_.emplace(finding.sentence, first_tag, second_tag).second) return;
  findings_.push_back(std::move(finding));
  undelivered_.store(true, std::memory_order_release);
}

void State::deliver() {
  if (!undelivered_.load(std::memory_order_acquire) || listener_ == nullptr) return;
  undelivered_.store(false);
  listener_();
}

std::vector<Finding> State::take_findings() {
  std::lock_guard<std::mutex> lock(mutex_);
  decide();
  return std::exchange(findings_, {});
}

void State::tell_again() {
  std::lock_guard<std::mutex> lock(mutex_);
  seen_.clear();
}

std::vector<Finding> State::possible_findings() {
  std::lock_guard<std::mutex> lock(mutex_);
  decide();
  std::vector<Finding> possible;
  for (const Suspicion& pair : suspicions_) possible.push_back(conflict(pair.first, pair.second, true));
  return possible;
}

}  // namespace openreg::layers::sanitizer
