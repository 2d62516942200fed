// The layer's table: every entry asks what is to happen to its call, and lets it happen.
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "layers/faults/state.h"
#include "layers/layer.h"

namespace openreg::layers::faults {

namespace {

std::atomic<const openreg_driver*> under{nullptr};
const openreg_driver& below() { return *under.load(std::memory_order_acquire); }

// The sentence of this layer's own refusals; last_message returns it once.
thread_local char message[320];
thread_local bool refused = false;

openreg_status refuse(openreg_status status, const std::string& rule) {
  snprintf(message, sizeof message, "the fault plan says so (%s)", rule.c_str());
  refused = true;
  return status;
}

const char* last_message() { return std::exchange(refused, false) ? message : below().last_message(); }

// ---- Losing devices ---------------------------------------------------------

void lose(int32_t device, const std::string& rule) {
  const std::string reason = "the fault plan says so (" + rule + ")";
  if (below().device_lose != nullptr) below().device_lose(device, reason.c_str());
  state().release_device(device);
}

// Time passes between calls only as far as somebody calls.
void lose_what_is_due() {
  std::string rule;
  for (int32_t device; (device = state().next_lost(&rule)) >= 0;) lose(device, rule);
}

openreg_status device_lose(int32_t device, const char* reason) {
  const openreg_status status = below().device_lose(device, reason);
  state().release_device(device);
  return status;
}

openreg_status shutdown(uint64_t timeout_ns) {
  state().release_all();
  return below().shutdown(timeout_ns);
}

// ---- Tasks of the layer -----------------------------------------------------

struct Hang {
  uint64_t plan, delay_ns;  // delay_ns: 0 = until it is let go
  int32_t device;
};

openreg_status run_hang(void* args, openreg_error*) {
  const Hang& hang = *static_cast<const Hang*>(args);
  if (hang.delay_ns != 0)
    std::this_thread::sleep_for(std::chrono::nanoseconds(hang.delay_ns));
  else
    state().hang(hang.plan, hang.device);
  return OPENREG_OK;
}

struct Flip {
  unsigned char* byte;
  uint32_t bit;
};

openreg_status run_flip(void* args, openreg_error*) {
  const Flip& flip = *static_cast<const Flip*>(args);
  *flip.byte ^= static_cast<unsigned char>(1u << flip.bit);
  return OPENREG_OK;
}

// What the failing task carries in front of the arguments of the operation, which its cleanup still gets.
struct Failing {
  char rule[240];
  void (*cleanup)(void* args);
  bool has_args;
};
constexpr size_t kHead = (sizeof(Failing) + 15) / 16 * 16;

openreg_status run_failing(void* args, openreg_error* error) {
  snprintf(error->message, sizeof error->message, "the fault plan says so (%s)", static_cast<const Failing*>(args)->rule);
  return OPENREG_LAUNCH_FAILED;
}

void clean_failing(void* args) {
  const Failing& head = *static_cast<const Failing*>(args);
  head.cleanup(head.has_args ? static_cast<char*>(args) + kHead : nullptr);
}

openreg_launch_desc plain_desc(const openreg_launch_desc* desc, const char* unnamed) {
  openreg_launch_desc plain{};
  plain.struct_size = sizeof plain;
  plain.name = desc != nullptr && desc->name != nullptr ? desc->name : unnamed;
  plain.tag = desc != nullptr ? desc->tag : 0;
  return plain;
}

openreg_status launch_failing(openreg_stream stream, const std::string& rule, const void* args, uint64_t size, bool has_args,
                              const openreg_launch_desc* desc, const char* unnamed) {
  std::vector<char> bytes(kHead + size);
  Failing* head = new (bytes.data()) Failing{};
  snprintf(head->rule, sizeof head->rule, "%s", rule.c_str());
  head->cleanup = desc != nullptr ? desc->cleanup : nullptr;
  head->has_args = has_args;
  if (size != 0) memcpy(bytes.data() + kHead, args, size);
  openreg_launch_desc plain = plain_desc(desc, unnamed);
  plain.cleanup = head->cleanup != nullptr ? clean_failing : nullptr;
  return below().launch_host_func(stream, run_failing, bytes.data(), bytes.size(), &plain);
}

openreg_status launch_flip(openreg_stream stream, int32_t device, const void* address, uint64_t bytes, uint64_t chance,
                           const openreg_launch_desc* desc, const char* unnamed) {
  intptr_t delta = 0;
  if (bytes == 0) return OPENREG_OK;
  if (device >= 0 && (below().mem_kernel_view == nullptr || below().mem_kernel_view(device, &delta) != OPENREG_OK)) return OPENREG_OK;
  const uintptr_t byte = reinterpret_cast<uintptr_t>(address) + static_cast<uintptr_t>(delta) + (chance >> 3) % bytes;
  const Flip flip{reinterpret_cast<unsigned char*>(byte), static_cast<uint32_t>(chance & 7)};
  const openreg_launch_desc plain = plain_desc(desc, unnamed);
  return below().launch_host_func(stream, run_flip, &flip, sizeof flip, &plain);
}

// ---- Work on streams --------------------------------------------------------

struct Written {
  const void* address = nullptr;
  uint64_t bytes = 0;
  int32_t device = -1;  // -1 = host memory
};

// One element of a range that has bytes between its elements; otherwise all of the range.
Written element_of(const openreg_range& range, const openreg_operand* operand, int32_t device, uint64_t chance) {
  uint64_t count = 1;
  for (int32_t i = 0; operand != nullptr && i < operand->dims; ++i) count *= static_cast<uint64_t>(operand->sizes[i]);
  if (operand == nullptr || operand->element_bytes == 0 || count * operand->element_bytes == range.bytes) return {range.base, range.bytes, device};
  uint64_t rest = (chance >> 11) % count, offset = 0;  // the bits below choose within the element
  for (int32_t i = operand->dims; i-- > 0; rest /= static_cast<uint64_t>(operand->sizes[i])) {
    offset += rest % static_cast<uint64_t>(operand->sizes[i]) * static_cast<uint64_t>(operand->strides[i]);
  }
  return {static_cast<const char*>(range.base) + offset * operand->element_bytes, operand->element_bytes, device};
}

Written written_by(const openreg_launch_desc* desc, int32_t device, uint64_t chance) {
  std::vector<uint32_t> written;
  for (uint32_t i = 0; desc != nullptr && desc->ranges != nullptr && i < desc->range_count; ++i) {
    if (desc->ranges[i].write != 0 && desc->ranges[i].bytes != 0) written.push_back(i);
  }
  if (written.empty()) return {};
  const bool detailed = desc->struct_size >= offsetof(openreg_launch_desc, operands) + sizeof(desc->operands) && desc->operands != nullptr;
  const uint32_t chosen = written[(chance >> 40) % written.size()];
  return element_of(desc->ranges[chosen], detailed ? desc->operands + chosen : nullptr, device, chance);
}

bool is_captured(openreg_stream stream) {
  int32_t capturing = OPENREG_NOT_CAPTURING;
  if (below().stream_capture_info == nullptr || below().stream_capture_info(stream, &capturing, nullptr) != OPENREG_OK) return false;
  return capturing != OPENREG_NOT_CAPTURING;
}

// The call `forward` with what the plans say. args, size: what the operation's cleanup gets; written(chance): what it writes.
template <class Forward, class Writes>
openreg_status call(Site site, openreg_stream stream, const openreg_launch_desc* desc, const char* unnamed, const void* args, uint64_t size,
                    Forward&& forward, Writes&& written) {
  lose_what_is_due();
  openreg_stream_info info{};
  info.struct_size = sizeof info;
  if (is_of_a_layer(desc) || below().stream_info(stream, &info) != OPENREG_OK || is_captured(stream)) return forward();
  const openreg_launch_desc plain = plain_desc(desc, unnamed);
  const Verdict verdict = state().judge(site, plain.name, info.device);
  switch (verdict.action) {
    case Action::error:
      return launch_failing(stream, verdict.rule, args, size, site == Site::launch, desc, unnamed);
    case Action::delay:
    case Action::hang: {
      const Hang hang{verdict.plan, verdict.action == Action::delay ? verdict.delay_ns : 0, info.device};
      const openreg_status status = below().launch_host_func(stream, run_hang, &hang, sizeof hang, &plain);
      return status == OPENREG_OK ? forward() : status;
    }
    case Action::lost:
      lose(info.device, verdict.rule);
      return forward();
    case Action::corrupt: {
      const openreg_status status = forward();
      const Written target = status == OPENREG_OK ? written(verdict.chance, info.device) : Written{};
      if (target.address != nullptr) launch_flip(stream, target.device, target.address, target.bytes, verdict.chance, desc, unnamed);
      return status;
    }
    default:
      return forward();
  }
}

openreg_status launch_kernel(openreg_stream stream, openreg_kernel kernel, const openreg_geometry* geometry, const void* args, uint64_t size,
                             const openreg_launch_desc* desc) {
  return call(Site::launch, stream, desc, "unnamed", args, size, [&] { return below().launch_kernel(stream, kernel, geometry, args, size, desc); },
              [&](uint64_t chance, int32_t device) { return written_by(desc, device, chance); });
}

openreg_status launch_host_func(openreg_stream stream, openreg_host_func fn, const void* args, uint64_t size, const openreg_launch_desc* desc) {
  return call(Site::launch, stream, desc, "unnamed", args, size, [&] { return below().launch_host_func(stream, fn, args, size, desc); },
              [&](uint64_t chance, int32_t device) { return written_by(desc, device, chance); });
}

openreg_status copy(openreg_stream stream, void* dst, int32_t dst_device, const void* src, int32_t src_device, uint64_t bytes,
                    const openreg_launch_desc* desc) {
  return call(Site::copy, stream, desc, "copy", nullptr, 0, [&] { return below().copy(stream, dst, dst_device, src, src_device, bytes, desc); },
              [&](uint64_t, int32_t) { return Written{dst, bytes, dst_device}; });
}

openreg_status fill(openreg_stream stream, void* dst, uint8_t value, uint64_t bytes, const openreg_launch_desc* desc) {
  return call(Site::fill, stream, desc, "fill", nullptr, 0, [&] { return below().fill(stream, dst, value, bytes, desc); },
              [&](uint64_t, int32_t device) { return Written{dst, bytes, device}; });
}

// ---- Waits and memory -------------------------------------------------------

openreg_status device_synchronize(int32_t device, uint64_t timeout_ns, openreg_error* error) {
  lose_what_is_due();
  return below().device_synchronize(device, timeout_ns, error);
}

openreg_status stream_synchronize(openreg_stream stream, uint64_t timeout_ns, openreg_error* error) {
  lose_what_is_due();
  return below().stream_synchronize(stream, timeout_ns, error);
}

openreg_status event_synchronize(openreg_event event, uint64_t timeout_ns, openreg_error* error) {
  lose_what_is_due();
  return below().event_synchronize(event, timeout_ns, error);
}

// OUT_OF_MEMORY when a plan denies the memory.
std::optional<std::string> denied(int32_t device) {
  lose_what_is_due();
  const Verdict verdict = state().judge(Site::alloc, "allocation", device);
  if (verdict.action == Action::oom) return verdict.rule;
  if (verdict.action == Action::delay) std::this_thread::sleep_for(std::chrono::nanoseconds(verdict.delay_ns));
  if (verdict.action == Action::lost) lose(device, verdict.rule);
  return std::nullopt;
}

openreg_status mem_alloc(int32_t device, uint64_t bytes, void** ptr) {
  if (!state().runtime_allocates)
    if (const auto rule = denied(device)) return refuse(OPENREG_OUT_OF_MEMORY, *rule);
  return below().mem_alloc(device, bytes, ptr);
}

openreg_driver table;

}  // namespace

std::optional<std::string> allocation(int32_t device) { return under.load(std::memory_order_acquire) == nullptr ? std::nullopt : denied(device); }

const openreg_driver* stack(const openreg_driver* driver) {
  const uint32_t wants = driver->wants | (wants_ranges() ? OPENREG_WANT_RANGES : 0);
  if (under.load(std::memory_order_relaxed) == driver) {  // others may be inside of it
    table.wants = wants;
    return &table;
  }
  table = copy_of(*driver);
  under.store(driver, std::memory_order_release);
  table.wants = wants;
  table.last_message = last_message;
  table.shutdown = shutdown;
  table.launch_kernel = launch_kernel;
  table.launch_host_func = launch_host_func;
  table.copy = copy;
  table.fill = fill;
  table.device_synchronize = device_synchronize;
  table.stream_synchronize = stream_synchronize;
  table.event_synchronize = event_synchronize;
  table.mem_alloc = mem_alloc;
  if (table.device_lose != nullptr) table.device_lose = device_lose;
  return &table;
}

}  // namespace openreg::layers::faults
