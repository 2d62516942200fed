// The layer's table: every entry tells the state and forwards to the driver.
#include <algorithm>
#include <cstring>

#include "layers/layer.h"
#include "layers/sanitizer/sanitizer.h"
#include "layers/sanitizer/state.h"

namespace openreg::layers::sanitizer {

State& state() {
  static State* leaked = new State;
  return *leaked;
}

namespace {

thread_local int unobserved_depth = 0;

const openreg_driver& below() { return state().below(); }

// ---- Launches ---------------------------------------------------------------

Operand operand_of(const openreg_range& range, const openreg_operand* details) {
  Operand operand;
  operand.write = range.write != 0;
  if (details == nullptr || details->element_bytes == 0) {
    operand.set = Footprint::bytes(range.base, range.bytes);
    return operand;
  }
  operand.set = Footprint::elements(range.base, details->element_bytes, details->dims, details->sizes, details->strides);
  operand.some = (details->flags & OPENREG_OPERAND_SOME) != 0;
  operand.moved = (details->flags & OPENREG_OPERAND_MOVED) != 0;
  operand.dtype = details->dtype;
  operand.dims = details->dims > 8 ? 8 : details->dims;
  for (int i = 0; i < operand.dims; ++i) operand.sizes[i] = details->sizes[i];
  if (operand.some && details->token != 0) operand.told = state().promise(details->token);
  return operand;
}

const openreg_operand* operands_of(const openreg_launch_desc* desc) {
  return desc->struct_size >= offsetof(openreg_launch_desc, operands) + sizeof(desc->operands) ? desc->operands : nullptr;
}

std::vector<Operand> operands_from(const openreg_launch_desc* desc) {
  std::vector<Operand> operands;
  if (desc == nullptr || desc->ranges == nullptr) return operands;
  const openreg_operand* details = operands_of(desc);
  operands.reserve(desc->range_count);
  for (uint32_t i = 0; i < desc->range_count; ++i) operands.push_back(operand_of(desc->ranges[i], details ? details + i : nullptr));
  return operands;
}

// An operand of a copy or a fill: its bytes are certain, and the descriptor may say what they are.
Operand bytes_operand(const void* base, uint64_t bytes, bool write, const openreg_launch_desc* desc) {
  Operand operand;
  const openreg_operand* details = desc != nullptr && desc->ranges != nullptr ? operands_of(desc) : nullptr;
  for (uint32_t i = 0; details != nullptr && i < desc->range_count; ++i) {
    if (desc->ranges[i].base == base && (desc->ranges[i].write != 0) == write) operand = operand_of(desc->ranges[i], details + i);
  }
  operand.set = Footprint::bytes(base, bytes);
  operand.write = write;
  return operand;
}

const char* name_of(const openreg_launch_desc* desc, const char* unnamed) { return desc != nullptr && desc->name != nullptr ? desc->name : unnamed; }
uint64_t tag_of(const openreg_launch_desc* desc) { return desc != nullptr ? desc->tag : 0; }

std::vector<uintptr_t> written_addresses(const std::vector<Operand>& operands) {
  std::vector<uintptr_t> addresses;
  for (const Operand& operand : operands) {
    if (operand.write && !operand.set.empty()) addresses.push_back(operand.set.begin);
  }
  return addresses;
}

template <class Forward>
openreg_status launch(openreg_stream stream, const openreg_launch_desc* desc, uint64_t task, Forward&& forward) {
  std::vector<Operand> operands = operands_from(desc);
  const bool guarded = state().has(kBounds) && !state().captures_underway();
  const std::vector<uintptr_t> written = guarded ? written_addresses(operands) : std::vector<uintptr_t>();
  std::shared_ptr<Launch> known;
  if (!operands.empty() || task != 0) {
    known = state().announce(stream, name_of(desc, "unnamed"), tag_of(desc), std::move(operands), false);
    known->task = task;
  }
  const openreg_status status = forward();
  if (status != OPENREG_OK) return status;
  if (desc == nullptr || desc->ranges == nullptr) state().contents_unknown();
  if (known != nullptr) state().accepted(stream, known);
  if (guarded) state().check_written_guards(stream, written, name_of(desc, "unnamed"), tag_of(desc));
  return status;
}

openreg_status launch_kernel(openreg_stream stream, openreg_kernel kernel, const openreg_geometry* geometry, const void* args, uint64_t size,
                             const openreg_launch_desc* desc) {
  return launch(stream, desc, 0, [&] { return below().launch_kernel(stream, kernel, geometry, args, size, desc); });
}

// In front of a task's arguments while somebody wants to know whether it fails.
struct alignas(16) Watched {
  openreg_host_func fn;
  void (*cleanup)(void*);
  uint64_t task;
};

openreg_status run_watched(void* raw, openreg_error* error) {
  const auto* watched = static_cast<const Watched*>(raw);
  const openreg_status status = watched->fn(static_cast<char*>(raw) + sizeof(Watched), error);
  if (status != OPENREG_OK) state().task_failed(watched->task);
  return status;
}

void clean_watched(void* raw) {
  if (const auto cleanup = static_cast<const Watched*>(raw)->cleanup) cleanup(static_cast<char*>(raw) + sizeof(Watched));
}

openreg_status launch_watched(openreg_stream stream, openreg_host_func fn, const void* args, uint64_t size, const openreg_launch_desc* desc) {
  const uint64_t task = state().new_task();
  const Watched watched = {fn, desc != nullptr ? desc->cleanup : nullptr, task};
  std::vector<char> bytes(sizeof(Watched) + size);
  std::memcpy(bytes.data(), &watched, sizeof(watched));
  if (size != 0) std::memcpy(bytes.data() + sizeof(Watched), args, size);
  openreg_launch_desc inner = {};
  if (desc != nullptr) std::memcpy(&inner, desc, std::min<size_t>(desc->struct_size, sizeof(inner)));
  inner.struct_size = sizeof(inner);
  inner.cleanup = clean_watched;
  return launch(stream, desc, task, [&] { return below().launch_host_func(stream, run_watched, bytes.data(), bytes.size(), &inner); });
}

openreg_status launch_host_func(openreg_stream stream, openreg_host_func fn, const void* args, uint64_t size, const openreg_launch_desc* desc) {
  if (state().has(kInit) && fn != nullptr && state().capture_of(stream) == 0) return launch_watched(stream, fn, args, size, desc);
  return launch(stream, desc, 0, [&] { return below().launch_host_func(stream, fn, args, size, desc); });
}

openreg_status copy(openreg_stream stream, void* dst, int32_t dst_device, const void* src, int32_t src_device, uint64_t bytes,
                    const openreg_launch_desc* desc) {
  Operand from = bytes_operand(src, bytes, false, desc);
  Operand to = bytes_operand(dst, bytes, true, desc);
  // Values that leave the device are used; but whoever copies bytes without saying what they are only moves them.
  const bool moves = dst_device >= 0 || from.dtype == nullptr;
  if (src_device < 0) state().adopt_host(src);
  if (dst_device < 0) state().adopt_host(dst);
  const auto known = state().announce(stream, name_of(desc, "copy"), tag_of(desc), {std::move(to), std::move(from)}, moves);
  const openreg_status status = below().copy(stream, dst, dst_device, src, src_device, bytes, desc);
  if (status == OPENREG_OK) state().accepted(stream, known);
  return status;
}

openreg_status fill(openreg_stream stream, void* dst, uint8_t value, uint64_t bytes, const openreg_launch_desc* desc) {
  const auto known = state().announce(stream, name_of(desc, "fill"), tag_of(desc), {bytes_operand(dst, bytes, true, desc)}, false);
  const openreg_status status = below().fill(stream, dst, value, bytes, desc);
  if (status == OPENREG_OK) state().accepted(stream, known);
  return status;
}

// ---- Order ------------------------------------------------------------------

bool failed(openreg_status status) { return status == OPENREG_LAUNCH_FAILED || status == OPENREG_DEVICE_LOST; }

template <class Forward>
openreg_status wait(const Clock& clock, Forward&& forward) {
  const openreg_status status = forward();
  if (!is_unobserved() && (status == OPENREG_OK || failed(status))) state().host_waited(clock, failed(status));
  return status;
}

openreg_status device_synchronize(int32_t device, uint64_t timeout_ns, openreg_error* error) {
  return wait(state().clock_of_device(device), [&] { return below().device_synchronize(device, timeout_ns, error); });
}

openreg_status stream_synchronize(openreg_stream stream, uint64_t timeout_ns, openreg_error* error) {
  return wait(state().clock_of(stream), [&] { return below().stream_synchronize(stream, timeout_ns, error); });
}

openreg_status stream_query(openreg_stream stream) {
  return wait(state().clock_of(stream), [&] { return below().stream_query(stream); });
}

openreg_status event_synchronize(openreg_event event, uint64_t timeout_ns, openreg_error* error) {
  return wait(state().clock_of(event), [&] { return below().event_synchronize(event, timeout_ns, error); });
}

openreg_status event_query(openreg_event event) {
  return wait(state().clock_of(event), [&] { return below().event_query(event); });
}

openreg_status event_record(openreg_event event, openreg_stream stream) {
  const openreg_status status = below().event_record(event, stream);
  if (status != OPENREG_OK) return status;
  if (const uint64_t capture = state().capture_of(stream)) {
    state().captured_record(capture, event, stream);
  } else {
    state().record(event, stream);
  }
  return status;
}

openreg_status stream_wait_event(openreg_stream stream, openreg_event event) {
  const openreg_status status = below().stream_wait_event(stream, event);
  if (status == OPENREG_OK && !state().captured_wait(stream, event)) state().wait(stream, event);
  return status;
}

openreg_status event_export(openreg_event event, openreg_ipc_handle* handle) {
  const openreg_status status = below().event_export(event, handle);
  if (status == OPENREG_OK) state().share(event);
  return status;
}

openreg_status event_import(const openreg_ipc_handle* handle, int32_t* device, openreg_event* event) {
  const openreg_status status = below().event_import(handle, device, event);
  if (status == OPENREG_OK) state().share(*event);
  return status;
}

openreg_status event_destroy(openreg_event event) {
  state().forget_event(event);
  return below().event_destroy(event);
}

openreg_status stream_destroy(openreg_stream stream) {
  state().forget_stream(stream);
  return below().stream_destroy(stream);
}

// ---- Graphs -----------------------------------------------------------------

uint64_t number_of_capture(openreg_stream stream) {
  int32_t capturing = OPENREG_NOT_CAPTURING;
  uint64_t number = 0;
  return below().stream_capture_info(stream, &capturing, &number) == OPENREG_OK && capturing != OPENREG_NOT_CAPTURING ? number : 0;
}

openreg_status capture_begin(openreg_stream stream, int32_t mode) {
  const openreg_status status = below().capture_begin(stream, mode);
  if (status == OPENREG_OK) state().begin_capture(number_of_capture(stream));
  return status;
}

openreg_status capture_end(openreg_stream stream, openreg_graph* graph) {
  const uint64_t capture = number_of_capture(stream);
  const openreg_status status = below().capture_end(stream, graph);
  if (status != OPENREG_INVALID_VALUE) state().end_capture(capture, status == OPENREG_OK && graph != nullptr ? *graph : nullptr);
  return status;
}

openreg_status graph_launch(openreg_graph graph, openreg_stream stream) {
  state().expect_replay(graph, stream);
  const openreg_status status = below().graph_launch(graph, stream);
  if (status == OPENREG_OK) state().replay(graph, stream);
  return status;
}

openreg_status graph_destroy(openreg_graph graph) {
  state().forget_graph(graph);
  return below().graph_destroy(graph);
}

openreg_status graph_update(openreg_graph graph, openreg_graph source) {
  const openreg_status status = below().graph_update(graph, source);
  if (status == OPENREG_OK) state().update_graph(graph, source);
  return status;
}

openreg_status device_reset(int32_t device) {
  const openreg_status status = below().device_reset(device);
  if (status == OPENREG_OK) state().device_was_reset(device);
  return status;
}

// ---- Memory -----------------------------------------------------------------

openreg_status mem_alloc(int32_t device, uint64_t bytes, void** ptr) {
  const openreg_status status = below().mem_alloc(device, bytes, ptr);
  if (status == OPENREG_OK && !state().runtime_blocks()) state().allocated(nullptr, *ptr, bytes, bytes, 0, false, false);
  return status;
}

openreg_status mem_free(int32_t device, void* ptr) {
  void* base = nullptr;
  uint64_t bytes = 0;
  const bool known = below().mem_query(ptr, nullptr, &base, &bytes) == OPENREG_OK && base == ptr;
  if (!state().runtime_blocks()) {
    if (known) {
      state().freed(ptr, 0);
    } else {
      state().freed_twice(ptr, 0);
    }
  } else if (known) {
    state().returned(ptr, bytes);
  }
  return below().mem_free(device, ptr);
}

openreg_status mem_unmap(int32_t device, void* ptr, uint64_t bytes) {
  state().returned(ptr, bytes);
  return below().mem_unmap(device, ptr, bytes);
}

openreg_status host_alloc(uint64_t bytes, void** ptr) {
  const openreg_status status = below().host_alloc(bytes, ptr);
  if (status == OPENREG_OK) state().allocated(nullptr, *ptr, bytes, bytes, 0, true, true);
  return status;
}

openreg_status host_free(void* ptr) {
  void* base = nullptr;
  uint64_t bytes = 0;
  if (below().host_query(ptr, &base, &bytes) == OPENREG_OK && base == ptr) state().returned(ptr, bytes);
  return below().host_free(ptr);
}

openreg_driver table;

}  // namespace

bool is_unobserved() noexcept { return unobserved_depth > 0; }
Unobserved::Unobserved() noexcept { ++unobserved_depth; }
Unobserved::~Unobserved() { --unobserved_depth; }

const openreg_driver& stacked_table() { return table; }

const openreg_driver* stack(const openreg_driver* under) {
  static const openreg_driver* stacked = nullptr;
  if (stacked == under) return &table;  // others may be inside of it
  stacked = under;
  state().set_below(under);
  table = copy_of(*under);
  table.wants |= OPENREG_WANT_RANGES;
  table.launch_kernel = launch_kernel;
  table.launch_host_func = launch_host_func;
  table.copy = copy;
  table.fill = fill;
  table.device_synchronize = device_synchronize;
  table.stream_synchronize = stream_synchronize;
  table.stream_query = stream_query;
  table.stream_wait_event = stream_wait_event;
  table.event_record = event_record;
  table.event_query = event_query;
  table.event_synchronize = event_synchronize;
  table.event_destroy = event_destroy;
  table.stream_destroy = stream_destroy;
  if (table.event_export != nullptr) table.event_export = event_export;
  if (table.event_import != nullptr) table.event_import = event_import;
  table.mem_alloc = mem_alloc;
  table.mem_free = mem_free;
  if (table.mem_unmap != nullptr) table.mem_unmap = mem_unmap;
  table.host_alloc = host_alloc;
  table.host_free = host_free;
  if (table.device_reset != nullptr) table.device_reset = device_reset;
  if (table.capture_begin != nullptr && table.stream_capture_info != nullptr) {
    table.capture_begin = capture_begin;
    table.capture_end = capture_end;
    table.graph_launch = graph_launch;
    table.graph_destroy = graph_destroy;
    table.graph_update = graph_update;
  }
  return &table;
}

}  // namespace openreg::layers::sanitizer
