// Clocks and accesses: Note [Order without time].
#include <algorithm>

#include "layers/sanitizer/state.h"

namespace openreg::layers::sanitizer {

namespace {

constexpr size_t kMostUses = 4096;        // per block; beyond it the oldest are forgotten
constexpr uint64_t kAbandoned = 1024;     // calls after which one that was announced and never made is given up
constexpr size_t kMostSuspicions = 1024;  // likewise: what is old and undecided may never be told

// Whether an access that has come later makes the earlier one superfluous: whoever is ordered after the later one is ordered after both.
bool replaces(const Operand& later, const Operand& earlier) {
  return !later.some && (later.write || !earlier.write) && covers(later.set, earlier.set);
}

// Whether the accesses have bytes in common, from what their tasks told.
Overlap told_overlap(const Operand& a, const Operand& b) {
  const bool a_told = !a.some || (a.told != nullptr && a.told->known);
  const bool b_told = !b.some || (b.told != nullptr && b.told->known);
  if (!a_told || !b_told) return Overlap::unknown;
  const auto sets_of = [](const Operand& operand) { return operand.some ? operand.told->sets : std::vector<Footprint>{operand.set}; };
  const std::vector<Footprint> a_sets = sets_of(a), b_sets = sets_of(b);
  Overlap result = Overlap::no;
  for (const Footprint& left : a_sets) {
    for (const Footprint& right : b_sets) {
      const Overlap found = overlap(left, right);
      if (found == Overlap::yes) return found;
      if (found == Overlap::unknown) result = found;
    }
  }
  return result;
}

}  // namespace

uint32_t State::number_of(openreg_stream stream) {
  const auto [entry, added] = numbers_.try_emplace(stream, static_cast<uint32_t>(streams_.size()));
  if (added) {
    openreg_stream_info info = {};
    info.struct_size = sizeof(info);
    below_->stream_info(stream, &info);
    const std::string name = stream_name_ != nullptr ? stream_name_(stream) : "";
    streams_.push_back({stream, info.device, name.empty() ? "device " + std::to_string(info.device) + " stream " + std::to_string(info.stream_id) : name, {}});
  }
  return entry->second;
}

std::shared_ptr<Launch> State::announce(openreg_stream stream, const char* name, uint64_t tag, std::vector<Operand> operands, bool raw_copy) {
  auto launch = std::make_shared<Launch>();
  launch->name = name ? name : "unnamed";
  launch->tag = tag;
  launch->raw_copy = raw_copy;
  launch->operands = std::move(operands);
  if ((modes() & (kLifetime | kBounds)) == 0 || capture_of(stream) != 0) return launch;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    launch->stream = number_of(stream);
    for (const Operand& operand : launch->operands) examine(*launch, operand);
  }
  deliver();
  return launch;
}

void State::accepted(openreg_stream stream, const std::shared_ptr<Launch>& launch) {
  if (const uint64_t capture = capture_of(stream)) return captured_launch(capture, stream, launch);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const uint32_t number = number_of(stream);
    Clock& clock = streams_[number].clock;
    clock.join(host_);
    launch->stream = number;
    launch->tick = clock.advance(number);
    add_launch(launch, clock);
  }
  deliver();
}

void State::add_launch(const std::shared_ptr<const Launch>& launch, const Clock& now) {
  const auto& all = launch->operands;
  for (uint32_t i = 0; i < all.size(); ++i) touch(launch, i, now);
  if (!has(kInit)) return;
  std::vector<Written> first;
  if (launch->raw_copy && all.size() == 2) {
    move_contents(all[1], all[0], &first);
  } else {
    for (uint32_t i = 0; i < all.size(); ++i) {
      if (!all[i].write) read_contents(launch, i);
    }
    for (const Operand& operand : all) {
      if (operand.write) write_contents(operand, &first);
    }
  }
  if (!launch->replayed && (launch->task != 0 || !first.empty())) unsettled_.push_back({launch, now, std::move(first)});
}

// What is wrong with the launch alone, whatever happened before.
void State::examine(const Launch& launch, const Operand& touched) {
  if (touched.set.empty() || touched.some) return;
  for (const Block* block : blocks_in(touched.set.begin, touched.set.end)) {
    if (!block->live && has(kLifetime)) {
      const bool inside = touched.set.begin >= block->begin && touched.set.end <= block->end;
      const Footprint all = Footprint::bytes(reinterpret_cast<void*>(block->begin), block->end - block->begin);
      if (!inside && overlap(touched.set, all) != Overlap::yes) continue;
      Finding finding;
      finding.mode = kLifetime;
      finding.sentence = std::string(launch.name) + " uses memory that was freed before the call.";
      finding.accesses.push_back(describe(launch, touched));
      describe(*block->owner, &finding);
      finding.remedy = "Keep a reference to the tensor, or to its storage, until this call.";
      add(std::move(finding), launch.tag, block->owner->free_tag);
    } else if (block->live && has(kBounds) && touched.set.begin >= block->begin && touched.set.end > block->usable_end() && touched.set.exact) {
      Finding finding;
      finding.mode = kBounds;
      finding.sentence = std::string(launch.name) + " is given elements up to " + std::to_string(touched.set.end - block->usable_end()) +
                         " bytes past the end of their allocation.";
      finding.accesses.push_back(describe(launch, touched));
      describe(*block->owner, &finding);
      finding.remedy = "Make the view of a storage that has these elements, or shrink the view.";
      add(std::move(finding), launch.tag, block->owner->allocation_tag);
    }
  }
}

