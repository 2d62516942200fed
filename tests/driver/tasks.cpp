// tasks.cpp: host functions and a kernel for the driver tests, so that tasks run without Python's lock.
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <stdexcept>

#include "hal/openreg_hal.h"

struct Log {
  std::atomic<uint64_t> count;
  uint64_t values[8192];
};

// Room for records of a trace, and who gave them.
struct TraceLog {
  std::atomic<uint64_t> count;
  uint64_t threads[4096];
  openreg_trace_record records[4096];
};

static void sleep_us(long microseconds) {
  timespec time{microseconds / 1000000, microseconds % 1000000 * 1000};
  nanosleep(&time, nullptr);
}

struct AppendArgs {
  Log* log;
  uint64_t value;
};

struct GateArgs {
  std::atomic<uint64_t>* entered;  // counts tasks that are inside
  std::atomic<uint64_t>* open;
};

struct FailArgs {
  int32_t kind;
  char message[60];
};

struct AddArgs {
  int32_t* values;
  uint64_t count;
};

extern "C" {

openreg_status nothing(void*, openreg_error*) { return OPENREG_OK; }

openreg_status append(void* args, openreg_error*) {
  const AppendArgs& a = *static_cast<AppendArgs*>(args);
  a.log->values[a.log->count.fetch_add(1)] = a.value;
  return OPENREG_OK;
}

openreg_status append_slowly(void* args, openreg_error* error) {
  sleep_us(200);
  return append(args, error);
}

// Writes the number of the thread that runs it to a given place.
openreg_status note_thread(void* args, openreg_error*) {
  **static_cast<std::atomic<uint64_t>**>(args) = static_cast<uint64_t>(syscall(SYS_gettid));
  return OPENREG_OK;
}

openreg_status gate(void* args, openreg_error*) {
  const GateArgs& a = *static_cast<GateArgs*>(args);
  a.entered->fetch_add(1);
  while (!a.open->load()) sleep_us(100);
  return OPENREG_OK;
}

// A gate, and then a write to an address of the kernel view.
openreg_status gate_then_write(void* args, openreg_error* error) {
  struct GateThenWrite {
    GateArgs gate;
    volatile char* address;
  };
  gate(args, error);
  *static_cast<GateThenWrite*>(args)->address = 7;
  return OPENREG_OK;
}

openreg_status fail(void* args, openreg_error* error) {
  const FailArgs& a = *static_cast<FailArgs*>(args);
  error->kind = a.kind;
  snprintf(error->message, sizeof error->message, "%s", a.message);
  return OPENREG_LAUNCH_FAILED;
}

openreg_status throw_exception(void*, openreg_error*) { throw std::runtime_error("thrown on purpose"); }

openreg_status throw_number(void*, openreg_error*) { throw 42; }

// The first word of the arguments is the address of a counter.
void count_cleanup(void* args) { (*static_cast<std::atomic<uint64_t>**>(args))->fetch_add(1); }

// Stores whether the arguments are aligned and equal to 0, 1, 2, ... after the first 16 bytes (address, size).
openreg_status check_bytes(void* args, openreg_error*) {
  struct Head {
    std::atomic<uint64_t>* good;
    uint64_t size;
  } head;
  memcpy(&head, args, sizeof head);
  const unsigned char* bytes = static_cast<unsigned char*>(args) + sizeof head;
  bool good = reinterpret_cast<uintptr_t>(args) % 16 == 0;
  for (uint64_t i = 0; i < head.size; ++i) good = good && bytes[i] == static_cast<unsigned char>(i);
  head.good->fetch_add(good);
  return OPENREG_OK;
}

// An openreg_trace_sink.
void keep_record(void* context, const openreg_trace_record* record) {
  TraceLog& log = *static_cast<TraceLog*>(context);
  const uint64_t at = log.count.fetch_add(1);
  if (at >= 4096) return;
  log.threads[at] = static_cast<uint64_t>(syscall(SYS_gettid));
  log.records[at] = *record;
}

// An openreg_sim_kernel: adds the number of threads of the grid to every value.
void add_threads(const openreg_geometry* geometry, const void* args) {
  const AddArgs& a = *static_cast<const AddArgs*>(args);
  int32_t threads = 1;
  for (int axis = 0; axis < 3; ++axis) threads *= static_cast<int32_t>(geometry->grid[axis] * geometry->block[axis]);
  for (uint64_t i = 0; i < a.count; ++i) a.values[i] += threads;
}

void kernel_that_throws(const openreg_geometry*, const void*) { throw std::runtime_error("thrown by a kernel"); }

}  // extern "C"
