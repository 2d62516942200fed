// executor.h: runs the tasks of a stream on the calling thread.
#pragma once

#include <cstdint>

#include "driver/sim/schedule.h"

namespace openreg::sim {

struct Chip;
struct Record;
struct Stream;
struct Task;

// Runs tasks in order until `target` is reached, the queue is empty, the deadline has passed between two tasks (at least
// one runs), or the chip stops. The caller owns the stream.
Progress run_tasks(Stream& stream, uint64_t target, uint64_t deadline_ns);

// The name of the stream's next task; "" when there is none. The caller owns the stream.
const char* next_task_name(Stream& stream);

// The record that the stream's next task waits for when that is not complete yet, else null. The caller owns the stream.
Record* blocking_record(Stream& stream);

// Whether the stream's next task waits for another process that has not come so far. The caller owns the stream.
bool is_held_up(Stream& stream);

// Drops what is queued: cleanups run and records complete, tasks do not run. Returns how many. The caller owns the stream.
uint64_t drop_tasks(Stream& stream);

// Drops what is queued behind the task that the owner of a lost stream is in, and moves the head past that task; the owner keeps the task and
// cleans it up. False when the owner is between two tasks. One thread at a time.
bool empty_for_owner(Stream& stream);

// Calls the task's cleanup, which it has, with its arguments.
void clean_up_arguments(Task& task);

}  // namespace openreg::sim
