// Plans that hold: counting, firing, and letting go of tasks that hang.
#include "layers/faults/state.h"

#include <chrono>
#include <utility>

namespace openreg::layers::faults {

namespace {

uint64_t now_ns() {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count());
}

}  // namespace

State& state() {
  static State* leaked = new State;
  return *leaked;
}

State::Active* State::find(uint64_t name) {
  for (Active& active : active_) {
    if (active.name == name) return &active;
  }
  return nullptr;
}

void State::note(Active& active, const Rule& rule, const char* call, int32_t device) {
  if (active.report.count++ < kMostFired) active.report.fired.push_back({rule.text, call, device, rule.matched});
}

uint64_t State::begin(Plan plan) {
  std::lock_guard<std::mutex> lock(mutex_);
  for (const Rule& rule : plan.rules) {
    if (rule.at_ns != 0) timed_ = true;
  }
  active_.push_back({++last_name_, now_ns(), std::move(plan), {}});
  return last_name_;
}

Report State::report(uint64_t plan) {
  std::lock_guard<std::mutex> lock(mutex_);
  const Active* active = find(plan);
  if (active == nullptr) return {};
  Report report = active->report;
  for (const Rule& rule : active->plan.rules) {
    if (rule.fired == 0) report.waiting.push_back(rule.text);
  }
  return report;
}

void State::end(uint64_t plan) {
  std::lock_guard<std::mutex> lock(mutex_);
  std::erase_if(active_, [plan](const Active& active) { return active.name == plan; });
  bool timed = false;
  for (const Active& active : active_) {
    for (const Rule& rule : active.plan.rules) timed |= rule.at_ns != 0;
  }
  timed_ = timed;
  released_.notify_all();
}

bool State::wants_ranges() {
  std::lock_guard<std::mutex> lock(mutex_);
  for (const Active& active : active_) {
    for (const Rule& rule : active.plan.rules) {
      if (rule.site == Site::launch && rule.action == Action::corrupt) return true;
    }
  }
  return false;
}

Verdict State::judge(Site site, const char* name, int32_t device) {
  std::lock_guard<std::mutex> lock(mutex_);
  Verdict verdict;
  for (auto active = active_.rbegin(); active != active_.rend(); ++active) {
    for (Rule& rule : active->plan.rules) {
      if (rule.at_ns != 0 && now_ns() - active->begin_ns < rule.at_ns) continue;
      if (!rule.matches(site, name, device) || !rule.count()) continue;
      if (verdict.action != Action::none) {
        --rule.fired;  // another rule has this call
        continue;
      }
      verdict = {rule.action, rule.text, active->name, rule.delay_ns, faults::chance(rule.seed, ~rule.matched)};
      note(*active, rule, name, device);
    }
  }
  return verdict;
}

int32_t State::next_lost(std::string* rule_text) {
  if (!timed_.load(std::memory_order_relaxed)) return -1;
  std::lock_guard<std::mutex> lock(mutex_);
  for (Active& active : active_) {
    for (Rule& rule : active.plan.rules) {
      if (rule.at_ns == 0 || rule.action != Action::lost || rule.number != 1 || rule.fired != 0 || now_ns() - active.begin_ns < rule.at_ns) continue;
      rule.matched = 1;
      rule.fired = 1;
      note(active, rule, "time", rule.device);
      *rule_text = rule.text;
      return rule.device;
    }
  }
  return -1;
}

void State::hang(uint64_t plan, int32_t device) {
  std::unique_lock<std::mutex> lock(mutex_);
  const uint64_t releases = releases_, losses = lost_[device];
  released_.wait(lock, [&] { return find(plan) == nullptr || releases_ != releases || lost_[device] != losses; });
}

void State::release_device(int32_t device) {
  std::lock_guard<std::mutex> lock(mutex_);
  ++lost_[device];
  released_.notify_all();
}

void State::release_all() {
  std::lock_guard<std::mutex> lock(mutex_);
  ++releases_;
  released_.notify_all();
}

uint64_t begin(Plan plan) { return state().begin(std::move(plan)); }
Report report(uint64_t plan) { return state().report(plan); }
void end(uint64_t plan) { state().end(plan); }
bool wants_ranges() { return state().wants_ranges(); }
void expect_runtime_allocations() { state().runtime_allocates = true; }

}  // namespace openreg::layers::faults
