// The list of waiting threads, the thread that looks at it, and helpers that wait in a program's place.
#include "runtime/watchdog.h"

#include <c10/util/Exception.h>
#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "runtime/capture.h"
#include "runtime/device.h"
#include "runtime/driver.h"
#include "runtime/recovery.h"
#include "runtime/sanitizer.h"
#include "runtime/stream.h"

namespace openreg {

namespace {

double stall_seconds() {
  static const double seconds = [] {
    const char* text = std::getenv("OPENREG_STALL_SECONDS");
    return text != nullptr && text[0] != '\0' ? std::atof(text) : 120.0;
  }();
  return seconds;
}

bool abandons() {
  static const bool on = [] {
    const char* text = std::getenv("OPENREG_STALL_ACTION");
    return text != nullptr && std::strcmp(text, "abandon") == 0 && stall_seconds() > 0;
  }();
  return on;
}

uint64_t now_ns() {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count());
}

// A thread that has waited. Never freed: used again when its thread has ended.
struct Slot {
  std::atomic<const char*> what{nullptr};  // null: does not wait
  std::atomic<uint64_t> since_ns{0};
  std::atomic<int> device{-1};
  std::atomic<const char*> launch{nullptr};  // null: does not launch
  std::atomic<uint64_t> launches{0};
  std::atomic<bool> taken{true};
  // The watchdog's: the wait that was reported, and since when nothing has happened on its device.
  uint64_t reported_ns = 0, queues = 0, quiet_since_ns = 0;
  // The watchdog's: the launch that its last look found, since when it finds it, and whether that was reported.
  uint64_t seen_launch = 0, seen_since_ns = 0;
  bool launch_reported = false;
  Slot* next = nullptr;      // constant once it is in the list
};

std::atomic<Slot*> slots{nullptr};

Slot* take_slot() {
  for (Slot* slot = slots.load(std::memory_order_acquire); slot != nullptr; slot = slot->next) {
    bool free = false;
    if (slot->taken.compare_exchange_strong(free, true)) return slot;
  }
  Slot* made = new Slot;
  made->next = slots.load(std::memory_order_relaxed);
  while (!slots.compare_exchange_weak(made->next, made, std::memory_order_release)) {
  }
  return made;
}

void start_watchdog() noexcept;

struct OwnSlot {
  Slot* slot = take_slot();
  OwnSlot() {
    static std::once_flag once;
    std::call_once(once, start_watchdog);
  }
  ~OwnSlot() {
    slot->what.store(nullptr, std::memory_order_release);
    slot->launch.store(nullptr, std::memory_order_release);
    slot->taken.store(false, std::memory_order_release);
  }
};

Slot& own_slot() {
  static thread_local OwnSlot own;
  return *own.slot;
}

// ---- The watchdog -----------------------------------------------------------

struct Watchdog {
  std::mutex mutex;  // LOCK: held during a look at the driver
  bool stopped = false;
};

Watchdog& watchdog() {
  static Watchdog* leaked = new Watchdog;
  return *leaked;
}

std::string seconds(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), value < 10 ? "%.1f s" : "%.0f s", value);
  return text;
}

// A task as old as the wait for it looks a little younger: the wait began first, and the driver's clock for this is coarse.
constexpr double kNearly = 0.9;

// Gives up every device with a task that runs for too long.
void abandon_hung_devices() {
  for (const c10::Stream stream : used_streams()) {
    openreg_stream_info info = {};
    info.struct_size = sizeof(info);
    if (hal().stream_info(stream_handle(stream), &info) != OPENREG_OK || info.running[0] == '\0') continue;
    const double running = static_cast<double>(info.running_for_ns) * 1e-9;
    if (running < kNearly * stall_seconds() || loss_reason(stream.device_index())) continue;
    abandon_device(stream.device_index(), std::string(info.running) + " on stream " + std::to_string(info.stream_id) + " has run for " + seconds(running) +
                                              " and did not end (OPENREG_STALL_ACTION=abandon)");
  }
}

