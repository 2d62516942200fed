// Handing calls from streams to Python's threads.
#include "python/host_function.h"

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "runtime/error.h"
#include "runtime/launch.h"
#include "runtime/sanitizer.h"
#include "runtime/stream.h"

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
  bool idle = false;        // a thread waits for the next call
  bool over = false;        // the stream does not exist any more, and the lane is in no table: the thread ends
  uint64_t functions = 0;   // that were launched and not dropped
};

struct Lanes {
  std::mutex mutex;  // LOCK: everything below, and the turns
  std::condition_variable changed;
  std::map<StreamKey, std::shared_ptr<Lane>> lanes;
  std::optional<Clock::time_point> expiry;
  const std::shared_ptr<Lane>& lane(const StreamKey& key) {
    std::shared_ptr<Lane>& found = lanes[key];
    if (found == nullptr) found = std::make_shared<Lane>();
    return found;
  }
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
    Lane& lane = *a.lane({args.device, args.stream});
    if (!a.expired()) {
      lane.calls.push_back({{args.function, false, args.mark}, &turn});
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
  a.lane({args.device, args.stream})->calls.push_back({{args.function, true}, nullptr});
  a.changed.notify_all();
}

}  // namespace

void launch_host_function(c10::Stream stream, uint64_t function) {
  const Args args = {stream.device_index(), stream.id(), function, new_sanitizer_mark(stream)};
  Lanes& a = all();
  const auto count = [&](uint64_t change) {
    std::lock_guard<std::mutex> lock(a.mutex);
    a.lane(key_of(stream))->functions += change;
  };
  count(1);
  try {
    launch_host_func(stream, "openreg::host_function", run, &args, sizeof(args), drop);
  } catch (...) {
    count(uint64_t{0} - 1);
    throw;
  }
  after_launch(stream);
}

bool next_host_call(c10::Stream stream, HostCall* call) {
  Lanes& a = all();
  std::unique_lock<std::mutex> lock(a.mutex);
  const std::shared_ptr<Lane> served = a.lane(key_of(stream));
  Lane& lane = *served;
  lane.idle = true;
  while (lane.calls.empty()) {
    if (lane.over || a.expired()) return false;
    if (a.expiry) {
      a.changed.wait_until(lock, *a.expiry);
    } else {
      a.changed.wait(lock);
    }
  }
  lane.idle = false;
  *call = lane.calls.front().first;
  if (call->drop) --lane.functions;
  lane.running = lane.calls.front().second;
  lane.calls.pop_front();
  set_in_host_function(!call->drop);
  if (!call->drop) set_current_sanitizer_mark(call->mark != 0 ? call->mark : kUnknownMark);
  return true;
}

void finish_host_call(c10::Stream stream, const std::string& kind, const std::string& error) {
  set_in_host_function(false);
  set_current_sanitizer_mark(0);
  Lanes& a = all();
  std::lock_guard<std::mutex> lock(a.mutex);
  Turn* turn = std::exchange(a.lane(key_of(stream))->running, nullptr);
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
    if (lane->running != nullptr) lane->running->abandoned = true;
    for (auto& [call, turn] : lane->calls) {
      if (turn != nullptr) turn->abandoned = true;
    }
  }
  a.changed.notify_all();
}

bool host_thread_is_stuck(c10::Stream stream) {
  Lanes& a = all();
  std::lock_guard<std::mutex> lock(a.mutex);
  return std::exchange(a.lane(key_of(stream))->stuck, false);
}

std::vector<c10::Stream> end_host_threads() {
  Lanes& a = all();
  std::vector<c10::Stream> ended;
  std::lock_guard<std::mutex> lock(a.mutex);
  std::erase_if(a.lanes, [&](const auto& entry) {
    const auto& [key, lane] = entry;
    if (!lane->idle || lane->functions != 0 || stream_exists(key.second)) return false;
    lane->over = true;
    ended.emplace_back(c10::Stream::UNSAFE, c10::Device(c10::DeviceType::PrivateUse1, static_cast<c10::DeviceIndex>(key.first)), key.second);
    return true;
  });
  a.changed.notify_all();
  return ended;
}

void expire_host_functions(uint64_t timeout_ns) {
  Lanes& a = all();
  std::lock_guard<std::mutex> lock(a.mutex);
  a.expiry = Clock::now() + std::chrono::nanoseconds(timeout_ns);
  a.changed.notify_all();
}

}  // namespace openreg::python
