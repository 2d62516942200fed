// A driver that passes everything on to the one at BROKEN_DRIVER_BELOW, and is wrong in the one way that BROKEN_DRIVER names.
#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

#include "hal/openreg_hal.h"

namespace {

const openreg_driver* right;
openreg_trace_sink sink;

// Turns one status into another.
openreg_status instead(openreg_status found, openreg_status from, openreg_status to) { return found == from ? to : found; }

struct Borrowed {
  openreg_host_func function;
  void* arguments;
};

openreg_status call_borrowed(void* borrowed, openreg_error* error) {
  auto* b = static_cast<Borrowed*>(borrowed);
  return b->function(b->arguments, error);
}

void without_operations(void* context, const openreg_trace_record* record) {
  if (record->operation == 0) sink(context, record);
}

using Table = openreg_driver;

const std::map<std::string, void (*)(Table&)> kFaults = {
    {"every_version", [](Table&) {}},
    {"half_a_group", [](Table& t) { t.mem_unmap = nullptr; }},
    {"works_before_init",
     [](Table& t) { t.device_count = [](int32_t* count) { return instead(right->device_count(count), OPENREG_NOT_INITIALIZED, OPENREG_OK); }; }},
    {"takes_any_option", [](Table& t) { t.init = [](const openreg_option*, size_t) { return right->init(nullptr, 0); }; }},
    {"no_compute_units",
     [](Table& t) {
       t.device_info = [](int32_t device, openreg_device_info* info) {
         const openreg_status status = right->device_info(device, info);
         if (status == OPENREG_OK) info->compute_units = 0;
         return status;
       };
     }},
    {"any_index_is_device_zero",
     [](Table& t) {
       t.mem_alloc = [](int32_t device, uint64_t bytes, void** ptr) { return right->mem_alloc(device == 0 || device == 1 ? device : 0, bytes, ptr); };
     }},
    {"writes_whole_structures",
     [](Table& t) {
       t.device_info = [](int32_t device, openreg_device_info* info) {
         info->struct_size = sizeof *info;
         return right->device_info(device, info);
       };
     }},
    {"clock_in_microseconds",
     [](Table& t) {
       t.device_clock = [](int32_t device, uint64_t* now) {
         const openreg_status status = right->device_clock(device, now);
         *now /= 1000;
         return status;
       };
     }},
    {"memory_begins_anywhere",
     [](Table& t) {
       t.mem_alloc = [](int32_t device, uint64_t bytes, void** ptr) {
         const openreg_status status = right->mem_alloc(device, bytes + 8, ptr);
         if (status == OPENREG_OK) *ptr = static_cast<char*>(*ptr) + 8;
         return status;
       };
     }},
    {"out_of_memory_is_a_defect",
     [](Table& t) {
       t.mem_alloc = [](int32_t device, uint64_t bytes, void** ptr) {
         return instead(right->mem_alloc(device, bytes, ptr), OPENREG_OUT_OF_MEMORY, OPENREG_INTERNAL);
       };
     }},
    {"frees_everything",
     [](Table& t) { t.mem_free = [](int32_t device, void* ptr) { return instead(right->mem_free(device, ptr), OPENREG_INVALID_VALUE, OPENREG_OK); }; }},
    {"an_address_is_its_own_allocation",
     [](Table& t) {
       t.mem_query = [](const void* ptr, int32_t* device, void** base, uint64_t* bytes) {
         const openreg_status status = right->mem_query(ptr, device, base, bytes);
         if (status == OPENREG_OK && base != nullptr) *base = const_cast<void*>(ptr);
         return status;
       };
     }},
    {"all_memory_is_page_locked",
     [](Table& t) {
       t.host_query = [](const void* ptr, void** base, uint64_t* bytes) {
         return instead(right->host_query(ptr, base, bytes), OPENREG_INVALID_VALUE, OPENREG_OK);
       };
     }},
    {"copies_lose_the_last_byte",
     [](Table& t) {
       t.copy = [](openreg_stream s, void* dst, int32_t to, const void* src, int32_t from, uint64_t bytes, const openreg_launch_desc* d) {
         return right->copy(s, dst, to, src, from, bytes - 1, d);
       };
     }},
    {"copies_go_forward",
     [](Table& t) {
       t.copy = [](openreg_stream s, void* dst, int32_t to, const void* src, int32_t from, uint64_t bytes, const openreg_launch_desc* d) {
         openreg_status status = OPENREG_OK;
         for (uint64_t at = 0; at < bytes && status == OPENREG_OK; at += 64) {
           status = right->copy(s, static_cast<char*>(dst) + at, to, static_cast<const char*>(src) + at, from, bytes - at < 64 ? bytes - at : 64, d);
         }
         return status;
       };
     }},
    {"copies_are_not_checked",
     [](Table& t) {
       t.copy = [](openreg_stream s, void* dst, int32_t to, const void* src, int32_t from, uint64_t bytes, const openreg_launch_desc* d) {
         return instead(right->copy(s, dst, to, src, from, bytes, d), OPENREG_INVALID_VALUE, OPENREG_OK);
       };
     }},
    {"copies_between_devices_move_nothing",
     [](Table& t) {
       t.copy = [](openreg_stream s, void* dst, int32_t to, const void* src, int32_t from, uint64_t bytes, const openreg_launch_desc* d) {
         return to >= 0 && from >= 0 && to != from ? OPENREG_OK : right->copy(s, dst, to, src, from, bytes, d);
       };
     }},
    {"fills_whole_lines",
     [](Table& t) {
       t.fill = [](openreg_stream s, void* dst, uint8_t value, uint64_t bytes, const openreg_launch_desc* d) {
         return right->fill(s, dst, value, (bytes + 63) / 64 * 64, d);
       };
     }},
    {"every_second_task_runs_at_once",
     [](Table& t) {
       t.launch_host_func = [](openreg_stream s, openreg_host_func f, const void* args, uint64_t size, const openreg_launch_desc* d) {
         static int number = 0;
         return ++number % 2 == 0 ? f(const_cast<void*>(args), nullptr) : right->launch_host_func(s, f, args, size, d);
       };
     }},
    {"arguments_are_borrowed",
     [](Table& t) {
       t.launch_host_func = [](openreg_stream s, openreg_host_func f, const void* args, uint64_t, const openreg_launch_desc* d) {
         const Borrowed borrowed{f, const_cast<void*>(args)};
         return right->launch_host_func(s, call_borrowed, &borrowed, sizeof borrowed, d);
       };
     }},
    {"no_function_is_fine",
     [](Table& t) {
       t.launch_host_func = [](openreg_stream s, openreg_host_func f, const void* args, uint64_t size, const openreg_launch_desc* d) {
         return f == nullptr ? OPENREG_OK : right->launch_host_func(s, f, args, size, d);
       };
     }},
    {"cleanups_are_forgotten",
     [](Table& t) {
       t.launch_host_func = [](openreg_stream s, openreg_host_func f, const void* args, uint64_t size, const openreg_launch_desc* d) {
         if (d == nullptr) return right->launch_host_func(s, f, args, size, d);
         openreg_launch_desc without = *d;
         without.cleanup = nullptr;
         return right->launch_host_func(s, f, args, size, &without);
       };
     }},
    {"failures_are_kept_secret",
     [](Table& t) {
       t.stream_synchronize = [](openreg_stream s, uint64_t timeout, openreg_error* error) {
         return instead(right->stream_synchronize(s, timeout, error), OPENREG_LAUNCH_FAILED, OPENREG_OK);
       };
     }},
    {"events_forget_failures",
     [](Table& t) {
       t.event_synchronize = [](openreg_event e, uint64_t timeout, openreg_error* error) {
         return instead(right->event_synchronize(e, timeout, error), OPENREG_LAUNCH_FAILED, OPENREG_OK);
       };
     }},
    {"waits_inherit_no_failure",
     [](Table& t) {
       t.stream_wait_event = [](openreg_stream, openreg_event e) {
         return instead(right->event_synchronize(e, UINT64_MAX, nullptr), OPENREG_LAUNCH_FAILED, OPENREG_OK);
       };
     }},
    {"streams_are_always_idle", [](Table& t) { t.stream_query = [](openreg_stream) -> openreg_status { return OPENREG_OK; }; }},
    {"synchronisation_does_not_wait",
     [](Table& t) { t.stream_synchronize = [](openreg_stream, uint64_t, openreg_error*) -> openreg_status { return OPENREG_OK; }; }},
    {"waits_are_forgotten", [](Table& t) { t.stream_wait_event = [](openreg_stream, openreg_event) -> openreg_status { return OPENREG_OK; }; }},
    {"time_in_microseconds",
     [](Table& t) {
       t.event_elapsed = [](openreg_event start, openreg_event end, int64_t* elapsed) {
         const openreg_status status = right->event_elapsed(start, end, elapsed);
         *elapsed /= 1000;
         return status;
       };
     }},
    {"streams_share_a_number",
     [](Table& t) {
       t.stream_info = [](openreg_stream s, openreg_stream_info* info) {
         const openreg_status status = right->stream_info(s, info);
         info->stream_id = 1;
         return status;
       };
     }},
    {"the_kernel_view_is_shifted",
     [](Table& t) {
       t.mem_kernel_view = [](int32_t device, intptr_t* delta) {
         const openreg_status status = right->mem_kernel_view(device, delta);
         *delta += 1;
         return status;
       };
     }},
    {"memory_is_mapped_twice",
     [](Table& t) {
       t.mem_map = [](int32_t device, void* ptr, uint64_t bytes) { return instead(right->mem_map(device, ptr, bytes), OPENREG_INVALID_VALUE, OPENREG_OK); };
     }},
    {"imports_are_copies",
     [](Table& t) {
       t.mem_import = [](const openreg_ipc_handle* handle, int32_t* device, void** ptr, uint64_t* bytes) {
         const openreg_status status = right->mem_import(handle, device, ptr, bytes);
         return status == OPENREG_OK ? right->mem_alloc(*device, *bytes, ptr) : status;
       };
     }},
    {"graphs_run_once",
     [](Table& t) {
       t.graph_launch = [](openreg_graph graph, openreg_stream s) {
         static int launches = 0;
         return launches++ == 0 ? right->graph_launch(graph, s) : OPENREG_OK;
       };
     }},
    {"operations_are_not_traced",
     [](Table& t) {
       t.trace_exchange = [](openreg_trace_sink given, void* context) {
         if (given == nullptr) return right->trace_exchange(nullptr, context);
         sink = given;
         return right->trace_exchange(without_operations, context);
       };
     }},
    {"no_device_is_ever_lost", [](Table& t) { t.device_lose = [](int32_t, const char*) -> openreg_status { return OPENREG_OK; }; }},
    {"usage_in_millionths",
     [](Table& t) {
       t.device_usage = [](int32_t device, uint64_t window, openreg_usage* usage) {
         const openreg_status status = right->device_usage(device, window, usage);
         usage->busy_permille = 500000;
         return status;
       };
     }},
    {"forks_go_on",
     [](Table& t) { t.device_count = [](int32_t* count) { return instead(right->device_count(count), OPENREG_FORKED, OPENREG_OK); }; }},
};

}  // namespace

extern "C" __attribute__((visibility("default"))) openreg_status openreg_get_driver(uint32_t major, const openreg_driver** table) {
  static Table wrong;
  const char* fault = std::getenv("BROKEN_DRIVER");
  void* library = dlopen(std::getenv("BROKEN_DRIVER_BELOW"), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr || fault == nullptr || kFaults.count(fault) == 0) return OPENREG_INTERNAL;
  if (major != OPENREG_HAL_MAJOR && std::strcmp(fault, "every_version") == 0) major = OPENREG_HAL_MAJOR;
  const openreg_status status = reinterpret_cast<openreg_get_driver_fn>(dlsym(library, OPENREG_GET_DRIVER_SYMBOL))(major, &right);
  if (status != OPENREG_OK) return status;
  wrong = *right;
  kFaults.at(fault)(wrong);
  *table = &wrong;
  return OPENREG_OK;
}
