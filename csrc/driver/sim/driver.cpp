// driver.cpp: the table of the simulated chip, and its life: start, stop, fork, exit.
#include <pthread.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>

#include "driver/sim/capture.h"
#include "driver/sim/copy.h"
#include "driver/sim/device.h"
#include "driver/sim/event.h"
#include "driver/sim/executor.h"
#include "driver/sim/fault_report.h"
#include "driver/sim/graph.h"
#include "driver/sim/host_memory.h"
#include "driver/sim/ipc.h"
#include "driver/sim/launch.h"
#include "driver/sim/memory.h"
#include "driver/sim/process.h"
#include "driver/sim/recovery.h"
#include "driver/sim/schedule.h"
#include "driver/sim/shared_event.h"
#include "driver/sim/status.h"
#include "driver/sim/stream.h"
#include "driver/sim/trace.h"
#include "driver/sim/trace_calls.h"
#include "driver/sim/usage.h"

namespace openreg::sim {
namespace {

// How long a stopped worker may take to come back from the task that it is in.
constexpr uint64_t kGrace_ns = 1000000000;

bool wait_for_workers(Chip& chip, uint64_t deadline_ns) {
  uint32_t live;
  while ((live = chip.live_workers.load(std::memory_order_seq_cst)) != 0) {
    if (now_ns() >= deadline_ns) return false;
    futex_wait(chip.live_workers, live, std::min(deadline_ns, now_ns() + 1000000));
  }
  return true;
}

// Waits until no thread of the program, whose synchronisation runs tasks, is in one of the streams. *lent: one was.
bool wait_for_owners(const std::vector<StreamRef>& streams, uint64_t deadline_ns, bool* lent) {
  for (const StreamRef& stream : streams) {
    while (stream->owned.load(std::memory_order_seq_cst) != 0) {
      *lent = true;
      if (now_ns() >= deadline_ns) return false;
      futex_wait(stream->owned, 1, std::min(deadline_ns, now_ns() + 1000000));
    }
  }
  return true;
}

void stop(Chip& chip, const std::vector<StreamRef>& streams) {
  chip.stopping.store(true, std::memory_order_seq_cst);
  for (auto& device : chip.devices) device->slots.cancel();
  for (const StreamRef& stream : streams) wake_everybody(*stream);
  chip.random.wake();
}

std::vector<StreamRef> live_streams(Chip& chip, bool closing) {
  std::lock_guard<std::mutex> guard(chip.registry_mutex);
  if (closing) chip.closing.store(true, std::memory_order_relaxed);
  std::vector<StreamRef> streams;
  for (Stream* stream : chip.streams) streams.emplace_back(stream);
  return streams;
}

// The program ends without shutdown: nothing new may run while its static objects go away. Bounded.
void stop_at_exit() {
  if (driver_state.load(std::memory_order_acquire) != State::ready) return;
  Chip& chip = *current_chip;
  const std::vector<StreamRef> streams = live_streams(chip, true);
  stop(chip, streams);
  wait_for_workers(chip, now_ns() + kGrace_ns);
  for (const StreamRef& stream : streams) print_unreported(*stream);
}

void mark_forked() {
  if (driver_state.load(std::memory_order_relaxed) != State::ready) return;
  driver_state.store(State::forked, std::memory_order_release);
  close_shared_events_after_fork();
}

openreg_status init(const openreg_option* given, size_t count) {
  try {
    if (driver_state.load(std::memory_order_acquire) == State::forked) return refuse_entry();
    if (driver_state.load(std::memory_order_acquire) == State::ready)
      return fail(OPENREG_INVALID_VALUE, "init: the driver is started already; call shutdown first");
    auto chip = std::make_unique<Chip>();
    if (openreg_status status = parse_options(given, count, &chip->options)) return status;
    const char* log = chip->options.schedule_log.c_str();
    if (log[0] && !chip->log.open(log)) return fail(OPENREG_INVALID_VALUE, "option schedule_log: %s cannot be written", log);
    chip->spin = available_cpus() > 1;
    chip->schedule.store(chip->options.schedule, std::memory_order_relaxed);
    chip->seed = chip->options.seed;
    chip->random.seed(chip->options.seed);
    if (!chip->address_space.reserve(chip->options))
      return fail(OPENREG_OUT_OF_MEMORY, "init: the process has no address space left for %d devices", chip->options.devices);
    if (!usage_page()) return fail(OPENREG_OUT_OF_MEMORY, "init: the host has no memory left");
    for (int32_t device = 0; device < chip->options.devices; ++device)
      chip->devices.push_back(std::make_unique<Device>(device, chip->address_space, chip->options));
    static std::once_flag once;
    std::call_once(once, [] {
      pthread_atfork(nullptr, nullptr, mark_forked);
      atexit(stop_at_exit);
    });
    current_chip = chip.release();
    driver_state.store(State::ready, std::memory_order_release);
    return OPENREG_OK;
  } catch (const std::bad_alloc&) {
    return fail(OPENREG_OUT_OF_MEMORY, "init: the host has no memory left");
  }
}

openreg_status shutdown(uint64_t timeout_ns) {
  return entry([&]() -> openreg_status {
    Chip& chip = *current_chip;
    const uint64_t deadline = deadline_after(timeout_ns);
    for (const StreamRef& stream : live_streams(chip, false))
      if (timeout_ns) reach(*stream, stream->queue.tail(), deadline);
    const std::vector<StreamRef> streams = live_streams(chip, true);
    stop(chip, streams);
    const uint64_t grace_ns = now_ns() + kGrace_ns;
    bool lent = false;
    const bool stopped = wait_for_workers(chip, grace_ns) && wait_for_owners(streams, grace_ns, &lent) && !has_abandoned_tasks(chip);
    driver_state.store(State::off, std::memory_order_release);
    for (const StreamRef& stream : streams) print_unreported(*stream);
    stream_table().clear([](Stream*) {});
    event_table().clear([](Event* event) { delete event; });
    forget_captures();
    forget_graphs();
    forget_kernels();
    if (!stopped) {
      // A task does not come back. Its memory has to stay, so this chip is leaked.
      fprintf(stderr, "openreg: shutdown leaves a task behind that does not end\n");
      for (const StreamRef& stream : streams)
        if (stream->worker.joinable()) stream->worker.detach();
      end_trace();
      return OPENREG_NOT_READY;
    }
    uint64_t dropped = 0;
    for (const StreamRef& stream : streams) {
      if (stream->worker.joinable()) stream->worker.join();
      dropped += drop_tasks(*stream);
    }
    end_trace();
    chip.address_space.release();
    current_chip = nullptr;
    if (!lent) {  // else that thread may still look at its stream and at the chip on its way out
      for (const StreamRef& stream : streams) release(stream.get());  // the registry's
      delete &chip;
    }
    return dropped ? OPENREG_NOT_READY : OPENREG_OK;
  });
}

const openreg_driver table = {
    .struct_size = sizeof(openreg_driver),
    .major = OPENREG_HAL_MAJOR,
    .minor = OPENREG_HAL_MINOR,
    .wants = 0,
    .name = "sim",
    .init = init,
    .shutdown = shutdown,
    .last_message = last_message,
    .device_count = device_count,
    .device_info = device_info,
    .device_synchronize = traced::device_synchronize,
    .device_clock = device_clock,
    .mem_alloc = traced::mem_alloc,
    .mem_free = traced::mem_free,
    .mem_info = mem_info,
    .mem_query = mem_query,
    .mem_kernel_view = mem_kernel_view,
    .host_alloc = traced::host_alloc,
    .host_free = traced::host_free,
    .host_query = host_query,
    .copy = traced::copy,
    .fill = traced::fill,
    .stream_create = stream_create,
    .stream_destroy = stream_destroy,
    .stream_query = stream_query,
    .stream_synchronize = traced::stream_synchronize,
    .stream_wait_event = traced::stream_wait_event,
    .stream_info = stream_info,
    .event_create = event_create,
    .event_destroy = event_destroy,
    .event_record = traced::event_record,
    .event_query = event_query,
    .event_synchronize = traced::event_synchronize,
    .event_elapsed = event_elapsed,
    .kernel_load = kernel_load,
    .kernel_unload = kernel_unload,
    .launch_kernel = traced::launch_kernel,
    .launch_host_func = traced::launch_host_func,
    .mem_reserve = mem_reserve,
    .mem_unreserve = mem_unreserve,
    .mem_map = traced::mem_map,
    .mem_unmap = traced::mem_unmap,
    .device_processes = device_processes,
    .mem_export = mem_export,
    .mem_import = mem_import,
    .mem_close = mem_close,
    .event_create_shared = event_create_shared,
    .event_export = event_export,
    .event_import = event_import,
    .capture_begin = capture_begin,
    .capture_end = capture_end,
    .stream_capture_info = stream_capture_info,
    .capture_exchange_mode = capture_exchange_mode,
    .graph_launch = traced::graph_launch,
    .graph_destroy = graph_destroy,
    .graph_update = graph_update,
    .graph_dump = graph_dump,
    .option_exchange = option_exchange,
    .device_lose = device_lose,
    .device_reset = device_reset,
    .trace_exchange = trace_exchange,
    .device_usage = device_usage,
};

}  // namespace
}  // namespace openreg::sim

extern "C" __attribute__((visibility("default"))) openreg_status openreg_get_driver(uint32_t want_major, const openreg_driver** result) {
  using namespace openreg::sim;
  if (!result) return fail(OPENREG_INVALID_VALUE, "openreg_get_driver: table is null");
  if (want_major != OPENREG_HAL_MAJOR)
    return fail(OPENREG_UNSUPPORTED, "the simulator implements version %d of the driver table, not %u", OPENREG_HAL_MAJOR, want_major);
  *result = &table;
  return OPENREG_OK;
}
