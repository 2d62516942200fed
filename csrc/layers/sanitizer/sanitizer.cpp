// The runtime's door to the state.
#include "layers/sanitizer/sanitizer.h"

#include "layers/sanitizer/state.h"

namespace openreg::layers::sanitizer {

void set_modes(uint32_t modes) { state().reset(modes); }

void State::reset(uint32_t modes) {
  std::lock_guard<std::mutex> lock(mutex_);
  modes_ = modes;
  host_uses_ = false;
  undelivered_ = false;
  streams_.clear();
  numbers_.clear();
  events_.clear();  // shared_events_ stay shared
  shared_ = Clock();
  host_ = Clock();
  blocks_.clear();
  underway_.clear();
  graphs_.clear();
  captures_ = 0;
  promises_.clear();
  marks_.clear();
  unsettled_.clear();
  failed_tasks_.clear();
  suspicions_.clear();
  findings_.clear();
  seen_.clear();
}

void set_stream_names(std::string (*name)(openreg_stream)) { state().set_stream_names(name); }
void set_listener(void (*listener)()) { state().set_listener(listener); }
std::vector<Finding> take_findings() { return state().take_findings(); }
void tell_again() { state().tell_again(); }
std::vector<Finding> possible_findings() { return state().possible_findings(); }

void expect_runtime_blocks(bool expected) { state().expect_runtime_blocks(expected); }

void block_allocated(openreg_stream stream, void* address, uint64_t size_bytes, uint64_t requested_bytes, uint64_t tag, bool known_contents) {
  state().allocated(stream, address, size_bytes, requested_bytes, tag, known_contents, false);
  if (state().has(kBounds)) state().fill_guard(stream, address);
}

void block_ends(const void* address) {
  if (state().has(kBounds)) state().check_guard(nullptr, address, nullptr, 0);
}

void block_freed(void* address, uint64_t tag) { state().freed(address, tag); }
void block_used_by(void* address, openreg_stream stream) { state().used_by(address, stream); }
void block_idle(void* address) { state().idle(address); }
void block_freed_twice(void* address, uint64_t tag) { state().freed_twice(address, tag); }
void host_block_allocated(void* address, uint64_t bytes, uint64_t tag) { state().host_reused(address, bytes, tag); }

void host_access(const char* name, const Footprint& set, bool write, const char* dtype, uint64_t tag, uint64_t mark) {
  state().host_access(name, set, write, dtype, tag, mark);
}

bool is_host_block(const void* address) { return state().is_host_block(address); }
bool watches_host_memory() noexcept { return state().watches_host(); }
uint64_t new_mark(openreg_stream stream) { return state().new_mark(stream); }
void reached(uint64_t mark) { state().reached(mark); }
void forget_mark(uint64_t mark) { state().forget_mark(mark); }
size_t open_promises() { return state().promises(); }
uint64_t new_token() { return state().new_token(); }
void touched(uint64_t token, std::vector<Footprint> sets) { state().touched(token, std::move(sets)); }
void untold(uint64_t token) { state().untold(token); }
std::vector<LiveBlock> live_blocks() { return state().live_blocks(); }
void check_guards() { state().check_all_guards(); }

}  // namespace openreg::layers::sanitizer
