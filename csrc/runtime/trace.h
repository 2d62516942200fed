// Who wants the driver's trace records: any number of consumers at a time. Without one the driver has no sink, and pays a load per call.
#pragma once

#include "hal/openreg_hal.h"
#include "runtime/export.h"

namespace openreg {

class OPENREG_API TraceConsumer {
 public:
  // A record of the driver, see openreg_trace_sink: on any thread, from several at once. May not call the driver, block, or keep the pointer.
  virtual void take(const openreg_trace_record& record) noexcept = 0;

 protected:
  ~TraceConsumer() = default;
};

// Gives the consumer every record from now on, with those of operations that are queued. Starts the driver; NotImplementedError when it keeps no
// trace. Not inside take. Any thread.
OPENREG_API void add_trace_consumer(TraceConsumer* consumer);

// Ends that; no thread is in the consumer any more. Nothing for one that was not added. Not inside take. Any thread.
OPENREG_API void remove_trace_consumer(TraceConsumer* consumer);

// The kind of a record that does not come from the driver: an operator or a range of the program, on its thread.
constexpr int32_t kTraceRange = 64;

// Whether there is a consumer. Any thread.
OPENREG_API bool is_traced() noexcept;

// Hands such a record to every consumer. Not inside take. Any thread.
OPENREG_API void give_trace_record(const openreg_trace_record& record);

}  // namespace openreg
