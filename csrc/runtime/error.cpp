// Turning failures into values and back, and waiting.
#include "runtime/error.h"

#include <c10/util/Exception.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <string>

#include "runtime/device.h"
#include "runtime/driver.h"
#include "runtime/interpreter_lock.h"
#include "runtime/launch.h"
#include "runtime/recovery.h"
#include "runtime/sanitizer.h"
#include "runtime/schedule.h"
#include "runtime/watchdog.h"

namespace openreg {

namespace {

std::atomic<void (*)()> interrupt_check{nullptr};
thread_local int host_waits = 0;

void fill(openreg_error* error, ErrorKind kind, const char* message) noexcept {
  error->kind = static_cast<int32_t>(kind);
  std::strncpy(error->message, message, sizeof(error->message) - 1);
  error->message[sizeof(error->message) - 1] = '\0';
}

const char* kind_name(int32_t kind) {
  switch (static_cast<ErrorKind>(kind)) {
    case ErrorKind::index: return "IndexError";
    case ErrorKind::value: return "ValueError";
    case ErrorKind::type: return "TypeError";
    case ErrorKind::not_implemented: return "NotImplementedError";
    case ErrorKind::linalg: return "LinAlgError";
    case ErrorKind::out_of_memory: return "OutOfMemoryError";
    default: return "RuntimeError";
  }
}

// What messages call the driver's device: torch's number, where there is one.
int named_device(int32_t device) {
  const int index = torch_device(device);
  return index >= 0 ? index : device;
}

[[noreturn]] void throw_lost(int device, const std::string& reason) {
  throw c10::AcceleratorError({__func__, __FILE__, __LINE__}, OPENREG_DEVICE_LOST, loss_sentence(device, reason));
}

}  // namespace

void describe_current_exception(openreg_error* error) noexcept {
  try {
    throw;
  } catch (const c10::IndexError& e) {
    fill(error, ErrorKind::index, e.what_without_backtrace());
  } catch (const c10::ValueError& e) {
    fill(error, ErrorKind::value, e.what_without_backtrace());
  } catch (const c10::TypeError& e) {
    fill(error, ErrorKind::type, e.what_without_backtrace());
  } catch (const c10::NotImplementedError& e) {
    fill(error, ErrorKind::not_implemented, e.what_without_backtrace());
  } catch (const c10::LinAlgError& e) {
    fill(error, ErrorKind::linalg, e.what_without_backtrace());
  } catch (const c10::OutOfMemoryError& e) {
    fill(error, ErrorKind::out_of_memory, e.what_without_backtrace());
  } catch (const c10::Error& e) {
    fill(error, ErrorKind::runtime, e.what_without_backtrace());
  } catch (const std::exception& e) {
    fill(error, ErrorKind::runtime, e.what());
  } catch (...) {
    fill(error, ErrorKind::runtime, "an exception that is not a std::exception");
  }
}

void throw_late_error(const openreg_error& error) {
  if (error.status == OPENREG_DEVICE_LOST) throw_lost(named_device(error.device), error.message);
  std::ostringstream text;
  const std::string site = launch_site(error.tag);
  text << error.name << " failed on openreg:" << named_device(error.device) << ", stream " << error.stream_id << ": "
       << kind_name(error.kind) << ": " << error.message;
  if (!site.empty()) {
    text << "\nLaunched at " << site << "\n";
  } else {
    text << "\nThe operator ran after its call had returned, so this error may name another line. Set OPENREG_LAUNCH_BLOCKING=1 "
            "to raise it at the call, or OPENREG_LAUNCH_TRACE=1 to see where it was launched.";
  }
  text << " Work queued on the stream behind it was skipped; the stream can be used again.";
  if (const std::string schedule = current_schedule(); schedule.rfind("random:", 0) == 0) text << " The schedule was " << schedule << ".";
  throw c10::AcceleratorError({__func__, __FILE__, __LINE__}, error.status, text.str());
}

HostWait::HostWait() noexcept { ++host_waits; }
HostWait::~HostWait() { --host_waits; }
bool HostWait::active() noexcept { return host_waits > 0; }

void throw_skipped(const char* name) {
  throw c10::AcceleratorError({__func__, __FILE__, __LINE__}, OPENREG_LAUNCH_FAILED,
                              std::string(name) + " was skipped because earlier work on its stream had failed; that failure was raised in another "
                                                  "thread. The stream can be used again.");
}

void set_interrupt_check(void (*check)()) { interrupt_check = check; }

void wait_for(WaitFunction poll, void* object, const char* what, c10::DeviceIndex device) {
  refuse_in_host_function("A wait");
  openreg_error error;
  error.struct_size = sizeof(error);
  constexpr uint64_t kSliceNs = 50'000'000;
  const uint64_t losses = losses_of(device);
  const WatchedWait watched(what, device);
  for (;;) {
    error.message[0] = '\0';
    error.name[0] = '\0';
    const openreg_status status = [&] {
      const WithoutInterpreterLock released;
      return poll_slice(poll, object, device, kSliceNs | OPENREG_LEND_THREAD, &error);
    }();
    error.status = status;
    if (status == OPENREG_LAUNCH_FAILED || status == OPENREG_DEVICE_LOST) throw_late_error(error);
    if (losses_of(device) != losses) {
      leave_wait();
      throw_lost(device, "it was given up during this wait, and reset by another thread");
    }
    if (status == OPENREG_OK) return raise_findings();
    if (status != OPENREG_NOT_READY) check(status, "Waiting");
    try {
      if (auto* interrupt = interrupt_check.load()) interrupt();
    } catch (...) {
      leave_wait();
      throw;
    }
  }
}

}  // namespace openreg
