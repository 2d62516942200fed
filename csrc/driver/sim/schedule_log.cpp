// schedule_log.cpp: one line at a time, on the disk at once, so that a run that hangs or dies has its lines.
#include "driver/sim/schedule_log.h"

#include <atomic>

namespace openreg::sim {

ScheduleLog::~ScheduleLog() {
  if (file_) fclose(file_);
}

bool ScheduleLog::open(const char* path) {
  file_ = fopen(path, "we");
  if (file_) setvbuf(file_, nullptr, _IOLBF, 0);
  return file_ != nullptr;
}

void ScheduleLog::write_queued(uint64_t stream, const char* task) {
  static std::atomic<int> threads{0};
  static thread_local int thread = 0;
  std::lock_guard<std::mutex> guard(mutex_);
  if (thread == 0) thread = threads.fetch_add(1, std::memory_order_relaxed) + 1;
  fprintf(file_, "queue %d %llu %s\n", thread, static_cast<unsigned long long>(stream), task);
}

void ScheduleLog::write_run(uint64_t stream, const char* task) {
  std::lock_guard<std::mutex> guard(mutex_);
  fprintf(file_, "run %llu %s\n", static_cast<unsigned long long>(stream), task);
}

}  // namespace openreg::sim
