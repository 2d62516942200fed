// stream.h: a stream whose tasks run at once, on the thread that enqueues them.
//
// With nothing ever pending, all that a stream keeps is its first failure. A failure is one shared object: reporting it
// sets one flag, and every stream and event that carries it is clear again.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

#include "driver/null/handle.h"
#include "hal/openreg_hal.h"

namespace openreg::null {

struct Failure {
  openreg_error error;
  uint64_t order;  // earlier failures have lower numbers
  std::atomic<bool> reported{false};
};

struct Stream {
  uint64_t id;
  std::mutex mutex;                  // held while a task runs: one at a time per stream
  std::shared_ptr<Failure> failure;  // LOCK: mutex
};

using Streams = Handles<Stream, openreg_stream>;
Streams& streams();

// The stream, or null with a sentence for last_message.
std::shared_ptr<Stream> find_stream(openreg_stream handle);

using Task = std::function<openreg_status(openreg_error*)>;

// INVALID_VALUE when the descriptor is one of another layout; null is legal.
openreg_status check_descriptor(const openreg_launch_desc* desc);

// Runs one task, or skips it while the stream carries an unreported failure; then the descriptor's cleanup with `args`.
void run_task(Stream& stream, const Task& task, void* args, const openreg_launch_desc* desc);

// The failure that the stream carries and nobody was told of, or null.
std::shared_ptr<Failure> pending_failure(Stream& stream);

// Marks the failure as reported and returns its status; OK for null and for one that was reported already.
openreg_status report(const std::shared_ptr<Failure>& failure, openreg_error* error);

// Prints what nobody was told of, then destroys every stream.
void destroy_all_streams();

openreg_status stream_create(int32_t device, int32_t priority, openreg_stream* stream);
openreg_status stream_destroy(openreg_stream stream);
openreg_status stream_query(openreg_stream stream);
openreg_status stream_synchronize(openreg_stream stream, uint64_t timeout_ns, openreg_error* error);
openreg_status stream_info(openreg_stream stream, openreg_stream_info* info);

}  // namespace openreg::null