void State::touch(const std::shared_ptr<const Launch>& launch, uint32_t operand, const Clock& now) {
  const Operand& touched = launch->operands[operand];
  if (touched.set.empty()) return;
  for (Block* block : blocks_in(touched.set.begin, touched.set.end)) {
    if (block->host) host_uses_.store(true, std::memory_order_relaxed);
    if ((block->live || launch->replayed) && (modes() & (kRaces | kLifetime)) != 0) compare(*block, {launch, operand, block->owner, nullptr}, now);
  }
}

void State::compare(Block& block, Use use, const Clock& now) {
  const Operand& touched = use.touched();
  const uint32_t stream = use.launch->stream;
  std::vector<Use>& uses = block.uses;
  size_t kept = 0;
  bool known = false;
  for (size_t i = 0; i < uses.size(); ++i) {
    const Launch& before = *uses[i].launch;
    const Operand& earlier = uses[i].touched();
    if (&before == use.launch.get()) {  // another operand of this call
      known = known || (earlier.write && !earlier.some && covers(earlier.set, touched.set));
    } else if (host_.of(before.stream) >= before.tick) {
      continue;  // the host waited for it, and with the host everything to come
    } else if (before.stream == stream || now.of(before.stream) >= before.tick) {
      // A function of the host that has not run yet may come between the two.
      if (replaces(touched, earlier) && (!block.host || marks_.empty())) continue;
    } else if (touched.write || earlier.write) {
      judge(uses[i], use);
    }
    if (kept != i) uses[kept] = std::move(uses[i]);
    ++kept;
  }
  uses.resize(kept);
  if (known) return;
  if (block.host) use.after = std::make_shared<const Clock>(now);
  if (uses.size() >= kMostUses) uses.erase(uses.begin(), uses.begin() + kMostUses / 2);
  uses.push_back(std::move(use));
}

// Two accesses that nothing orders.
void State::judge(const Use& first, const Use& second) {
  const bool same_owner = first.owner == second.owner;
  if (!has(same_owner ? kRaces : kLifetime)) return;
  const Operand& a = first.touched();
  const Operand& b = second.touched();
  const Overlap found = overlap(a.set, b.set);
  if (found == Overlap::no) return;
  if (found == Overlap::unknown || a.some || b.some) {
    if (suspicions_.size() == kMostSuspicions) suspicions_.erase(suspicions_.begin());
    suspicions_.push_back({first, second});
    return;
  }
  add(conflict(first, second, false), first.launch->tag, second.launch->tag);
}

// Looks again at the pairs that depended on data, now that tasks may have told more.
void State::decide() {
  std::vector<Suspicion> open;
  for (Suspicion& pair : suspicions_) {
    const Overlap found = told_overlap(pair.first.touched(), pair.second.touched());
    if (found == Overlap::unknown) {
      open.push_back(std::move(pair));
    } else if (found == Overlap::yes) {
      const Launch &first = *pair.first.launch, &second = *pair.second.launch;
      add(conflict(pair.first, pair.second, false), first.tag, second.tag);
    }
  }
  suspicions_ = std::move(open);
}

void State::record(openreg_event event, openreg_stream stream) {
  std::lock_guard<std::mutex> lock(mutex_);
  Clock& clock = streams_[number_of(stream)].clock;
  clock.join(host_);
  forget_captured(event);
  events_[event] = clock;
  if (shared_events_.contains(event)) shared_.join(clock);
}

// What whoever waits for the event comes after.
Clock State::recorded(openreg_event event) const {
  if (shared_events_.contains(event)) return shared_;
  const auto found = events_.find(event);
  return found == events_.end() ? Clock() : found->second;
}

void State::share(openreg_event event) {
  std::lock_guard<std::mutex> lock(mutex_);
  shared_.join(recorded(event));
  shared_events_.insert(event);
}

void State::wait(openreg_stream stream, openreg_event event) {
  std::lock_guard<std::mutex> lock(mutex_);
  streams_[number_of(stream)].clock.join(recorded(event));
}

