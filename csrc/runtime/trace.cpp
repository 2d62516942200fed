// One sink for all consumers. Its list is constant: a change makes a new list, and the old one goes when the driver has left it.
#include "runtime/trace.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "runtime/driver.h"

namespace openreg {

namespace {

using Consumers = std::vector<TraceConsumer*>;

struct State {
  std::mutex mutex;  // LOCK: consumers
  std::unique_ptr<const Consumers> consumers = std::make_unique<Consumers>();
};

State& state() {
  static State* leaked = new State;
  return *leaked;
}

std::atomic<bool> traced{false};

void distribute(void* context, const openreg_trace_record* record) {
  for (TraceConsumer* consumer : *static_cast<const Consumers*>(context)) consumer->take(*record);
}

// LOCK: State::mutex
void replace(std::unique_ptr<const Consumers> consumers) {
  const openreg_trace_sink sink = consumers->empty() ? nullptr : distribute;
  check(hal().trace_exchange(sink, const_cast<Consumers*>(consumers.get())), "Tracing");
  state().consumers = std::move(consumers);
  traced = sink != nullptr;
}

}  // namespace

void add_trace_consumer(TraceConsumer* consumer) {
  const openreg_driver& driver = hal();
  TORCH_CHECK_NOT_IMPLEMENTED(has_entry(driver, &openreg_driver::trace_exchange), "The driver '", driver.name,
                              "' keeps no trace: it has no trace_exchange.");
  std::lock_guard<std::mutex> lock(state().mutex);
  auto grown = std::make_unique<Consumers>(*state().consumers);
  grown->push_back(consumer);
  replace(std::move(grown));
}

bool is_traced() noexcept { return traced.load(std::memory_order_relaxed); }

void give_trace_record(const openreg_trace_record& record) {
  std::lock_guard<std::mutex> lock(state().mutex);
  for (TraceConsumer* consumer : *state().consumers) consumer->take(record);
}

void remove_trace_consumer(TraceConsumer* consumer) {
  std::lock_guard<std::mutex> lock(state().mutex);
  auto rest = std::make_unique<Consumers>(*state().consumers);
  const auto found = std::find(rest->begin(), rest->end(), consumer);
  if (found == rest->end()) return;
  rest->erase(found);
  if (driver_stopped() || in_bad_fork())
    state().consumers = std::move(rest);  // the driver has left the sink, or is the parent's
  else
    replace(std::move(rest));
}

}  // namespace openreg
