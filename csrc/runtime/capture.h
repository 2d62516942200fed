// Captures: what the rest of the runtime must know while streams are being captured into graphs.
#pragma once

#include <c10/core/Stream.h>

#include <atomic>
#include <cstdint>

#include "runtime/export.h"

namespace openreg {

namespace detail {
OPENREG_API extern std::atomic<int> captures;
OPENREG_API extern std::atomic<uint64_t> captured_tasks;
OPENREG_API uint64_t find_capture(c10::Stream stream);
}  // namespace detail

// Whether any stream of the process is being captured. Hot.
inline bool captures_underway() noexcept { return detail::captures.load(std::memory_order_acquire) != 0; }

// The number of the capture that the stream is in, 0 when it is in none. Hot.
inline uint64_t capture_of(c10::Stream stream) { return __builtin_expect(captures_underway(), 0) ? detail::find_capture(stream) : 0; }

// Counts a task that is enqueued on the stream, when it is in a capture. Hot.
inline void count_captured_task(c10::Stream stream) {
  if (__builtin_expect(capture_of(stream) != 0, 0)) detail::captured_tasks.fetch_add(1, std::memory_order_relaxed);
}

// How many tasks all captures of the process have taken up so far.
inline uint64_t captured_tasks() noexcept { return detail::captured_tasks.load(std::memory_order_relaxed); }

// Throws AcceleratorError when the stream is being captured, and makes the capture invalid: for calls that would have to wait. `what` is the
// subject of the sentence ("aten::nonzero").
OPENREG_API void refuse_to_wait_in_capture(c10::Stream stream, const char* what);

// Frees the calling thread, for its lifetime, from what captures forbid: for allocators, whose calls to the driver are safe at any time.
class OPENREG_API RelaxedCapture {
 public:
  RelaxedCapture();
  ~RelaxedCapture();
  RelaxedCapture(const RelaxedCapture&) = delete;
  RelaxedCapture& operator=(const RelaxedCapture&) = delete;

 private:
  int32_t before_ = -1;  // -1: nothing was changed
};

}  // namespace openreg
