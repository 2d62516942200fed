// Captures and replays.
//
// Note [Graphs and order]
// While a stream is being captured nothing of it runs, so its launches touch no history yet. They are compared with each other, on clocks of
// the capture's own, which finds races inside of the graph once, and are kept with it. A replay stands for all of them, one after the other,
// on the stream that it is launched on, behind the replay before it: what the graph orders inside does not matter to anybody outside. Blocks that
// were freed during the capture belong to the graph, and its replays go on using them.
#include <algorithm>

#include "layers/sanitizer/state.h"

namespace openreg::layers::sanitizer {

uint64_t State::capture_of(openreg_stream stream) {
  if (captures_.load(std::memory_order_relaxed) == 0) return 0;
  int32_t capturing = OPENREG_NOT_CAPTURING;
  uint64_t number = 0;
  if (below_->stream_capture_info(stream, &capturing, &number) != OPENREG_OK) return 0;
  return capturing == OPENREG_NOT_CAPTURING ? 0 : number;
}

void State::begin_capture(uint64_t capture) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (capture == 0) return;
  underway_[capture];
  ++captures_;
}

// `graph` is null when the capture failed.
void State::end_capture(uint64_t capture, openreg_graph graph) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = underway_.find(capture);
  if (found == underway_.end()) return;
  if (graph != nullptr) graphs_[graph].launches = std::move(found->second.launches);
  underway_.erase(found);
  --captures_;
}

void State::captured_launch(uint64_t capture, openreg_stream stream, const std::shared_ptr<Launch>& launch) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = underway_.find(capture);
    if (found == underway_.end()) return;
    Capture& now = found->second;
    launch->stream = number_of(stream);
    Clock& clock = now.clocks[launch->stream];
    launch->tick = clock.advance(launch->stream);
    for (const auto& before : now.launches) {
      if (clock.of(before->stream) >= before->tick || before->stream == launch->stream) continue;
      for (uint32_t i = 0; i < before->operands.size(); ++i) {
        for (uint32_t j = 0; j < launch->operands.size(); ++j) {
          const Operand &a = before->operands[i], &b = launch->operands[j];
          if ((!a.write && !b.write) || a.some || b.some || overlap(a.set, b.set) != Overlap::yes) continue;
          for (const Block* block : blocks_in(b.set.begin, b.set.end)) judge({before, i, block->owner}, {launch, j, block->owner});
        }
      }
    }
    now.launches.push_back(launch);
  }
  deliver();
}

void State::captured_record(uint64_t capture, openreg_event event, openreg_stream stream) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = underway_.find(capture);
  if (found == underway_.end()) return;
  events_.erase(event);
  forget_captured(event);
  found->second.events[event] = found->second.clocks[number_of(stream)];
}

// The event's record in a capture is not its latest any more.
void State::forget_captured(openreg_event event) {
  for (auto& [number, capture] : underway_) capture.events.erase(event);
}

// Whether the event belongs to a capture, in which the stream now waits for it.
bool State::captured_wait(openreg_stream stream, openreg_event event) {
  if (captures_.load(std::memory_order_relaxed) == 0) return false;
  std::lock_guard<std::mutex> lock(mutex_);
  for (auto& [number, capture] : underway_) {
    const auto found = capture.events.find(event);
    if (found == capture.events.end()) continue;
    capture.clocks[number_of(stream)].join(found->second);
    return true;
  }
  return false;
}

void State::replay(openreg_graph graph, openreg_stream stream) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = graphs_.find(graph);
    if (found == graphs_.end()) return;
    const uint32_t number = number_of(stream);
    Clock& clock = streams_[number].clock;
    clock.join(host_);
    clock.join(found->second.replayed);
    for (const auto& captured : found->second.launches) {
      auto launch = std::make_shared<Launch>(*captured);
      launch->stream = number;
      launch->tick = clock.advance(number);
      launch->replayed = true;
      for (Operand& operand : launch->operands) operand.told = nullptr;  // the indices may be others now
      add_launch(launch, clock);
    }
    found->second.replayed = clock;
  }
  deliver();
}

void State::forget_graph(openreg_graph graph) {
  std::lock_guard<std::mutex> lock(mutex_);
  graphs_.erase(graph);
}

void State::update_graph(openreg_graph graph, openreg_graph source) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = graphs_.find(source);
  if (found == graphs_.end()) return;
  graphs_[graph].launches = std::move(found->second.launches);
  graphs_.erase(source);
}

}  // namespace openreg::layers::sanitizer
