// worker.h: the thread of a used stream, under the eager schedule only.
#pragma once

namespace openreg::sim {

struct Stream;

// Starts the worker. When the system gives no thread the stream goes on without, run by the threads that wait for it.
// LOCK: stream.queue.producers
void start_worker(Stream& stream);

// Wakes the worker if it sleeps: a load when it does not.
void wake_worker(Stream& stream);

}  // namespace openreg::sim
