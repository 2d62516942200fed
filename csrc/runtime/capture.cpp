// Asking the driver about captures.
#include "runtime/capture.h"

#include <c10/util/Exception.h>

#include "hal/openreg_hal.h"
#include "runtime/driver.h"
#include "runtime/stream.h"

namespace openreg {

namespace detail {

std::atomic<int> captures{0};
std::atomic<uint64_t> captured_tasks{0};

uint64_t find_capture(c10::Stream stream) {
  int32_t state = OPENREG_NOT_CAPTURING;
  uint64_t number = 0;
  check(hal().stream_capture_info(stream_handle(stream), &state, &number), "Asking whether a stream is being captured");
  return state == OPENREG_NOT_CAPTURING ? 0 : number;
}

}  // namespace detail

void refuse_to_wait_in_capture(c10::Stream stream, const char* what) {
  if (capture_of(stream) == 0) return;
  hal().stream_query(stream_handle(stream));
  throw c10::AcceleratorError({__func__, __FILE__, __LINE__}, OPENREG_CAPTURE,
                              c10::str(what, " has to wait for its result, and stream ", stream.id(), " of ", stream.device(),
                                       " is being captured, so nothing of it runs now. Operators whose results depend on data cannot be "
                                       "captured; any other needs one call of the same kind before the capture begins: warm the function up first."));
}

RelaxedCapture::RelaxedCapture() {
  if (!captures_underway()) return;
  int32_t mode = OPENREG_CAPTURE_RELAXED;
  if (hal().capture_exchange_mode(&mode) == OPENREG_OK) before_ = mode;
}

RelaxedCapture::~RelaxedCapture() {
  if (before_ >= 0) hal().capture_exchange_mode(&before_);
}

}  // namespace openreg
