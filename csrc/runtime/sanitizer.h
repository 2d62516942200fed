// The sanitizer's side of the runtime: it switches the layer (layers/sanitizer) on and off, tells it what allocators and waits mean, prints
// findings, and raises them at the next wait of the program. Off, every hook is a load and a branch.
#pragma once

#include <c10/core/Stream.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "layers/sanitizer/sanitizer.h"
#include "runtime/export.h"

namespace openreg {

using SanitizerFinding = layers::sanitizer::Finding;

// While one lives, waits and queries of this thread are the runtime's own: they order nothing, and raise no finding.
using RuntimeWait = layers::sanitizer::Unobserved;

namespace detail {
OPENREG_API extern std::atomic<uint32_t> sanitizer_modes;
}

// The modes that are on, a set of layers::sanitizer::Mode. Hot.
inline uint32_t sanitizing() noexcept { return detail::sanitizer_modes.load(std::memory_order_relaxed); }

// Looks for these modes from now on, 0 for none; waits for every device first. Findings that nobody has taken are kept. Host threads.
OPENREG_API void set_sanitizer(uint32_t modes);

// Findings are kept for take_sanitizer_findings() instead of raised, and not printed; mistakes of before are found again.
OPENREG_API void collect_findings(bool collect);

// The collected findings since the last call.
OPENREG_API std::vector<SanitizerFinding> take_sanitizer_findings();

// Pairs of calls that may race, as far as no task has told yet what an index chose.
OPENREG_API std::vector<SanitizerFinding> possible_sanitizer_findings();

// Looks at every guard zone in stream order; the next wait brings what was found.
OPENREG_API void check_guard_zones();

// The report of a finding, several lines, with stacks.
OPENREG_API std::string report_of(const SanitizerFinding& finding);

// Fetches what tasks have found: at the end, when nothing waits any more. Prints it.
OPENREG_API void flush_findings();

// Drops findings that were not raised or taken yet.
OPENREG_API void forget_findings();

// How many findings were neither raised nor taken. From the first one on, the process ends with a status of its own.
OPENREG_API size_t unraised_findings();

// How Python names call stacks, and raises its SanitizerError; it sets all three.
struct SanitizerCallbacks {
  uint64_t (*stack)(bool may_wait) = nullptr;       // a name for the calling thread's stack, 0 for none; may_wait: for the GIL
  std::string (*stack_text)(uint64_t) = nullptr;    // its lines, innermost first
  void (*raise)(const std::string& report) = nullptr;
};
OPENREG_API void set_sanitizer_callbacks(const SanitizerCallbacks& callbacks);

// Marks of layers/sanitizer, on a stream of the program; 0 while nobody looks.
OPENREG_API uint64_t new_sanitizer_mark(c10::Stream stream);
OPENREG_API void reach_sanitizer_mark(uint64_t mark) noexcept;
OPENREG_API void forget_sanitizer_mark(uint64_t mark) noexcept;

// The mark of the host function that the calling thread runs: 0 outside of one, kUnknownMark in one that was launched while nobody looked.
constexpr uint64_t kUnknownMark = ~uint64_t{0};
OPENREG_API void set_current_sanitizer_mark(uint64_t mark) noexcept;
OPENREG_API uint64_t current_sanitizer_mark() noexcept;

// The calling thread's stack as a descriptor tag.
uint64_t call_stack(bool may_wait = true);
inline bool is_call_stack(uint64_t tag) { return (tag >> 63) != 0; }
OPENREG_API std::string call_stack_text(uint64_t tag);

// Raises what was found and not raised yet. At the end of waits that the program asked for.
void raise_findings();

// Blocks in use that `since` has not seen: numbers above it. 0 for all.
OPENREG_API std::vector<layers::sanitizer::LiveBlock> live_blocks_since(uint64_t since);
// Blocks that are no leaks at the end of the process, by their numbers.
OPENREG_API void excuse_blocks(std::vector<uint64_t> numbers);

// Reports blocks in use as leaks, by their numbers.
OPENREG_API void report_leaks(const std::vector<uint64_t>& numbers);

// ---- What the allocators tell, while sanitizing() ---------------------------

void sanitize_allocation(c10::DeviceIndex device, c10::StreamId stream, void* address, uint64_t size_bytes, uint64_t requested_bytes);

// The address is about to be freed: returns the stack for block_freed, unless reading it would have to wait for the GIL.
uint64_t sanitize_end(const void* address) noexcept;

// Bytes that a block gets beyond its request, so that it ends in a guard zone.
inline uint64_t sanitizer_guard_bytes() noexcept { return (sanitizing() & layers::sanitizer::kBounds) != 0 ? layers::sanitizer::kGuardBytes : 0; }

}  // namespace openreg
