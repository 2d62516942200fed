// The SIGSEGV handler: reads the lock-free table of blocks and prints with nothing but write.
#include "runtime/fault_report.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <mutex>

#include "runtime/device_heap.h"
#include "runtime/free_blocks.h"
#include "runtime/memory_recorder.h"

namespace openreg {

namespace {

const BlockTable* blocks;
struct sigaction previous;
std::atomic<bool> reporting{false};

// Text built without the C library's formatting, which a handler must not call.
class Text {
 public:
  Text& operator<<(const char* words) {
    while (*words != '\0' && length_ < sizeof(buffer_)) buffer_[length_++] = *words++;
    return *this;
  }
  Text& operator<<(uint64_t value) { return digits(value, 10); }
  Text& operator<<(const void* address) { return (*this << "0x").digits(reinterpret_cast<uint64_t>(address), 16); }

  void print() const {
    const ssize_t ignored = write(STDERR_FILENO, buffer_, length_);
    (void)ignored;
  }

 private:
  Text& digits(uint64_t value, uint64_t radix) {
    char reversed[24];
    int count = 0;
    do reversed[count++] = "0123456789abcdef"[value % radix];
    while (value /= radix);
    while (count > 0 && length_ < sizeof(buffer_)) buffer_[length_++] = reversed[--count];
    return *this;
  }

  char buffer_[1024];
  size_t length_ = 0;
};

const char* state_of(const Block& block) {
  switch (block.state) {
    case BlockState::in_use: return "in use";
    case BlockState::pending: return "freed, while other streams still use it";
    default: return "free: its tensor is gone";
  }
}

// Another thread may be changing the block; then the report is of a moment ago.
void report(const char* address) {
  const Block* block = blocks->find_at_or_below(address);
  if (block == nullptr || address < block->address) return;
  const auto offset = static_cast<uint64_t>(address - block->address);
  if (offset >= block->size_bytes) return;
  const bool live = block->state == BlockState::in_use || block->state == BlockState::pending;
  Text text;
  text << "torch_openreg: " << static_cast<const void*>(address) << " lies " << offset << " bytes into the block "
       << static_cast<const void*>(block->address) << " of " << block->size_bytes << " bytes";
  if (live) text << " (" << block->requested_bytes << " requested)";
  text << " on device " << static_cast<uint64_t>(block->heap->device()) << ", " << state_of(*block);
  const auto* site = static_cast<const CallSite*>(block->context.get());
  if (live && site != nullptr && !site->python_line.empty()) {
    text << ", allocated at " << site->python_line.c_str();
  } else if (live) {
    text << "; torch.openreg.memory._record_memory_history() before the allocation makes this report name its line";
  }
  (text << ".\n").print();
}

void pass_on(int number, siginfo_t* info, void* context) {
  if ((previous.sa_flags & SA_SIGINFO) != 0) {
    previous.sa_sigaction(number, info, context);
  } else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
    previous.sa_handler(number);
  } else {
    // With the default action back, returning runs into the same fault again, in the same place.
    struct sigaction standard = {};
    standard.sa_handler = SIG_DFL;
    sigaction(number, &standard, nullptr);
    if (info->si_code <= 0) raise(number);  // sent by a process: nothing would fault again
  }
}

void handle_fault(int number, siginfo_t* info, void* context) {
  // A fault inside the report passes at once.
  if (info->si_code > 0 && !reporting.exchange(true)) {
    report(static_cast<const char*>(info->si_addr));
    reporting.store(false);
  }
  pass_on(number, info, context);
}

}  // namespace

void install_fault_report(const BlockTable& table) {
  static std::once_flag once;
  std::call_once(once, [&table] {
    blocks = &table;
    struct sigaction action = {};
    action.sa_sigaction = handle_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigemptyset(&action.sa_mask);
    sigaction(SIGSEGV, nullptr, &previous);
    sigaction(SIGSEGV, &action, nullptr);
  });
}

}  // namespace openreg
