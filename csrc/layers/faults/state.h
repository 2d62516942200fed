// The plans that hold, and the decision about each call.
#pragma once

#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "layers/faults/faults.h"

namespace openreg::layers::faults {

struct Verdict {
  Action action = Action::none;
  std::string rule;
  uint64_t plan = 0;
  uint64_t delay_ns = 0;
  uint64_t chance = 0;  // for whoever has to choose a bit
};

class State {
 public:
  uint64_t begin(Plan plan);
  Report report(uint64_t plan);
  void end(uint64_t plan);
  bool wants_ranges();

  // What happens to a call. Counts it.
  Verdict judge(Site site, const char* name, int32_t device);

  // A device whose time to be lost has come, with the rule; -1 for none. Cheap while no plan has one.
  int32_t next_lost(std::string* rule);

  // Sleeps until the plan has ended, the device was lost, or the driver stops. A task calls it.
  void hang(uint64_t plan, int32_t device);
  void release_device(int32_t device);
  void release_all();

  std::atomic<bool> runtime_allocates{false};

 private:
  struct Active {
    uint64_t name;
    uint64_t begin_ns;
    Plan plan;
    Report report;
  };
  Active* find(uint64_t name);
  void note(Active& active, const Rule& rule, const char* call, int32_t device);

  std::mutex mutex_;                   // LOCK: everything below
  std::condition_variable released_;
  std::vector<Active> active_;         // the latest last
  uint64_t last_name_ = 0;
  uint64_t releases_ = 0;              // of all tasks that hang
  std::map<int32_t, uint64_t> lost_;   // device -> how often it was lost
  std::atomic<bool> timed_{false};     // a rule has a time
};

State& state();

}  // namespace openreg::layers::faults
