// The recorder of memory history: which events it keeps, and one bounded trace per device.
//
// Note [Memory history]
// While somebody records, a heap gathers the caller's stack before it takes its mutex, keeps it with the block, and tells the recorder
// under the mutex (Note [Memory history hooks]). The recorder appends to the device's trace and forgets the oldest entry when there are
// max_entries. Stacks are names of code and offsets until a snapshot resolves them. Off, no recorder is installed, and a heap's
// call costs one load.
#pragma once

#include <c10/core/CachingDeviceAllocator.h>
#include <c10/util/ApproximateClock.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/driver.h"
#include "runtime/export.h"
#include "runtime/memory_history.h"

namespace openreg {

// The context that recorders of this library keep: a stack for later, and its innermost Python line as text for the fault report, which
// runs in a signal handler and cannot resolve anything.
struct CallSite : c10::GatheredContext {
  std::shared_ptr<c10::GatheredContext> stack;  // what the installed source gathered; may be null
  std::string python_line;                      // "file:line in function", or ""
};

// Gathers the calling thread's stack. Called without any lock of the runtime, so it may take the GIL.
using CallSiteSource = std::shared_ptr<CallSite> (*)();

struct HistorySettings {
  c10::CachingDeviceAllocator::RecordContext stacks = c10::CachingDeviceAllocator::RecordContext::NEVER;
  CallSiteSource source = nullptr;  // not null unless stacks is NEVER
  uint64_t max_entries = 0;         // per device; 0: live blocks keep their stacks, and there is no trace
  uint32_t skipped_actions = 0;     // bit n: actions of value n are not kept
  uint64_t devices = ~uint64_t{0};  // bit n: device n has a trace
  bool annotations_of_all_threads = false;
  bool compile_context = false;  // entries name the compiled region that they happened in
};
static_assert(kMaxDevices <= 64, "HistorySettings::devices is one word");

// Records from now on; a running recording goes on with the new settings, its entries stay unless `clear`. Any thread.
OPENREG_API void start_memory_history(const HistorySettings& settings, bool clear);

// Ends the recording and forgets every trace. Blocks in use keep their stacks until they are freed. Any thread.
OPENREG_API void stop_memory_history();

// A text that entries of the calling thread carry from now on, "" for none.
OPENREG_API void set_memory_metadata(std::string text);
OPENREG_API std::string memory_metadata();

// The device's trace, oldest entry first, with approximate times. May be called with the heap locked.
std::vector<c10::CachingDeviceAllocator::TraceEntry> recorded_trace(c10::DeviceIndex device);

// Begins and ends of user annotations (torch.profiler.record_function), oldest first, with approximate times.
std::vector<c10::CachingDeviceAllocator::AnnotationEntry> recorded_annotations();

// Translates approximate times into nanoseconds since the epoch.
std::function<c10::time_t(c10::approx_time_t)> recorded_clock();

}  // namespace openreg
