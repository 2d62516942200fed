// The sanitizer layer: finds programs that are wrong about order, lifetime and contents of device memory.
//
// Note [Order without time]
// The verdict follows from the calls, not from when tasks happen to run. Every stream counts its launches in a vector clock. Recording an
// event keeps the stream's clock, a wait for the event joins it into the waiting stream's, and a wait of the host joins it into the
// host's clock, which every later launch inherits. Two accesses to one byte, one of them a write, race when the later launch's clock
// does not reach the earlier one. The host has one clock for all its threads: what one thread has waited for, the sanitizer takes as
// known to the others, because it does not see how they speak with each other. So it may miss a race between threads and never
// invents one. Nor does it see what other processes do between the records of an event that they share, so a wait for one orders all that
// such events were recorded for here. Waits that the runtime makes for its own sake (see Unobserved) order nothing.
//
// Note [Blocks]
// History belongs to blocks: what the runtime hands out, or, without a runtime, what the driver's mem_alloc and host_alloc return. A block
// that is freed keeps its history, and the blocks that are later cut from its bytes inherit it, so that the first access of the next
// owner is compared with the last ones of the owner before. Memory that no block covers (imports of other processes) is not watched.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "hal/openreg_hal.h"
#include "layers/sanitizer/finding.h"
#include "layers/sanitizer/footprint.h"

namespace openreg::layers::sanitizer {

const openreg_driver* stack(const openreg_driver* below);

// The layer's table, whether it is stacked or not.
const openreg_driver& stacked_table();

// Which modes look at calls, a set of Mode. Switching forgets everything. Call it while no device has work, not from a task.
void set_modes(uint32_t modes);

// How streams are called in reports; "" for the driver's number. Called once for a stream, with a lock held: it may not call back.
void set_stream_names(std::string (*name)(openreg_stream stream));

// Is called on a thread of the host, without a lock, when there are findings to take.
void set_listener(void (*listener)());

// Findings since the last call, certain ones only. Any thread.
std::vector<Finding> take_findings();

// Tells of mistakes again that were told once already.
void tell_again();

// Pairs of calls that may race, as far as they are not decided by now.
std::vector<Finding> possible_findings();

// While one lives, waits and queries of this thread are the runtime's own and order nothing in the eyes of the sanitizer.
class Unobserved {
 public:
  Unobserved() noexcept;
  ~Unobserved();
  Unobserved(const Unobserved&) = delete;
};

// Whether the calling thread has one.
bool is_unobserved() noexcept;

// ---- What only a runtime knows. Any thread of the host, never a task. -------

// Blocks come from the runtime from now on, not from mem_alloc.
void expect_runtime_blocks(bool expected = true);

// A block was handed out. `size_bytes` is what it has, `requested_bytes` what its owner may use. A block that existed before the sanitizer is
// `known_contents`.
void block_allocated(openreg_stream stream, void* address, uint64_t size_bytes, uint64_t requested_bytes, uint64_t tag, bool known_contents);
// Its owner is about to give the block back: the guard zone is checked. Not with a lock held.
void block_ends(const void* address);
// The block was given back. May be called under the allocator's lock.
void block_freed(void* address, uint64_t tag);
// record_stream.
void block_used_by(void* address, openreg_stream stream);
// The streams of record_stream have finished with a freed block. May be called under the allocator's lock.
void block_idle(void* address);
// Somebody freed what is no block in use.
void block_freed_twice(void* address, uint64_t tag);

// Pinned host memory was handed out (again): its last owner's work has finished.
void host_block_allocated(void* address, uint64_t bytes, uint64_t tag);
// The host itself reads or writes memory now. Ignored for memory that is not pinned. `mark`: of the host function that does it; 0 for other code.
void host_access(const char* name, const Footprint& set, bool write, const char* dtype, uint64_t tag, uint64_t mark = 0);
// Whether the address lies in pinned memory that a device has used.
bool is_host_block(const void* address);
// Whether host_access has anything to look at. Hot.
bool watches_host_memory() noexcept;

// A point of the stream, after what it has enqueued by now, that a task of the program reaches (reached) and tells other threads of in a way that the
// sanitizer does not see: what comes before it counts as waited for from then on. In a graph what comes before it is all up to the end of the latest
// replay. 0 in a capture of before the modes were switched on.
uint64_t new_mark(openreg_stream stream);
void reached(uint64_t mark);
void forget_mark(uint64_t mark);

// Announces a launch whose task will tell what it touched; goes into openreg_operand.token.
uint64_t new_token();
// The elements that an operand marked OPENREG_OPERAND_SOME has touched. From the task.
void touched(uint64_t token, std::vector<Footprint> sets);
// The task cannot tell.
void untold(uint64_t token);

// How many announced launches have neither told nor ended. For tests.
size_t open_promises();

// Blocks in use. The host's are left out.
struct LiveBlock {
  uint64_t number;  // in the order of allocation
  void* address;
  uint64_t requested_bytes;
  uint64_t tag;
  std::string stream;
};
std::vector<LiveBlock> live_blocks();

// The least length of a guard zone: in bounds mode the runtime adds it to the size of a block.
constexpr uint64_t kGuardBytes = 512;

// Poison: two bytes, over and over. They are NaN in every floating-point type of one byte or more that has one there (not float8_e8m0fnu and the fnuz types),
// and integers get 32767, 2147450879 or 9223231297218904063.
constexpr uint8_t kPoisonBytes[2] = {0xFF, 0x7F};

// Enqueues the pattern into fresh memory, unseen by this layer. `driver` is whose launches to use; when it is this layer's table, the one below.
openreg_status poison(const openreg_driver& driver, openreg_stream stream, void* address, uint64_t bytes);

// Looks at every guard zone, in stream order; the host waits for the devices afterwards.
void check_guards();

}  // namespace openreg::layers::sanitizer
