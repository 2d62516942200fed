// Handing calls from streams to Python's threads.
#include "python/host_function.h"

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <utility>

#include "runtime/error.h"
#include "runtime/launch.h"
#include "runtime/sanitizer.h"

namespace openreg::python {

namespace {

using Clock = std::chrono::steady_clock;
using StreamKey = std::pair<int, int64_t>;  // device, id

// A task that waits for its function.
struct Turn {
  bool done = false;
  bool abandoned = false;
  std::string kind, error;
};

struct Lane {
  std::deque<std::pair<HostCall, Turn*>> calls;
  Turn* running = nullptr;  // null also when its task has given up
  bool stuck = false;       // in a function whose task was abandoned
};

struct Lanes {
  std::mutex mutex;  // LOCK: everything below, and the turns
  std::condition_variable changed;
  std::map<StreamKey, Lane> lanes;
  std::optional<Clock::time_point> expiry;
  bool expired() const { return expiry && Clock::now() >= *expiry; }
};

Lanes& all() {
  static Lanes* leaked = new Lanes;
  return *leaked;
}

StreamKey key_of(c10::Stream stream) { return {stream.device_index(), stream.id()}; }

struct Args {
  int device;
  int64_t stream;
  uint64_t function;
  uint64_t mark;  // of the sanitizer: what lies before the function; it may tell other threads
};

ErrorKind kind_named(const std::string& name) {
  if (name == "IndexError") return ErrorKind::index;
  if (name == "ValueError") return ErrorKind::value;
  if (name == "TypeError") return ErrorKind::type;
  if (name == "NotImplementedError") return ErrorKind::not_implemented;
  return ErrorKind::runtime;
}

openreg_status fail(openreg_error* error, const std::string& kind, const std::string& message) {
  error->kind = static_cast<int32_t>(kind_named(kind));
  const bool named = kind_named(kind) != ErrorKind::runtime || kind == "RuntimeError";
  const std::string text = named ? message : kind + ": " + message;
  error->message[text.copy(error->message, sizeof(error->message) - 1)] = '\0';
  return OPENREG_LAUNCH_FAILED;
}

openreg_status run(void* raw, openreg_error* error) {
  Args args;
  std::memcpy(&args, raw, sizeof(args));
  Turn turn;
  reach_sanitizer_mark(args.mark);
  {
    Lanes& a = all();
    std::unique_lock<std::mutex> lock(a.mutex);
    Lane& lane = a.lanes[{args.device, args.stream}];
    if (!a.expired()) {
      lane.calls.push_back({{args.function, false}, &turn});
      a.changed.notify_all();
    }
    while (!turn.done && !turn.abandoned && !a.expired()) {
      if (a.expiry) {
        a.changed.wait_until(lock, *a.expiry);
      } else {
        a.changed.wait(lock);
      }
    }
    if (!turn.done) {  // nobody may touch the turn from now on
      std::erase_if(lane.calls, [&](const auto& call) { return call.second == &turn; });
      if (lane.running == &turn) {
        lane.running = nullptr;
        lane.stuck = turn.abandoned;
      }
      if (turn.abandoned) return fail(error, "RuntimeError", "the device was lost before the function had returned.");
      return fail(error, "RuntimeError", "the program ended before the function did.");
    }
  }
  return turn.kind.empty() ? OPENREG_OK : fail(error, turn.kind, turn.error);
}

void drop(void* raw) {
  Args args;
  std::memcpy(&args, raw, sizeof(args));
  forget_sanitizer_mark(args.mark);
  Lanes& a = all();
  std::lock_guard<std::mutex> lock(a.mutex);
  a.lanes[{args.device, args.stream}].calls.push_back({{args.function, true}, nullptr});
  a.changed.notify_all();
}

}  // namespace

void launch_host_function(c10::Stream stream, uint64_t function) {
  const Args args = {stream.device_index(), stream.id(), function, new_sanitizer_mark(stream)};
  launch_host_func(stream, "openreg::host_function", run, &args, sizeof(args), drop);
  after_launch(stream);
}

bool next_host_call(c10::Stream stream, HostCall* call) {
  Lanes& a = all();
  std::unique_lock<std::mutex> lock(a.mutex);
  Lane& lane = a.lanes[key_of(stream)];
  while (lane.calls.empty()) {
    if (a.expired()) return false;
    if (a.expiry) {
      a.changed.wait_until(lock, *a.expiry);
    } else {
      a.changed.wait(lock);
    }
  }
  *call = lane.calls.front().first;
  lane.running = lane.calls.front().second;
  lane.calls.pop_front();
  set_in_host_function(!call->drop);
  return true;
}

void finish_host_call(c10::Stream stream, const std::string& kind, const std::string& error) {
  set_in_host_function(false);
  Lanes& a = all();
  std::lock_guard<std::mutex> lock(a.mutex);
  Turn* turn = std::exchange(a.lanes[key_of(stream)].running, nullptr);
  if (turn == nullptr) return;
  turn->kind = kind;
  turn->error = error;
  turn->done = true;
  a.changed.notify_all();
}

void abandon_host_functions(c10::DeviceIndex device) {
  Lanes& a = all();
  std::lock_guard<std::mutex> lock(a.mutex);
  for (auto& [key, lane] : a.lanes) {
    if (key.first != device) continue;
    if (lane.running != nullptr) lane.running->abandoned = true;
    for (auto& [call, turn] : lane.calls) {
      if (turn != nullptr) turn->abandoned = true;
    }
  }
  a.changed.notify_all();
}

bool host_thread_is_stuck(c10::Stream stream) {
  Lanes& a = all();
  std::lock_guard<std::mutex> lock(a.mutex);
  return std::exchange(a.lanes[key_of(stream)].stuck, false);
}

void expire_host_functions(uint64_t timeout_ns) {
  Lanes& a = all();
  std::lock_guard<std::mutex> lock(a.mutex);
  a.expiry = Clock::now() + std::chrono::nanoseconds(timeout_ns);
  a.changed.notify_all();
}

}  // namespace openreg::python
