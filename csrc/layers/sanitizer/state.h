// What the sanitizer knows: clocks of streams, events and the host, blocks with the history of their bytes, and findings.
//
// Every function takes the one mutex itself, calls with it the driver only to ask about a stream or a device's memory, and the
// runtime only for a stream's name, and may run on any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "hal/openreg_hal.h"
#include "layers/sanitizer/byte_set.h"
#include "layers/sanitizer/clock.h"
#include "layers/sanitizer/finding.h"
#include "layers/sanitizer/footprint.h"
#include "layers/sanitizer/sanitizer.h"

namespace openreg::layers::sanitizer {

struct Launch;
struct Owner;

// What a task told of an operand of which data choose the elements, and what of the operand nobody had written at the launch.
struct Told {
  bool known = false;
  std::vector<Footprint> sets;
  struct Unwritten {
    uintptr_t begin, end, block;
    std::shared_ptr<const Owner> owner;
  };
  std::vector<Unwritten> unwritten;
  std::weak_ptr<const Launch> launch;  // that uses the elements, with the index of the operand
  uint32_t operand = 0;
};

struct Operand {
  Footprint set;
  bool write = false;
  bool some = false;   // touches a part of the set that data choose
  bool moved = false;  // its values are copied, not used
  const char* dtype = nullptr;
  int dims = 0;
  int64_t sizes[8] = {};
  std::shared_ptr<Told> told;
};

constexpr uint32_t kHost = ~0u;  // as the stream of an access by the host itself

struct Launch {
  const char* name = nullptr;
  uint64_t tag = 0;
  uint64_t task = 0;  // names the task to whoever sees it fail; 0: nobody looks
  uint32_t stream = 0;
  uint64_t tick = 0;
  bool raw_copy = false;  // moves bytes from the second operand to the first
  bool replayed = false;  // by a graph, which may use blocks that were freed when it was captured
  std::vector<Operand> operands;
};

// The identity of a block, which its history keeps beyond its life.
struct Owner {
  uint64_t number = 0;
  uint64_t requested_bytes = 0;
  uint64_t allocation_tag = 0, free_tag = 0;
  uint32_t home = kHost;  // the stream that it was allocated for; kHost: none
  bool captured = false;  // it was allocated in a capture, and its memory is the graph's
  bool freed = false;
};

// One access in the history of a block.
struct Use {
  std::shared_ptr<const Launch> launch;
  uint32_t operand = 0;
  std::shared_ptr<const Owner> owner;  // of the block at the time
  std::shared_ptr<const Clock> after;  // what the call comes after; only for pinned memory
  const Operand& touched() const { return launch->operands[operand]; }
};

struct Block {
  uintptr_t begin = 0, end = 0;
  std::shared_ptr<Owner> owner;
  bool live = false;
  bool host = false;
  bool known_contents = false;  // somebody has written everything, as far as init may tell
  bool guarded = false;
  bool guard_filled = false;  // the task that fills the zone has run
  ByteSet written;
  std::vector<uint32_t> users;  // streams that record_stream named
  Clock awaited;                // what the allocator waits for before it hands the freed block out again
  std::vector<Use> uses;

  uintptr_t usable_end() const { return begin + owner->requested_bytes; }
};

class State {
 public:
  void reset(uint32_t modes);
  uint32_t modes() const { return modes_.load(std::memory_order_relaxed); }
  bool has(Mode mode) const { return (modes() & mode) != 0; }
  void set_below(const openreg_driver* below) { below_ = below; }
  const openreg_driver& below() const { return *below_; }
  void set_stream_names(std::string (*name)(openreg_stream)) { stream_name_ = name; }
  void set_listener(void (*listener)()) { listener_ = listener; }
  void expect_runtime_blocks(bool expected) { runtime_blocks_ = expected; }
  bool runtime_blocks() const { return runtime_blocks_; }
  // Tells the listener, if there is something to tell. On host threads only.
  void deliver();

