// One global callback while anybody wants ranges.
#include "profiler/ranges.h"

#include <ATen/record_function.h>

#include <memory>
#include <mutex>
#include <string>
#include <unordered_set>

#include "runtime/driver.h"
#include "runtime/error.h"
#include "runtime/trace.h"

namespace openreg {

namespace {

std::mutex mutex;  // LOCK: users, callback
int users = 0;
at::CallbackHandle callback = at::INVALID_CALLBACK_HANDLE;

uint64_t device_now() {
  uint64_t now = 0;
  hal().device_clock(driver_device(0), &now);
  return now;
}

// Records live longer than the range that they are of. Only names that somebody traces are kept.
const char* kept(const char* name) {
  static std::mutex names_mutex;  // LOCK: names
  static auto* names = new std::unordered_set<std::string>;
  std::lock_guard<std::mutex> lock(names_mutex);
  return names->emplace(name).first->c_str();
}

struct Begin final : at::ObserverContext {
  explicit Begin(uint64_t ns) : begin_ns(ns) {}
  const uint64_t begin_ns;
};

bool may_tell() { return !in_bad_fork() && !driver_stopped() && is_traced(); }

std::unique_ptr<at::ObserverContext> before(const at::RecordFunction&) {
  return may_tell() ? std::make_unique<Begin>(device_now()) : nullptr;
}

void after(const at::RecordFunction& range, at::ObserverContext* context) {
  if (context == nullptr || !may_tell()) return;
  openreg_trace_record record = {};
  record.struct_size = sizeof(record);
  record.kind = kTraceRange;
  record.device = record.dst_device = record.src_device = -1;
  record.name = kept(range.name());
  record.begin_ns = static_cast<const Begin*>(context)->begin_ns;
  record.end_ns = device_now();
  give_trace_record(record);
}

}  // namespace

void begin_ranges() {
  device_now();
  std::lock_guard<std::mutex> lock(mutex);
  if (users++ != 0) return;
  callback = at::addGlobalCallback(
      at::RecordFunctionCallback(before, after).scopes({at::RecordScope::FUNCTION, at::RecordScope::BACKWARD_FUNCTION, at::RecordScope::USER_SCOPE}));
}

void end_ranges() {
  std::lock_guard<std::mutex> lock(mutex);
  if (users == 0 || --users != 0) return;
  at::removeCallback(callback);
}

}  // namespace openreg
