// Switching the sanitizer, and what happens to findings.
#include "runtime/sanitizer.h"

#include <c10/util/Exception.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <utility>

#include "runtime/capture.h"
#include "runtime/device.h"
#include "runtime/device_heap.h"
#include "runtime/driver.h"
#include "runtime/error.h"
#include "runtime/stream.h"

namespace openreg {

namespace sanitizer = layers::sanitizer;

namespace detail {
std::atomic<uint32_t> sanitizer_modes{0};
}

namespace {

constexpr int kExitStatus = 66;

thread_local uint64_t current_mark = 0;

struct Findings {
  std::mutex mutex;  // LOCK: everything but callbacks
  std::vector<SanitizerFinding> pending;    // to be raised
  std::vector<SanitizerFinding> collected;
  std::vector<uint64_t> excused;  // set once, at the end
  bool collect = false;
  bool exit_prepared = false;
  std::atomic<bool> any_pending{false};
  SanitizerCallbacks callbacks;
};

Findings& all() {
  static Findings* leaked = new Findings;
  return *leaked;
}

void take_from_layer();
void report_live_blocks();

// Runs in exit(), after Python has ended: what was found and never raised must not look like success, and what is allocated by now was leaked.
void end_with_status() {
  if (in_bad_fork()) return;  // the parent's findings and blocks
  if ((sanitizing() & sanitizer::kLeaks) != 0) report_live_blocks();
  if (unraised_findings() == 0) return;
  std::fflush(nullptr);
  ::_exit(kExitStatus);
}

// LOCK: Findings::mutex
void prepare_exit(Findings& f) {
  if (!std::exchange(f.exit_prepared, true)) std::atexit(end_with_status);
}

void keep(std::vector<SanitizerFinding> found) {
  Findings& f = all();
  std::unique_lock<std::mutex> lock(f.mutex);
  if (f.collect) {
    for (auto& finding : found) f.collected.push_back(std::move(finding));
    return;
  }
  for (const auto& finding : found) f.pending.push_back(finding);
  f.any_pending = !f.pending.empty();
  prepare_exit(f);
  lock.unlock();
  for (const auto& finding : found) std::fprintf(stderr, "%s\n", report_of(finding).c_str());
  std::fflush(stderr);
}

void take_from_layer() {
  if (auto found = sanitizer::take_findings(); !found.empty()) keep(std::move(found));
}

std::string name_of_stream(openreg_stream handle) {
  for (const c10::Stream stream : used_streams()) {
    if (stream_handle(stream) != handle) continue;
    const std::string device = "openreg:" + std::to_string(static_cast<int>(stream.device_index()));
    return stream.id() == 0 ? "the default stream of " + device : "stream " + std::to_string(stream.id()) + " of " + device;
  }
  return "";
}

// Blocks of before are known from now on; who wrote them is not.
void adopt_blocks() {
  for (c10::DeviceIndex device = 0; device < device_count(); ++device) {
    DeviceHeap* heap = find_heap(device);
    if (heap == nullptr) continue;
    std::vector<c10::CachingDeviceAllocator::SegmentInfo> segments;
    heap->snapshot(segments, nullptr);
    for (const auto& segment : segments) {
      size_t offset = 0;
      for (const auto& block : segment.blocks) {
        void* address = reinterpret_cast<void*>(segment.address + offset);
        const c10::Stream stream(c10::Stream::UNSAFE, c10::Device(c10::DeviceType::PrivateUse1, device), reinterpret_cast<c10::StreamId>(segment.stream));
        if (block.allocated) sanitizer::block_allocated(stream_handle(stream), address, block.size, block.requested_size, 0, true);
        offset += block.size;
      }
    }
  }
}

std::string indented(const std::string& text) {
  constexpr int kLines = 8;  // the outer ones are mostly the program's frame
  std::string lines = "\n      ";
  int count = 1;
  for (const char c : text) {
    if (c == '\n' && ++count > kLines) return lines + "\n      ...";
    lines += c;
    if (c == '\n') lines += "      ";
  }
  return lines;
}

void add_stack(std::string* text, uint64_t tag) {
  const std::string stack = call_stack_text(tag);
  *text += stack.empty() ? "\n      (no Python stack)" : indented(stack);
}

}  // namespace

namespace {

void report_live_blocks() {
  std::vector<uint64_t> numbers;
  for (const auto& block : sanitizer::live_blocks()) {
    const auto& excused = all().excused;
    if (std::find(excused.begin(), excused.end(), block.number) == excused.end()) numbers.push_back(block.number);
  }
  report_leaks(numbers);
}

}  // namespace

void set_sanitizer(uint32_t modes) {
  if (modes == 0 && sanitizing() == 0) return;
  if (driver_started()) {
    const RuntimeWait wait;
    for (c10::DeviceIndex device = 0; device < device_count(); ++device) synchronize_device(device);
  }
  take_from_layer();
  detail::sanitizer_modes = 0;
  sanitizer::set_stream_names(name_of_stream);
  sanitizer::set_listener(take_from_layer);
  sanitizer::expect_runtime_blocks();
  sanitizer::set_modes(modes);
  set_layer("sanitizer", (modes & ~sanitizer::kPoison) != 0);
  detail::sanitizer_modes = modes;
  if ((modes & sanitizer::kLeaks) != 0) {
    std::lock_guard<std::mutex> lock(all().mutex);
    prepare_exit(all());
  }
  if (modes != 0 && driver_started()) adopt_blocks();
}

void collect_findings(bool collect) {
  if (collect) sanitizer::tell_again();
  Findings& f = all();
  std::lock_guard<std::mutex> lock(f.mutex);
  f.collect = collect;
}

std::vector<SanitizerFinding> take_sanitizer_findings() {
  take_from_layer();
  Findings& f = all();
  std::lock_guard<std::mutex> lock(f.mutex);
  return std::exchange(f.collected, {});
}

void flush_findings() { take_from_layer(); }

void forget_findings() {
  sanitizer::take_findings();
  Findings& f = all();
  std::lock_guard<std::mutex> lock(f.mutex);
  f.pending.clear();
  f.collected.clear();
  f.any_pending = false;
}

std::vector<SanitizerFinding> possible_sanitizer_findings() { return sanitizer::possible_findings(); }

void check_guard_zones() { sanitizer::check_guards(); }

size_t unraised_findings() {
  Findings& f = all();
  std::lock_guard<std::mutex> lock(f.mutex);
  return f.pending.size();
}

std::string report_of(const SanitizerFinding& finding) {
  std::string text = std::string("torch_openreg sanitizer: ") + (finding.possible ? "possible " : "") + sanitizer::name_of(finding.mode) + ": " + finding.sentence;
  for (const auto& access : finding.accesses) {
    text += "\n  " + access.name + (access.touched.empty() ? "" : " " + access.touched) + ", on " + access.stream + ", called at";
    add_stack(&text, access.tag);
  }
  if (!finding.allocation.empty()) {
    text += "\n  " + finding.allocation + ", at";
    add_stack(&text, finding.allocation_tag);
    if (finding.free_tag != 0) {
      text += "\n  freed at";
      add_stack(&text, finding.free_tag);
    }
  }
  return text + "\n  " + finding.remedy;
}

uint64_t new_sanitizer_mark(c10::Stream stream) {
  return (sanitizing() & ~sanitizer::kPoison) == 0 ? 0 : sanitizer::new_mark(stream_handle(stream));
}

void reach_sanitizer_mark(uint64_t mark) noexcept {
  if (mark != 0) sanitizer::reached(mark);
}

void forget_sanitizer_mark(uint64_t mark) noexcept {
  if (mark != 0) sanitizer::forget_mark(mark);
}

void set_current_sanitizer_mark(uint64_t mark) noexcept { current_mark = mark; }

uint64_t current_sanitizer_mark() noexcept { return current_mark; }

void set_sanitizer_callbacks(const SanitizerCallbacks& callbacks) { all().callbacks = callbacks; }

uint64_t call_stack(bool may_wait) {
  const auto stack = all().callbacks.stack;
  const uint64_t name = stack == nullptr ? 0 : stack(may_wait);
  return name == 0 ? 0 : name | uint64_t{1} << 63;
}

std::string call_stack_text(uint64_t tag) {
  const auto text = all().callbacks.stack_text;
  return text == nullptr || !is_call_stack(tag) ? "" : text(tag & ~(uint64_t{1} << 63));
}

void raise_findings() {
  Findings& f = all();
  if (sanitizer::is_unobserved()) return;
  if (!f.any_pending.load(std::memory_order_acquire)) return;
  std::vector<SanitizerFinding> pending;
  {
    std::lock_guard<std::mutex> lock(f.mutex);
    pending.swap(f.pending);
    f.any_pending = false;
  }
  std::string report;
  for (const auto& finding : pending) report += (report.empty() ? "" : "\n") + report_of(finding);
  if (report.empty()) return;
  if (f.callbacks.raise != nullptr) f.callbacks.raise(report);
  TORCH_CHECK(false, report);
}

std::vector<sanitizer::LiveBlock> live_blocks_since(uint64_t since) {
  std::vector<sanitizer::LiveBlock> blocks;
  for (auto& block : sanitizer::live_blocks()) {
    if (block.number > since) blocks.push_back(std::move(block));
  }
  return blocks;
}

void excuse_blocks(std::vector<uint64_t> numbers) { all().excused = std::move(numbers); }

void report_leaks(const std::vector<uint64_t>& numbers) {
  std::vector<SanitizerFinding> leaks;
  for (const auto& block : sanitizer::live_blocks()) {
    if (std::find(numbers.begin(), numbers.end(), block.number) == numbers.end()) continue;
    SanitizerFinding finding;
    finding.mode = sanitizer::kLeaks;
    finding.sentence = std::to_string(block.requested_bytes) + " bytes are still allocated.";
    finding.allocation = "allocation " + std::to_string(block.number) + " of " + std::to_string(block.requested_bytes) + " bytes" +
                         (block.stream.empty() ? "" : ", made on " + block.stream);
    finding.allocation_tag = block.tag;
    finding.remedy = "Drop the last reference to it before this point.";
    leaks.push_back(std::move(finding));
  }
  if (!leaks.empty()) keep(std::move(leaks));
}

void sanitize_allocation(c10::DeviceIndex device, c10::StreamId stream, void* address, uint64_t size_bytes, uint64_t requested_bytes) {
  const c10::Stream home(c10::Stream::UNSAFE, c10::Device(c10::DeviceType::PrivateUse1, device), stream);
  if ((sanitizing() & sanitizer::kPoison) != 0 && capture_of(home) == 0) {
    check(sanitizer::poison(hal(), stream_handle(home), address, size_bytes), "Filling fresh memory with a pattern");
  }
  if ((sanitizing() & ~sanitizer::kPoison) != 0) {
    sanitizer::block_allocated(stream_handle(home), address, size_bytes, requested_bytes, call_stack(), false);
  }
}

uint64_t sanitize_end(const void* address) noexcept {
  if ((sanitizing() & ~sanitizer::kPoison) == 0) return 0;
  sanitizer::block_ends(address);
  return call_stack(false);
}

}  // namespace openreg