// Whether nothing has run or ended on the device for as long as a wait may take: its work waits for something that does not come.
bool is_quiet(Slot& slot, c10::DeviceIndex device) {
  uint64_t queues = 0;
  bool runs = false;
  for (const c10::Stream stream : used_streams()) {
    openreg_stream_info info = {};
    info.struct_size = sizeof(info);
    if (stream.device_index() != device || hal().stream_info(stream_handle(stream), &info) != OPENREG_OK) continue;
    runs |= info.running[0] != '\0';
    queues = queues * 1000003 + info.queued;
  }
  const bool moved = runs || std::exchange(slot.queues, queues) != queues || slot.quiet_since_ns == 0;
  if (moved) slot.quiet_since_ns = now_ns();
  return static_cast<double>(now_ns() - slot.quiet_since_ns) * 1e-9 > stall_seconds();
}

void report(const char* what, double waited) {
  std::fprintf(stderr, "openreg: a wait for %s has taken %s. Streams with queued work:\n", what, seconds(waited).c_str());
  for (c10::DeviceIndex device = 0; device < device_count(); ++device) print_streams(device);
  std::fflush(stderr);
}

// A launch takes long where it waits for room in a full queue.
void look_at_launch(Slot& slot) {
  const char* name = slot.launch.load(std::memory_order_acquire);
  const uint64_t number = slot.launches.load(std::memory_order_relaxed);
  if (name == nullptr || std::exchange(slot.seen_launch, number) != number) {
    slot.seen_since_ns = now_ns();
    slot.launch_reported = false;
    return;
  }
  const double waited = static_cast<double>(now_ns() - slot.seen_since_ns) * 1e-9;
  if (waited <= stall_seconds()) return;
  if (!std::exchange(slot.launch_reported, true)) report((std::string("room in the queue for ") + name).c_str(), waited);
  if (abandons()) abandon_hung_devices();
}

void look_at(Slot& slot) {
  const char* what = slot.what.load(std::memory_order_acquire);
  const uint64_t since = slot.since_ns.load(std::memory_order_relaxed);
  if (what == nullptr || since == 0) return look_at_launch(slot);
  const double waited = static_cast<double>(now_ns() - since) * 1e-9;
  if (waited <= stall_seconds()) return;
  if (std::exchange(slot.reported_ns, since) != since) {
    report(what, waited);
    slot.quiet_since_ns = 0;
  }
  if (!abandons()) return;
  abandon_hung_devices();
  const auto device = static_cast<c10::DeviceIndex>(slot.device.load(std::memory_order_relaxed));
  if (slot.since_ns.load(std::memory_order_relaxed) != since || device < 0 || loss_reason(device) || !is_quiet(slot, device)) return;
  abandon_device(device, "a wait for " + std::string(what) + " has taken " + seconds(waited) + " (OPENREG_STALL_ACTION=abandon)");
}

void watch() {
  const std::chrono::duration<double> pause(std::clamp(stall_seconds() / 4, 0.01, 30.0));
  for (;;) {
    std::this_thread::sleep_for(pause);
    std::lock_guard<std::mutex> lock(watchdog().mutex);
    if (watchdog().stopped) return;
    if (!driver_started()) continue;
    try {
      for (Slot* slot = slots.load(std::memory_order_acquire); slot != nullptr; slot = slot->next) look_at(*slot);
    } catch (const std::exception& error) {
      std::fprintf(stderr, "openreg: the watchdog cannot look at the devices: %s\n", error.what());
      return;
    }
  }
}

// Signals are the program's business.
void start_thread(void (*run)(void*), void* argument) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    std::thread(run, argument).detach();
  } catch (const std::system_error&) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void start_watchdog() noexcept {
  try {
    if (stall_seconds() > 0) start_thread([](void*) { watch(); }, nullptr);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "openreg: there is no watchdog, because the system gives no thread for it: %s\n", error.what());
  }
}

// ---- Helpers ----------------------------------------------------------------

// A helper and what it is to do. Shared by both threads.
struct Helper {
  std::mutex mutex;  // LOCK: everything below
  std::condition_variable changed;
  enum { idle, asked, done, left } state = idle;
  WaitFunction poll = nullptr;
  void* object = nullptr;
  uint64_t timeout_ns = 0;
  bool unobserved = false;
  openreg_status status = OPENREG_OK;
  openreg_error error = {};
};

openreg_status poll_as(Helper& helper, openreg_error* error) {
  const HostWait borrowed;
  if (!helper.unobserved) return helper.poll(helper.object, helper.timeout_ns, error);
  const RuntimeWait wait;
  return helper.poll(helper.object, helper.timeout_ns, error);
}

