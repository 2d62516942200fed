// fault_report.cpp: the SIGSEGV handler and the lock-free tables that it reads.
#include "driver/sim/fault_report.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <atomic>
#include <mutex>
#include <vector>

namespace openreg::sim {
namespace {

constexpr int32_t kChunks = 128, kChunkSegments = 1024;

// bytes == 0: free. The handler may meet a segment that is being changed; then it prints an old one at worst.
struct Segment {
  std::atomic<uint64_t> base{0}, bytes{0};
};

struct Views {
  std::atomic<uint64_t> device{0}, kernel{0}, bytes_per_device{0}, total_bytes{0};
};

Views views;
std::atomic<Segment*> chunks[kChunks];
std::mutex table_mutex;                // writers only
std::vector<int32_t>& free_slots = *new std::vector<int32_t>;
int32_t used_slots = 0;
struct sigaction previous;

// A line of text built without the C library's formatting, which a handler must not call.
class Line {
 public:
  Line& text(const char* words) {
    while (*words && length_ < sizeof buffer_) buffer_[length_++] = *words++;
    return *this;
  }
  Line& decimal(uint64_t value) { return digits(value, 10); }
  Line& hex(uint64_t value) { return text("0x").digits(value, 16); }
  void print() {
    ssize_t ignored = write(STDERR_FILENO, buffer_, length_);
    (void)ignored;
  }

 private:
  Line& digits(uint64_t value, uint64_t radix) {
    char reversed[24];
    int count = 0;
    do reversed[count++] = "0123456789abcdef"[value % radix];
    while (value /= radix);
    while (count && length_ < sizeof buffer_) buffer_[length_++] = reversed[--count];
    return *this;
  }

  char buffer_[512];
  size_t length_ = 0;
};

void report(uint64_t address, uint64_t view_base, const char* opening, const char* advice) {
  const uint64_t bytes_per_device = views.bytes_per_device.load(std::memory_order_acquire);
  const uint64_t device_address = views.device.load(std::memory_order_relaxed) + (address - view_base);
  Line line;
  line.text("openreg: ").text(opening).text(" address ").hex(address).text(" of device ");
  line.decimal((address - view_base) / bytes_per_device);
  bool found = false;
  for (int32_t chunk = 0; chunk < kChunks && !found; ++chunk) {
    Segment* segments = chunks[chunk].load(std::memory_order_acquire);
    if (!segments) break;
    for (int32_t i = 0; i < kChunkSegments; ++i) {
      const uint64_t bytes = segments[i].bytes.load(std::memory_order_acquire);
      const uint64_t base = segments[i].base.load(std::memory_order_acquire);
      if (bytes == 0 || device_address < base || device_address - base >= bytes) continue;
      line.text(", allocation ").hex(base).text(", offset ").decimal(device_address - base).text(", size ").decimal(bytes);
      found = true;
      break;
    }
  }
  if (!found) line.text(", in no live allocation");
  line.text(": ").text(advice).text("\n").print();
}

void pass_on(int number, siginfo_t* info, void* context) {
  if (previous.sa_flags & SA_SIGINFO) {
    previous.sa_sigaction(number, info, context);
  } else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
    previous.sa_handler(number);
  } else {
    // With the default action back, returning runs into the same fault again, in the same place.
    struct sigaction standard;
    memset(&standard, 0, sizeof standard);
    standard.sa_handler = SIG_DFL;
    sigaction(number, &standard, nullptr);
    if (info->si_code <= 0) raise(number);  // sent by a process: nothing would fault again
  }
}

void handle_fault(int number, siginfo_t* info, void* context) {
  if (info->si_code > 0) {
    const uint64_t address = reinterpret_cast<uint64_t>(info->si_addr);
    const uint64_t total = views.total_bytes.load(std::memory_order_acquire);
    const uint64_t device = views.device.load(std::memory_order_relaxed);
    const uint64_t kernel = views.kernel.load(std::memory_order_relaxed);
    if (total && address - device < total)
      report(address, device, "the host touched", "this is device memory; the host cannot touch it; copy it with .cpu()");
    else if (total && address - kernel < total)
      report(address, kernel, "device code touched kernel-view", "a task reached outside of live device memory");
  }
  pass_on(number, info, context);
}

}  // namespace

void fault_report_install() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = handle_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigemptyset(&action.sa_mask);
    sigaction(SIGSEGV, nullptr, &previous);
    sigaction(SIGSEGV, &action, nullptr);
  });
}

void fault_report_set_views(uint64_t device_view, uint64_t kernel_view, uint64_t bytes_per_device, int32_t devices) {
  views.device.store(device_view, std::memory_order_relaxed);
  views.kernel.store(kernel_view, std::memory_order_relaxed);
  views.bytes_per_device.store(bytes_per_device, std::memory_order_relaxed);
  views.total_bytes.store(bytes_per_device * static_cast<uint64_t>(devices), std::memory_order_release);
}

void fault_report_clear_views() { views.total_bytes.store(0, std::memory_order_release); }

int32_t fault_report_add(uint64_t base, uint64_t bytes) {
  std::lock_guard<std::mutex> guard(table_mutex);
  int32_t slot;
  if (!free_slots.empty()) {
    slot = free_slots.back();
    free_slots.pop_back();
  } else {
    if (used_slots == kChunks * kChunkSegments) return -1;
    free_slots.reserve(static_cast<size_t>(used_slots) + 1);
    if (used_slots % kChunkSegments == 0)
      chunks[used_slots / kChunkSegments].store(new Segment[kChunkSegments], std::memory_order_release);
    slot = used_slots++;
  }
  Segment& segment = chunks[slot / kChunkSegments].load(std::memory_order_relaxed)[slot % kChunkSegments];
  segment.base.store(base, std::memory_order_release);
  segment.bytes.store(bytes, std::memory_order_release);
  return slot;
}

void fault_report_remove(int32_t slot) {
  if (slot < 0) return;
  std::lock_guard<std::mutex> guard(table_mutex);
  chunks[slot / kChunkSegments].load(std::memory_order_relaxed)[slot % kChunkSegments].bytes.store(0, std::memory_order_release);
  free_slots.push_back(slot);
}

}  // namespace openreg::sim
