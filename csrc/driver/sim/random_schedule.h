// random_schedule.h: the scheduler of random:SEED.
//
// One thread at a time runs tasks of all streams, each picked by a seeded generator among the streams that could go on. Nothing
// but the program's calls and the seed decides the order, so a bad order can be had again.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <vector>

#include "driver/sim/schedule.h"

namespace openreg::sim {

struct Chip;

class RandomSchedule {
 public:
  void seed(uint64_t value) { state_ = value; }  // at the start, or holding it

  // As schedule.h's reach.
  Progress reach(Stream& stream, uint64_t target, uint64_t deadline_ns);

  // Runs tasks until the stream's head has moved: one step of polling.
  void poll(Stream& stream);

  // Makes sleeping threads look at Chip::stopping.
  void wake();

  // Holding it keeps the scheduler from running anything.
  bool try_lock();
  void unlock();

  // Takes it from a thread that does not come back from the task that it runs; that thread finds out afterwards. Nothing when another holds it.
  void take_from(pthread_t thread);

 private:
  Progress run_one(Chip& chip, uint64_t deadline_ns);
  Progress wait_for_others(Chip& chip, uint64_t deadline_ns);  // a nap, when every stream waits for another process
  uint64_t next();

  bool holds() const;

  std::atomic<uint32_t> busy_{0};        // a try-lock: the number of this holding, unique in the process; 0 = free
  std::atomic<pthread_t> holder_{};      // meaningful while busy
  std::atomic<uint32_t> sleepers_{0};
  std::atomic<uint32_t> generation_{0};  // futex word of threads that wait for the scheduler
  uint64_t state_ = 0;                   // LOCK: busy_
  std::vector<Stream*> runnable_;        // LOCK: busy_
};

}  // namespace openreg::sim