void help(void* argument) {
  const std::unique_ptr<std::shared_ptr<Helper>> owned(static_cast<std::shared_ptr<Helper>*>(argument));
  Helper& helper = **owned;
  std::unique_lock<std::mutex> lock(helper.mutex);
  for (;;) {
    helper.changed.wait(lock, [&] { return helper.state == Helper::asked || helper.state == Helper::left; });
    if (helper.state == Helper::left) return;
    lock.unlock();
    openreg_error error = {};
    error.struct_size = sizeof(error);
    const openreg_status status = poll_as(helper, &error);
    lock.lock();
    if (helper.state == Helper::left) return;
    helper.status = status;
    helper.error = error;
    helper.state = Helper::done;
    helper.changed.notify_all();
  }
}

struct OwnHelper {
  std::shared_ptr<Helper> helper;
  ~OwnHelper() { leave(); }
  void leave() noexcept {
    if (helper == nullptr) return;
    std::lock_guard<std::mutex> lock(helper->mutex);
    helper->state = Helper::left;
    helper->changed.notify_all();
    // The helper keeps the other reference.
  }
};
thread_local OwnHelper own_helper;

}  // namespace

WatchedWait::WatchedWait(const char* what, c10::DeviceIndex device) noexcept {
  Slot& slot = own_slot();
  what_ = slot.what.load(std::memory_order_relaxed);
  device_ = static_cast<c10::DeviceIndex>(slot.device.load(std::memory_order_relaxed));
  since_ns_ = slot.since_ns.load(std::memory_order_relaxed);
  slot.device.store(device, std::memory_order_relaxed);
  slot.since_ns.store(now_ns(), std::memory_order_relaxed);
  slot.what.store(what, std::memory_order_release);
}

WatchedWait::~WatchedWait() {
  Slot& slot = own_slot();
  slot.what.store(what_, std::memory_order_release);
  slot.since_ns.store(since_ns_, std::memory_order_relaxed);
  slot.device.store(device_, std::memory_order_relaxed);
}

WatchedLaunch::WatchedLaunch(const char* name) noexcept {
  Slot& slot = own_slot();
  slot.launches.store(slot.launches.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  slot.launch.store(name, std::memory_order_release);
}

WatchedLaunch::~WatchedLaunch() { own_slot().launch.store(nullptr, std::memory_order_release); }

openreg_status poll_slice(WaitFunction poll, void* object, c10::DeviceIndex device, uint64_t timeout_ns, openreg_error* error) {
  if (!abandons() || captures_underway()) {
    leave_wait();  // where a capture began during the wait
    const HostWait borrowed;
    return poll(object, timeout_ns, error);
  }
  std::shared_ptr<Helper>& helper = own_helper.helper;
  if (helper == nullptr) {
    helper = std::make_shared<Helper>();
    start_thread(help, new std::shared_ptr<Helper>(helper));
  }
  std::unique_lock<std::mutex> lock(helper->mutex);
  if (helper->state == Helper::idle) {
    helper->poll = poll;
    helper->object = object;
    helper->timeout_ns = timeout_ns;
    helper->unobserved = layers::sanitizer::is_unobserved();
    helper->state = Helper::asked;
    helper->changed.notify_all();
  }
  const std::chrono::nanoseconds slice(timeout_ns & ~OPENREG_LEND_THREAD);
  if (helper->changed.wait_for(lock, slice, [&] { return helper->state == Helper::done; })) {
    helper->state = Helper::idle;
    const uint32_t size = error->struct_size;
    *error = helper->error;
    error->struct_size = size;
    return helper->status;
  }
  lock.unlock();
  const auto reason = device < 0 ? std::nullopt : loss_reason(device);
  if (!reason) return OPENREG_NOT_READY;
  leave_wait();
  error->device = driver_device(device);
  std::snprintf(error->message, sizeof(error->message), "%s", reason->c_str());
  return OPENREG_DEVICE_LOST;
}

void leave_wait() noexcept {
  if (own_helper.helper == nullptr) return;
  {
    std::lock_guard<std::mutex> lock(own_helper.helper->mutex);
    if (own_helper.helper->state == Helper::idle) return;
  }
  own_helper.leave();
  own_helper.helper.reset();
}

void stop_watchdog() noexcept {
  std::lock_guard<std::mutex> lock(watchdog().mutex);
  watchdog().stopped = true;
}

}  // namespace openreg
