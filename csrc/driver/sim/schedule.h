// schedule.h: who runs tasks, and when.
//
// eager: a worker per used stream, and threads that wait help. lazy: nobody but threads that need a result.
// random: as lazy, one task at a time, picked with a seeded generator among all streams that could go on.
//
// Note [Changing the schedule]
// The schedule changes only when nothing is queued and nobody runs anything. Whoever changes it holds the random scheduler and, of every
// stream, the producers' lock and the ownership. These locks are tried and never waited for, so their order does not matter; a failed try
// means that work is underway, and the caller waits for it and tries again. Threads read Chip::schedule without a lock. One that has read the
// old value asks for positions that are finished; a worker, which asks for whatever comes, reads it again as the owner.
#pragma once

#include <cstdint>

#include "hal/openreg_hal.h"

namespace openreg::sim {

struct Stream;

// held_up: nothing can run before another process has done something. Stays within the random scheduler.
enum class Progress { reached, timed_out, stopped, stuck, held_up };

// Makes the stream's queue finish everything before `target`, by running tasks on this thread where the schedule lets it,
// else by waiting. Any thread; also an owner of other streams, see Note [Ownership].
// `waiter`: null, or a stream that the calling thread owns and waits for; when that is lost the wait is over.
Progress reach(Stream& stream, uint64_t target, uint64_t deadline_ns, const Stream* waiter = nullptr);

// Gives the stream up after running tasks, and wakes whoever can go on now.
void disown(Stream& stream);

// Wakes threads that wait for positions up to `head`. After every finished task.
void notify_waiters(Stream& stream, uint64_t head);

// Makes every sleeping thread look at Chip::stopping and Stream::lost.
void wake_everybody(Stream& stream);

// reach and one step of progress as statuses of an entry: OK, NOT_READY, or INTERNAL with a sentence.
openreg_status await_position(const char* operation, Stream& stream, uint64_t target, uint64_t deadline_ns);
openreg_status poll_position(Stream& stream, uint64_t target);

// The entry, for the one option that can change.
openreg_status option_exchange(const char* key, const char* value, char* before, uint64_t bytes);

}  // namespace openreg::sim
