// schedule_log.h: what was queued and what ran under random:SEED, in order, as lines of a file.
//
// The order of random:SEED depends on what is queued at each choice, and with several host threads that is a matter of their timing.
// Two logs side by side show where two runs part.
#pragma once

#include <cstdint>
#include <cstdio>
#include <mutex>

namespace openreg::sim {

class ScheduleLog {
 public:
  ScheduleLog() = default;
  ~ScheduleLog();
  ScheduleLog(const ScheduleLog&) = delete;
  ScheduleLog& operator=(const ScheduleLog&) = delete;

  // Begins a new file. False when it cannot be written. Before anything is queued.
  bool open(const char* path);
  bool is_open() const { return file_ != nullptr; }

  // "queue <thread> <stream> <task>" and "run <stream> <task>"; threads count from 1 in the order of their first line. Any thread.
  void write_queued(uint64_t stream, const char* task);
  void write_run(uint64_t stream, const char* task);

 private:
  std::mutex mutex_;
  FILE* file_ = nullptr;
};

}  // namespace openreg::sim
