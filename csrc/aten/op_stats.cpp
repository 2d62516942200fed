// The registry of operator counters.
#include "aten/op_stats.h"

#include <map>
#include <mutex>

namespace openreg::op_stats {

namespace {

struct Registry {
  std::mutex mutex;  // LOCK: counters (the map; counters themselves are atomic)
  std::map<std::string, Counter> counters;
};

Registry& registry() {
  static Registry* leaked = new Registry;
  return *leaked;
}

}  // namespace

Counter& counter(const std::string& name) {
  Registry& r = registry();
  std::lock_guard<std::mutex> lock(r.mutex);
  return r.counters[name];
}

void for_each(const std::function<void(const char*, const Counter&)>& visit) {
  Registry& r = registry();
  std::lock_guard<std::mutex> lock(r.mutex);
  for (const auto& [name, c] : r.counters) {
    if (c.native || c.engine || c.staged || c.copied || c.waited) visit(name.c_str(), c);
  }
}

void reset() {
  Registry& r = registry();
  std::lock_guard<std::mutex> lock(r.mutex);
  for (auto& [name, c] : r.counters) {
    for (auto* field : {&c.native, &c.engine, &c.staged, &c.copied, &c.waited}) field->store(0);
  }
}

}  // namespace openreg::op_stats