  // ---- Order: order.cpp
  // Before the driver gets a launch: mistakes that it makes by itself are told, because it may not survive them.
  std::shared_ptr<Launch> announce(openreg_stream stream, const char* name, uint64_t tag, std::vector<Operand> operands, bool raw_copy);
  // The driver has accepted it. Launches that it refuses touch nothing.
  void accepted(openreg_stream stream, const std::shared_ptr<Launch>& launch);
  void record(openreg_event event, openreg_stream stream);
  void wait(openreg_stream stream, openreg_event event);
  void forget_event(openreg_event event);
  // Other processes may record the event, too: Note [Order without time].
  void share(openreg_event event);
  void forget_stream(openreg_stream stream);
  Clock clock_of(openreg_stream stream);
  Clock clock_of(openreg_event event);
  Clock clock_of_device(int32_t device);
  // The host has waited for what the clock covers. `failed`: and was told that a task failed.
  void host_waited(const Clock& clock, bool failed = false);
  // A point of the stream that a task will reach: what comes before it the host knows from then on.
  uint64_t new_mark(openreg_stream stream);
  void reached(uint64_t mark);
  void forget_mark(uint64_t mark);
  // `mark`: of the function of the host that makes the access; 0: none.
  void host_access(const char* name, const Footprint& set, bool write, const char* dtype, uint64_t tag, uint64_t mark);
  bool is_host_block(const void* address);
  bool watches_host() const { return host_uses_.load(std::memory_order_relaxed); }
  uint64_t new_token();
  void touched(uint64_t token, std::vector<Footprint> sets);
  void untold(uint64_t token);
  size_t promises();  // that are open
  // Fills an operand's promise to tell more.
  std::shared_ptr<Told> promise(uint64_t token);

  // ---- Tasks that failed, and those that were skipped after them: failures.cpp
  uint64_t new_task() { return ++tasks_; }
  void task_failed(uint64_t task);
  void device_was_reset(int32_t device);

  // ---- Graphs: graphs.cpp
  // The capture that the stream is in, 0 for none.
  uint64_t capture_of(openreg_stream stream);
  bool captures_underway() const { return captures_.load(std::memory_order_relaxed) != 0; }
  void begin_capture(uint64_t capture);
  void end_capture(uint64_t capture, openreg_graph graph);
  void captured_launch(uint64_t capture, openreg_stream stream, const std::shared_ptr<Launch>& launch);
  void captured_record(uint64_t capture, openreg_event event, openreg_stream stream);
  bool captured_wait(openreg_stream stream, openreg_event event);
  // Before the driver gets a replay: functions of the host in it may run before replay() is called.
  void expect_replay(openreg_graph graph, openreg_stream stream);
  void replay(openreg_graph graph, openreg_stream stream);
  void forget_graph(openreg_graph graph);
  void update_graph(openreg_graph graph, openreg_graph source);

  // ---- Blocks: blocks.cpp
  void allocated(openreg_stream stream, void* address, uint64_t size_bytes, uint64_t requested_bytes, uint64_t tag, bool known_contents, bool host);
  void freed(void* address, uint64_t tag);
  void used_by(void* address, openreg_stream stream);
  void idle(void* address);
  void freed_twice(void* address, uint64_t tag);
  void returned(void* address, uint64_t bytes);
  // A launch has not said what it touches.
  void contents_unknown();
  void host_reused(void* address, uint64_t bytes, uint64_t tag);
  // Pinned memory of before the modes were switched on is a block from its first copy on.
  void adopt_host(const void* address);
  std::vector<LiveBlock> live_blocks();

  // ---- Guard zones: guards.cpp
  void fill_guard(openreg_stream stream, void* address);
  void check_guard(openreg_stream stream, const void* address, const char* name, uint64_t tag);
  void check_written_guards(openreg_stream stream, const std::vector<uintptr_t>& addresses, const char* name, uint64_t tag);
  void check_all_guards();
  void guard_filled(uint64_t number);
  void guard_broken(uint64_t number, uint64_t offset, const char* name, uint64_t tag, uint32_t stream, bool one_launch);

  // ---- Findings: report.cpp
  std::vector<Finding> take_findings();
  std::vector<Finding> possible_findings();
  void tell_again();

