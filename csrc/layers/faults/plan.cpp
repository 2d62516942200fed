// The grammar of fault plans, by recursive descent, and when a rule fires.
#include "layers/faults/plan.h"

#include <cctype>
#include <cstdlib>
#include <cstring>
#include <iterator>

namespace openreg::layers::faults {

namespace {

constexpr const char* kSites[] = {"alloc", "launch", "copy", "fill", "device"};
constexpr const char* kActions[] = {"none", "oom", "error", "corrupt", "delay", "hang", "lost"};

struct Failure {
  ParseError error;
};

class Parser {
 public:
  Parser(const std::string& text, const std::vector<int32_t>& devices) : text_(text), devices_(devices) {}

  Plan plan() {
    Plan plan;
    for (skip_space(); !at_end(); skip_space()) {
      plan.rules.push_back(rule());
      if (!at_end()) expect(";", "';' between two rules");
    }
    if (plan.rules.empty()) fail("a plan has at least one rule, such as 'alloc:3=oom'");
    return plan;
  }

 private:
  [[noreturn]] void fail(const std::string& problem) { fail_at(at_, problem); }
  [[noreturn]] void fail_at(size_t position, const std::string& problem) { throw Failure{{position, problem}}; }
  bool at_end() const { return at_ >= text_.size(); }
  void skip_space() {
    while (!at_end() && std::isspace(static_cast<unsigned char>(text_[at_]))) ++at_;
  }
  bool take(const char* word) {
    skip_space();
    if (text_.compare(at_, std::strlen(word), word) != 0) return false;
    at_ += std::strlen(word);
    return true;
  }
  void expect(const char* word, const std::string& what) {
    if (!take(word)) fail("expected " + what);
  }
  // Characters up to one of `ends`.
  std::string until(const char* ends) {
    skip_space();
    const size_t begin = at_;
    while (!at_end() && std::strchr(ends, text_[at_]) == nullptr && !std::isspace(static_cast<unsigned char>(text_[at_]))) ++at_;
    return text_.substr(begin, at_ - begin);
  }
  std::string letters() {
    skip_space();
    const size_t begin = at_;
    while (!at_end() && std::isalpha(static_cast<unsigned char>(text_[at_]))) ++at_;
    return text_.substr(begin, at_ - begin);
  }

  uint64_t number(const char* what) {
    skip_space();
    const size_t begin = at_;
    while (!at_end() && std::isdigit(static_cast<unsigned char>(text_[at_]))) ++at_;
    if (at_ == begin || at_ - begin > 18) fail_at(begin, std::string("expected ") + what + ", a whole number");
    return std::strtoull(text_.c_str() + begin, nullptr, 10);
  }
  uint64_t count(const char* what) {
    const size_t begin = at_;
    const uint64_t value = number(what);
    if (value == 0) fail_at(begin, std::string(what) + " counts from 1");
    return value;
  }
  double fraction(const char* what) {
    skip_space();
    const size_t begin = at_;
    while (!at_end() && (std::isdigit(static_cast<unsigned char>(text_[at_])) || text_[at_] == '.')) ++at_;
    if (at_ == begin) fail_at(begin, std::string("expected ") + what);
    return std::strtod(text_.substr(begin, at_ - begin).c_str(), nullptr);
  }
  uint64_t duration() {
    const size_t begin = at_;
    const double value = fraction("a duration, such as 5ms");
    const size_t unit_at = at_;
    const std::string unit = letters();
    const double ns = unit == "s" ? 1e9 : unit == "ms" ? 1e6 : unit == "us" ? 1e3 : 0;
    if (ns == 0) fail_at(unit_at, "a duration ends in s, ms or us");
    if (value * ns > 1e18) fail_at(begin, "the duration is too long");
    return static_cast<uint64_t>(value * ns);
  }
  int32_t device() {
    const size_t begin = at_;
    const uint64_t index = number("a device");
    if (index >= devices_.size())
      fail_at(begin, "there is no device " + std::to_string(index) + ", only " + std::to_string(devices_.size()) + " numbered from 0");
    return devices_[index];
  }

  Site site() {
    skip_space();
    const size_t begin = at_;
    const std::string word = letters();
    if (word == "collective") fail_at(begin, "there are no collectives yet that could fail: this version has no distributed backend");
    for (size_t i = 0; i < std::size(kSites); ++i) {
      if (word == kSites[i]) return static_cast<Site>(i);
    }
    fail_at(begin, "expected where the fault happens: alloc, launch, copy, fill or device");
  }