void State::forget_event(openreg_event event) {
  std::lock_guard<std::mutex> lock(mutex_);
  forget_captured(event);
  events_.erase(event);
  shared_events_.erase(event);
}

// Its number stays with what it did; the handle may come back as another stream.
void State::forget_stream(openreg_stream stream) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = numbers_.find(stream);
  if (found == numbers_.end()) return;
  streams_[found->second].handle = nullptr;
  numbers_.erase(found);
}

Clock State::clock_of(openreg_stream stream) {
  std::lock_guard<std::mutex> lock(mutex_);
  return streams_[number_of(stream)].clock;
}

Clock State::clock_of(openreg_event event) {
  std::lock_guard<std::mutex> lock(mutex_);
  return recorded(event);
}

Clock State::clock_of_device(int32_t device) {
  std::lock_guard<std::mutex> lock(mutex_);
  Clock all;
  for (const Stream& stream : streams_) {
    if (stream.device == device) all.join(stream.clock);
  }
  return all;
}

void State::host_waited(const Clock& clock, bool failed) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (has(kInit)) settle(clock, failed);
    host_.join(clock);
    if (!suspicions_.empty()) decide();
  }
  deliver();
}

uint64_t State::new_mark(openreg_stream stream) {
  const uint64_t capture = capture_of(stream);
  std::lock_guard<std::mutex> lock(mutex_);
  Mark mark;
  mark.stream = number_of(stream);
  if (capture != 0) {
    const auto found = underway_.find(capture);
    if (found == underway_.end()) return 0;
    found->second.marks.push_back(last_mark_ + 1);
  } else {
    Clock& clock = streams_[mark.stream].clock;
    clock.join(host_);
    mark.tick = clock.advance(mark.stream);
    mark.clock = clock;
  }
  marks_[++last_mark_] = std::move(mark);
  return last_mark_;
}

void State::reached(uint64_t mark) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = marks_.find(mark);
  if (found != marks_.end()) host_.join(found->second.clock);
}

void State::forget_mark(uint64_t mark) {
  std::lock_guard<std::mutex> lock(mutex_);
  marks_.erase(mark);
}

void State::host_access(const char* name, const Footprint& set, bool write, const char* dtype, uint64_t tag, uint64_t mark) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto place = marks_.find(mark);
    const auto ordered = [&](const Use& use) {
      if (host_.of(use.launch->stream) >= use.launch->tick) return true;
      if (place == marks_.end()) return false;
      const Mark& function = place->second;
      if (function.clock.of(use.launch->stream) >= use.launch->tick) return true;  // before the function, or in a later replay of its graph
      return use.after != nullptr && use.after->of(function.stream) >= function.tick;  // behind it
    };
    auto launch = std::make_shared<Launch>();
    launch->name = name;
    launch->tag = tag;
    launch->stream = kHost;
    Operand operand;
    operand.set = set;
    operand.write = write;
    operand.dtype = dtype;
    launch->operands.push_back(operand);
    for (Block* block : blocks_in(set.begin, set.end)) {
      if (!block->host || !block->live) continue;
      for (const Use& use : block->uses) {
        if ((write || use.touched().write) && !ordered(use)) judge(use, {launch, 0, block->owner, nullptr});
      }
    }
  }
  deliver();
}

bool State::is_host_block(const void* address) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto begin = reinterpret_cast<uintptr_t>(address);
  for (const Block* block : blocks_in(begin, begin + 1)) {
    if (block->host && !block->uses.empty()) return true;
  }
  return false;
}

uint64_t State::new_token() {
  std::lock_guard<std::mutex> lock(mutex_);
  const uint64_t token = ++tokens_;
  if (token % kAbandoned == 0) {  // tasks that were skipped, calls that were refused
    std::erase_if(promises_, [&](const auto& entry) { return entry.second.kept != nullptr ? entry.first + kAbandoned < token : entry.second.told.expired(); });
  }
  const auto told = std::make_shared<Told>();
  promises_.emplace(token, Promise{told, told});
  return token;
}

std::shared_ptr<Told> State::promise(uint64_t token) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = promises_.find(token);
  if (found == promises_.end()) return nullptr;
  const std::shared_ptr<Told> told = found->second.told.lock();
  found->second.kept = nullptr;  // the operand's from now on
  return told;
}

void State::touched(uint64_t token, std::vector<Footprint> sets) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = promises_.find(token);
  if (found == promises_.end()) return;
  if (const auto told = found->second.told.lock()) {
    told->sets = std::move(sets);
    told->known = true;
    read_chosen(*told);
  }
  promises_.erase(found);
}

void State::untold(uint64_t token) {
  std::lock_guard<std::mutex> lock(mutex_);
  promises_.erase(token);
}

size_t State::promises() {
  std::lock_guard<std::mutex> lock(mutex_);
  return promises_.size();
}

}  // namespace openreg::layers::sanitizer
