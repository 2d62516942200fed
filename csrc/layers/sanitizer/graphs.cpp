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
  if (graph != nullptr) {
    Graph& made = graphs_[graph];
    made.launches = std::move(found->second.launches);
    made.marks = std::move(found->second.marks);
    made.inputs = std::move(found->second.inputs);
  }
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
          if ((!a.write && !b.write) || overlap(a.set, b.set) == Overlap::no) continue;
          for (const Block* block : blocks_in(b.set.begin, b.set.end)) judge({before, i, block->owner, nullptr}, {launch, j, block->owner, nullptr});
        }
      }
    }
    now.launches.push_back(launch);
    for (uint32_t i = 0; has(kLifetime) && i < launch->operands.size(); ++i) {
      const Footprint& set = launch->operands[i].set;
      for (const Block* block : blocks_in(set.begin, set.end)) {
        if (block->live && !block->host && !block->owner->captured) now.inputs.try_emplace(block->owner->number, Use{launch, i, block->owner, nullptr});
      }
    }
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

// Memory of before the capture has to live as long as the graph is replayed.
void State::use_inputs(Graph& graph) {
  for (const auto& [number, use] : graph.inputs) {
    if (!use.owner->freed) continue;
    Finding finding;
    finding.mode = kLifetime;
    finding.sentence = "A graph is replayed in which " + std::string(use.launch->name) + " uses memory that was freed after its capture.";
    finding.accesses.push_back(describe(*use.launch, use.touched()));
    describe(*use.owner, &finding);
    finding.remedy = "Keep the tensor as long as the graph is replayed, and copy new values into it.";
    add(std::move(finding), use.launch->tag, use.owner->free_tag);
  }
}

// The functions of the host in the graph come behind all that the clock covers.
void State::move_marks(const Graph& graph, uint32_t stream, const Clock& clock) {
  for (const uint64_t number : graph.marks) {
    const auto mark = marks_.find(number);
    if (mark != marks_.end()) mark->second = {stream, clock.of(stream), clock};
  }
}

void State::expect_replay(openreg_graph graph, openreg_stream stream) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = graphs_.find(graph);
  if (found == graphs_.end() || found->second.marks.empty()) return;
  const uint32_t number = number_of(stream);
  Clock& begin = streams_[number].clock;
  begin.join(host_);
  begin.join(found->second.replayed);
  Clock clock = begin;
  for (size_t i = 0; i <= found->second.launches.size(); ++i) clock.advance(number);
  move_marks(found->second, number, clock);
}

void State::replay(openreg_graph graph, openreg_stream stream) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = graphs_.find(graph);
    if (found == graphs_.end()) return;
    use_inputs(found->second);
    const uint32_t number = number_of(stream);
    Clock& clock = streams_[number].clock;
    if (found->second.marks.empty()) {  // else expect_replay has done it, and the host may have gone on by now
      clock.join(host_);
      clock.join(found->second.replayed);
    }
    for (const auto& captured : found->second.launches) {
      auto launch = std::make_shared<Launch>(*captured);
      launch->stream = number;
      launch->tick = clock.advance(number);
      launch->replayed = true;
      for (Operand& operand : launch->operands) operand.told = nullptr;  // the indices may be others now
      add_launch(launch, clock);
    }
    if (!found->second.marks.empty()) clock.advance(number);
    move_marks(found->second, number, clock);
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
  Graph& updated = graphs_[graph];
  updated.launches = std::move(found->second.launches);
  updated.marks = std::move(found->second.marks);
  updated.inputs = std::move(found->second.inputs);
  graphs_.erase(source);
}

}  // namespace openreg::layers::sanitizer