  void selector(Rule& rule) {
    if (rule.site == Site::device) {
      expect(":", "':' and a device, as in device:0");
      rule.device = device();
    } else if (take(":")) {
      skip_space();
      if (!at_end() && std::isdigit(static_cast<unsigned char>(text_[at_]))) {
        rule.number = count("the number of a call");
      } else if (!take("*")) {
        const size_t begin = at_;
        rule.operation = until("#=;@");
        if (rule.operation.empty()) fail_at(begin, "expected '*', the number of a call, or an operation's name");
        if (rule.site == Site::alloc) fail_at(begin, "an allocation has no name: expected '*' or the number of a call");
      }
    }
    if (take("#")) {
      if (rule.number != 0) fail("the rule has a number already");
      rule.number = count("the number of a call");
    }
    if (rule.site == Site::device && take("@")) {
      expect("t", "'t=' and a time, as in device:0@t=2s");
      expect("=", "'=' and a time, as in device:0@t=2s");
      rule.at_ns = duration();
      if (rule.at_ns == 0) rule.at_ns = 1;
    }
    if (take("of ")) {
      if (rule.site == Site::device) fail("the rule names its device already");
      expect("openreg:", "a device, as in openreg:1");
      rule.device = device();
    }
  }

  void action(Rule& rule) {
    skip_space();
    const size_t begin = at_;
    const std::string word = letters();
    size_t found = 0;
    for (size_t i = 1; i < std::size(kActions); ++i) {
      if (word == kActions[i]) found = i;
    }
    if (found == 0) fail_at(begin, "expected what happens: oom, error, corrupt, delay:TIME, hang or lost");
    rule.action = static_cast<Action>(found);
    const bool on_alloc = rule.site == Site::alloc, on_device = rule.site == Site::device;
    if (rule.action == Action::oom && !on_alloc) fail_at(begin, "only an allocation runs out of memory: alloc:N=oom");
    if ((rule.action == Action::error || rule.action == Action::corrupt || rule.action == Action::hang) && on_alloc)
      fail_at(begin, "an allocation can have oom, delay or lost, not " + word);
    if (rule.action == Action::corrupt && on_device) fail_at(begin, "a launch, copy or fill can be corrupt; name one");
    if (rule.action == Action::delay) {
      expect(":", "':' and a duration, as in delay:5ms");
      rule.delay_ns = duration();
    }
  }

  void modifiers(Rule& rule) {
    bool chance_given = false;
    if (take("@")) {
      const size_t begin = at_;
      rule.probability = fraction("a probability from 0 to 1");
      if (rule.probability > 1) fail_at(begin, "a probability is from 0 to 1");
      if (rule.number != 0) fail_at(begin, "a rule has the number of a call or a probability, not both");
      chance_given = true;
    }
    while (take(",")) {
      skip_space();
      const size_t begin = at_;
      const std::string word = letters();
      if (word == "sticky") {
        if (rule.number == 0) fail_at(begin, "sticky means from the n-th call on, and the rule has no number");
        rule.sticky = true;
      } else if (word == "seed") {
        if (!chance_given && rule.action != Action::corrupt) fail_at(begin, "a seed needs a probability, as in error@0.01,seed=7, or corrupt");
        expect("=", "'=' and a whole number");
        rule.seed = number("a seed");
      } else {
        fail_at(begin, "expected 'sticky' or 'seed=N'");
      }
    }
  }

  Rule rule() {
    Rule rule{};
    rule.device = -1;
    rule.probability = 1;
    skip_space();
    const size_t begin = at_;
    rule.site = site();
    selector(rule);
    expect("=", "'=' and what happens");
    action(rule);
    modifiers(rule);
    rule.text = text_.substr(begin, at_ - begin);
    // Time alone would fire at every call from then on; a device is lost once.
    if (rule.action == Action::lost && rule.number == 0 && rule.probability == 1) rule.number = 1;
    skip_space();
    return rule;
  }

  const std::string& text_;
  const std::vector<int32_t>& devices_;
  size_t at_ = 0;
};

}  // namespace

uint64_t chance(uint64_t seed, uint64_t count) {  // splitmix64
  uint64_t value = (seed + 1) * 0xd1342543de82ef95u + count * 0x9e3779b97f4a7c15u;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
  return value ^ (value >> 31);
}

bool Rule::count() {
  ++matched;
  const bool meant = number == 0 || matched == number || (sticky && matched > number);
  const bool fires = meant && (probability >= 1 || static_cast<double>(chance(seed, matched) >> 11) * 0x1p-53 < probability);
  fired += fires;
  return fires;
}

bool Rule::matches(Site call, const char* name, int32_t on) const {
  if (device >= 0 && device != on) return false;
  if (site == Site::device) return call != Site::alloc;
  if (site != call) return false;
  if (operation.empty()) return true;
  if (operation.back() == '*') return std::strncmp(operation.c_str(), name, operation.size() - 1) == 0;
  return operation == name;
}

std::optional<Plan> parse(const std::string& text, const std::vector<int32_t>& devices, ParseError* error) {
  try {
    return Parser(text, devices).plan();
  } catch (const Failure& failure) {
    *error = failure.error;
    return std::nullopt;
  }
}

}  // namespace openreg::layers::faults
