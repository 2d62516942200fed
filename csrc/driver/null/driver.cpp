// driver.cpp: the smallest legal driver: one device, everything synchronous. Copy this folder to begin a real one.
//
// The table below lists every entry of the HAL; an optional entry that a driver leaves out is written as nullptr.
#include <pthread.h>

#include <mutex>

#include "driver/null/copy.h"
#include "driver/null/device.h"
#include "driver/null/event.h"
#include "driver/null/host_memory.h"
#include "driver/null/launch.h"
#include "driver/null/memory.h"
#include "driver/null/status.h"
#include "driver/null/stream.h"

namespace openreg::null {
namespace {

void mark_forked() {
  if (driver_state == State::ready) driver_state = State::forked;
}

openreg_status init(const openreg_option* options, size_t count) {
  if (driver_state == State::forked) return check_ready();
  if (driver_state == State::ready) return fail(OPENREG_INVALID_VALUE, "the driver is started already; call shutdown first");
  if (count)
    return options && options[0].key ? fail(OPENREG_INVALID_VALUE, "unknown option '%s'; this driver has none", options[0].key)
                                     : fail(OPENREG_INVALID_VALUE, "options is null, or an option has a null key");
  static std::once_flag once;
  std::call_once(once, [] { pthread_atfork(nullptr, nullptr, mark_forked); });
  driver_state = State::ready;
  return OPENREG_OK;
}

openreg_status shutdown(uint64_t) {
  return entry([]() -> openreg_status {
    driver_state = State::off;
    destroy_all_events();
    destroy_all_streams();
    free_all_device_memory();
    free_all_host_memory();
    return OPENREG_OK;
  });
}

const openreg_driver table = {
    .struct_size = sizeof(openreg_driver),
    .major = OPENREG_HAL_MAJOR,
    .minor = OPENREG_HAL_MINOR,
    .wants = 0,
    .name = "null",
    .init = init,
    .shutdown = shutdown,
    .last_message = last_message,
    .device_count = device_count,
    .device_info = device_info,
    .device_synchronize = device_synchronize,
    .device_clock = device_clock,
    .mem_alloc = mem_alloc,
    .mem_free = mem_free,
    .mem_info = mem_info,
    .mem_query = mem_query,
    .mem_kernel_view = mem_kernel_view,
    .host_alloc = host_alloc,
    .host_free = host_free,
    .host_query = host_query,
    .copy = copy,
    .fill = fill,
    .stream_create = stream_create,
    .stream_destroy = stream_destroy,
    .stream_query = stream_query,
    .stream_synchronize = stream_synchronize,
    .stream_wait_event = stream_wait_event,
    .stream_info = stream_info,
    .event_create = event_create,
    .event_destroy = event_destroy,
    .event_record = event_record,
    .event_query = event_query,
    .event_synchronize = event_synchronize,
    .event_elapsed = event_elapsed,
    .kernel_load = kernel_load,
    .kernel_unload = kernel_unload,
    .launch_kernel = launch_kernel,
    .launch_host_func = launch_host_func,
    // (optional) entries that this driver does not have; their defaults hold.
    .mem_reserve = nullptr,
    .mem_unreserve = nullptr,
    .mem_map = nullptr,
    .mem_unmap = nullptr,
    .device_processes = nullptr,
    .mem_export = nullptr,
    .mem_import = nullptr,
    .mem_close = nullptr,
    .event_create_shared = nullptr,
    .event_export = nullptr,
    .event_import = nullptr,
    .capture_begin = nullptr,
    .capture_end = nullptr,
    .stream_capture_info = nullptr,
    .capture_exchange_mode = nullptr,
    .graph_launch = nullptr,
    .graph_destroy = nullptr,
    .graph_update = nullptr,
    .graph_dump = nullptr,
    .option_exchange = nullptr,
    .device_lose = nullptr,
    .device_reset = nullptr,
    .trace_exchange = nullptr,
    .device_usage = nullptr,
};

}  // namespace
}  // namespace openreg::null

extern "C" __attribute__((visibility("default"))) openreg_status openreg_get_driver(uint32_t want_major, const openreg_driver** result) {
  using namespace openreg::null;
  if (!result) return fail(OPENREG_INVALID_VALUE, "table is null");
  if (want_major != OPENREG_HAL_MAJOR)
    return fail(OPENREG_UNSUPPORTED, "this driver implements version %d of the driver table, not %u", OPENREG_HAL_MAJOR, want_major);
  *result = &table;
  return OPENREG_OK;
}
