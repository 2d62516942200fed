// worker.h: the thread of a used stream, under the eager schedule only.
#pragma once

#include <cstdint>

namespace openreg::sim {

struct Stream;

// Note [Standing back]
// Handing one small task to another thread costs several times what running it costs, and a program that waits after every few
// tasks gains nothing from it. After kShortWaits waits in a row that each found at most kShortQueue new tasks, the worker of the stream
// stands back: the thread that waits runs the tasks, and the worker naps. It takes over when more than kShortQueue tasks have gathered, or
// when one has lain for a nap, and then stands back again only after kTakeover more short waits. A worker that naps without any
// progress on its stream goes to sleep, so that an idle process uses no CPU.
constexpr uint64_t kShortQueue = 8;
constexpr int32_t kShortWaits = 2, kTakeover = 4;

// awake: looks at the queue by itself. asleep: must be woken for every task. napping: must be woken for more than kShortQueue.
enum WorkerState : uint32_t { kAwake, kAsleep, kNapping };

// Starts the worker. When the system gives no thread the stream goes on without, run by the threads that wait for it.
// LOCK: stream.queue.producers
void start_worker(Stream& stream);

// Wakes the worker if it sleeps or naps: a load when it does not.
void wake_worker(Stream& stream);

// The same after a task was enqueued, if the worker would take it.
void announce_task(Stream& stream);

// A host thread that may run tasks begins to wait for the stream. Any thread.
void note_wait(Stream& stream);

}  // namespace openreg::sim
