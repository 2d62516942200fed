// Fault plans: which calls go wrong, when, and how. The grammar is docs/faults.md's; knows nothing of drivers.
//
// A plan is a list of rules. A rule counts the calls that its site matches, and fires at the n-th of them, from the n-th on (sticky), at each with a
// probability, or at all. Chance is a function of the rule's seed and of the count, so the same calls meet the same faults again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace openreg::layers::faults {

enum class Site : uint8_t { alloc, launch, copy, fill, device };
enum class Action : uint8_t { none, oom, error, corrupt, delay, hang, lost };

struct Rule {
  std::string text;      // as written
  Site site;
  std::string operation; // of a launch, copy or fill; "" = any. A final * stands for any end
  int32_t device = -1;   // -1 = any
  uint64_t number = 0;   // 0 = every call
  uint64_t at_ns = 0;    // of a device: not before this time of the plan; 0 = at any time
  bool sticky = false;
  double probability = 1;
  uint64_t seed = 0;
  Action action;
  uint64_t delay_ns = 0;
  uint64_t matched = 0, fired = 0;  // calls

  // Counts a call that the site matches. Whether the rule fires at it.
  bool count();
  // Whether a call of an operation matches, apart from the time.
  bool matches(Site call, const char* name, int32_t on) const;
};

struct ParseError {
  size_t position;  // in characters from 0
  std::string problem;
};

struct Plan {
  std::vector<Rule> rules;
};

// Reads a plan. *error says where it is wrong. `devices` maps the device numbers of the text to the driver's; a number outside is an error.
std::optional<Plan> parse(const std::string& text, const std::vector<int32_t>& devices, ParseError* error);

// A number that depends on seed and count only.
uint64_t chance(uint64_t seed, uint64_t count);

}  // namespace openreg::layers::faults