 private:
  struct Stream {
    openreg_stream handle = nullptr;
    int32_t device = -1;
    std::string name;
    Clock clock;
  };
  struct Capture {
    std::unordered_map<uint32_t, Clock> clocks;  // of each of its streams
    std::unordered_map<openreg_event, Clock> events;
    std::vector<std::shared_ptr<Launch>> launches;
    std::vector<uint64_t> marks;
    std::map<uint64_t, Use> inputs;  // the first use of each block of before, by its number
  };
  struct Graph {
    std::vector<std::shared_ptr<Launch>> launches;
    std::vector<uint64_t> marks;
    std::map<uint64_t, Use> inputs;
    Clock replayed;  // the end of the last replay
  };
  // The place of a function of the host in its stream; of one in a graph, the end of the last replay.
  struct Mark {
    uint32_t stream = 0;
    uint64_t tick = 0;
    Clock clock;
  };
  // A pair that is a race if what the tasks touched has bytes in common.
  struct Suspicion {
    Use first, second;
  };
  // What a task has yet to tell: kept for the launch, which may still be on its way, and then only watched.
  struct Promise {
    std::shared_ptr<Told> kept;
    std::weak_ptr<Told> told;
  };
  // Bytes of a block that a launch wrote first.
  struct Written {
    uint64_t number;  // of the allocation
    uintptr_t begin, end;
  };
  // A launch that the host has not waited for, and what counts as written because of it.
  struct Unsettled {
    std::shared_ptr<const Launch> launch;
    Clock clock;
    std::vector<Written> written;
  };
  using Blocks = std::map<uintptr_t, Block>;

  uint32_t number_of(openreg_stream stream);
  void forget_captured(openreg_event event);
  void use_inputs(Graph& graph);
  void move_marks(const Graph& graph, uint32_t stream, const Clock& clock);
  Clock recorded(openreg_event event) const;
  std::vector<Block*> blocks_in(uintptr_t begin, uintptr_t end);
  Block* block_at(const void* address);
  void examine(const Launch& launch, const Operand& touched);
  void add_launch(const std::shared_ptr<const Launch>& launch, const Clock& now);
  void touch(const std::shared_ptr<const Launch>& launch, uint32_t operand, const Clock& now);
  void settle(const Clock& clock, bool failed);
  void forget_written(const std::vector<Written>& written);
  void compare(Block& block, Use use, const Clock& now);
  void judge(const Use& first, const Use& second);
  void decide();
  void read_contents(const std::shared_ptr<const Launch>& launch, uint32_t index);
  void expect_chosen(const std::shared_ptr<const Launch>& launch, uint32_t index);
  void read_chosen(const Told& told);
  void add_unwritten(const Launch& launch, const Operand& operand, const Owner& owner, uint64_t offset);
  void write_contents(const Operand& operand, std::vector<Written>* first);
  void move_contents(const Operand& from, const Operand& to, std::vector<Written>* first);
  Finding conflict(const Use& first, const Use& second, bool possible);
  void add(Finding finding, uint64_t first_tag, uint64_t second_tag);
  Access describe(const Launch& launch, const Operand& operand);
  std::string describe(uint32_t stream);
  void describe(const Owner& owner, Finding* finding);

  std::atomic<uint32_t> modes_{0};
  std::atomic<bool> host_uses_{false};
  std::atomic<bool> undelivered_{false};
  std::atomic<int> captures_{0};
  std::atomic<uint64_t> tasks_{0};
  const openreg_driver* below_ = nullptr;
  std::string (*stream_name_)(openreg_stream) = nullptr;
  void (*listener_)() = nullptr;
  std::atomic<bool> runtime_blocks_{false};

  std::mutex mutex_;  // LOCK: everything below
  std::vector<Stream> streams_;
  std::unordered_map<openreg_stream, uint32_t> numbers_;
  std::unordered_map<openreg_event, Clock> events_;
  std::set<openreg_event> shared_events_;
  Clock shared_;  // of all records of shared events
  Clock host_;
  std::unordered_map<uint64_t, Capture> underway_;
  std::unordered_map<openreg_graph, Graph> graphs_;
  Blocks blocks_;
  uint64_t allocations_ = 0;
  uint64_t tokens_ = 0;
  std::unordered_map<uint64_t, Promise> promises_;
  std::unordered_map<uint64_t, Mark> marks_;
  uint64_t last_mark_ = 0;
  std::vector<Unsettled> unsettled_;  // in init mode
  std::set<uint64_t> failed_tasks_;
  std::vector<Suspicion> suspicions_;
  std::vector<Finding> findings_;
  std::set<std::tuple<std::string, uint64_t, uint64_t>> seen_;  // what was found already
};

// The state of the process; lives as long as it.
State& state();

}  // namespace openreg::layers::sanitizer
