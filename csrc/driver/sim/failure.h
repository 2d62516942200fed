// failure.h: how one failed task stops a stream, spreads to those that wait for it, and is reported once.
//
// A failure is shared by every stream and record that carries it. See Note [Skipping].
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "hal/openreg_hal.h"

namespace openreg::sim {

struct Chip;
struct Stream;

// Note [Skipping]
// A stream skips every task that begins before its skip_until: 0 when all is well, "everything" while it carries a failure
// that nobody was told of, and, from the report on, the tail it had at that moment, because what was enqueued before
// builds on results that do not exist. The report keeps the tails of all streams: one that meets the failure only later,
// at a wait, skips exactly what it had queued by then. Records made by skipped tasks carry the failure too.
struct Failure {
  openreg_error error;
  uint64_t order;           // earlier failures have lower numbers
  bool reported = false;    // LOCK: Chip::failure_mutex
  bool printed = false;     // LOCK: Chip::failure_mutex
  std::vector<std::pair<uint64_t, uint64_t>> tails;  // stream id -> tail at the report. LOCK: Chip::failure_mutex
};
using FailurePtr = std::shared_ptr<Failure>;

// A task of the stream failed. The caller owns the stream.
void fail_stream(Stream& stream, const openreg_error& error);

// A wait of the stream, whose record begins at `position`, met a record that carries `failure`. The caller owns the stream.
void inherit_failure(Stream& stream, const FailurePtr& failure, uint64_t position);

// What a record at `position` carries: null when the work before it ran. The caller owns the stream.
FailurePtr carried_failure(Stream& stream, uint64_t position);

// The failure that the stream carries and nobody was told of, or null. Any thread.
FailurePtr pending_failure(Stream& stream);

// Marks the failure as reported everywhere and returns its status; OK when it was reported already. error may be null.
openreg_status report_failure(Chip& chip, const FailurePtr& failure, openreg_error* error);

// Copies the failure into the caller's record, which may be null.
void fill_error(const Failure& failure, openreg_error* error);

// Prints what nobody was told of, unless another live stream still carries it. Any thread.
void print_unreported(Stream& stream);

// INVALID_VALUE when the caller's record is too small to hold a status.
openreg_status check_error_record(const char* operation, const openreg_error* error);

}  // namespace openreg::sim
