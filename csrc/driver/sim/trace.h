// trace.h: records of calls and operations, for whoever asked for them. While nobody did, every place that could make one costs a load.
//
// Note [Who traces]
// A record goes to the sink that its thread finds when it enters. Threads count themselves in and out, in one of two counters, the one that `epoch`
// names. Whoever replaces the sink moves the epoch on twice and waits each time for the counter that nobody enters any more to become 0;
// after that no thread is left that has seen the old sink, however many are busy with the new one.
#pragma once

#include <atomic>
#include <cstdint>

#include "driver/sim/failure.h"
#include "driver/sim/task.h"
#include "hal/openreg_hal.h"

namespace openreg::sim {

struct Record;
struct Stream;

struct TraceSink {
  openreg_trace_sink take;
  void* context;
};

extern std::atomic<const TraceSink*> trace_sink;

// Whether somebody traces. May be out of date by the time of the answer; everything below copes with that.
inline bool is_traced() { return __builtin_expect(trace_sink.load(std::memory_order_relaxed) != nullptr, 0); }

// Hands a record to the sink, if there still is one.
void give_record(const openreg_trace_record& record);

// A number for a call and its operations.
uint64_t next_correlation();

// What the tasks of the call that this thread is in are marked with; correlation 0 when the call began before the trace.
TraceMark current_mark();

// Replaces that mark, null: none, and returns the one before. The caller keeps it.
const TraceMark* exchange_mark(const TraceMark* mark);

// The operation of a task ended now; begin_ns: when it was begun, 0 when nobody traced then. Before its completion shows and its payload goes.
// The caller owns the stream. LAUNCH_FAILED, DEVICE_LOST: it failed or was skipped.
void trace_operation(Stream& stream, Task& task, uint64_t begin_ns, openreg_status status);

// A task that was queued goes without having run. The caller owns the stream.
void trace_dropped(Stream& stream, Task& task, openreg_status status);

// Operations that were over within their call: one without a payload; the record of an idle stream; a wait for nothing.
void trace_at_call(Stream& stream, const Task& task);
void trace_record_at_call(Stream& stream, Record& record, const FailurePtr& failure);
void trace_wait_at_call(Stream& stream, uint64_t cause);

inline openreg_status status_of(const FailurePtr& failure) { return failure ? failure->error.status : OPENREG_OK; }

// Takes the sink away. Called by shutdown.
void end_trace();

openreg_status trace_exchange(openreg_trace_sink sink, void* context);

}  // namespace openreg::sim
