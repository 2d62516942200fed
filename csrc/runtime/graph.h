// Graphs: work of a stream and of those that joined it, captured once and launched many times.
//
// Note [Graphs]
// The driver captures what reaches it: launches, copies, fills, event records and waits. Around that a graph keeps three things. Memory that the captured
// work allocates comes from a private pool, on the device and for pinned memory, so that nobody else gets the addresses that a replay writes.
// Blocks that were freed during a capture and wait for a captured stream wait until it is over; so does memory of other owners. Random numbers
// go on: a captured launch takes its offset relative to two words of device memory, seed and offset, which a replay sets in stream order behind
// the replay before and before it launches, and the generator advances by what the whole graph uses.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/GraphImplInterface.h>
#include <c10/core/Stream.h>

#include <optional>
#include <string>
#include <vector>

#include "hal/openreg_hal.h"
#include "runtime/event.h"
#include "runtime/export.h"

namespace openreg {

class OPENREG_API Graph final : public at::GraphImplInterface {
 public:
  explicit Graph(const at::GraphImplArgs& args = {});
  ~Graph() override;
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  // Captures the calling thread's current stream, which is not the default one. Registers the device's default generator. With a pool id
  // of another graph the memory is shared: for graphs that are replayed in the order in which they were captured, and not while that graph is being
  // captured. Throws while it holds a graph. When it throws nothing is captured.
  void capture_begin(c10::MempoolId_t pool = {0, 0}, at::GraphCaptureMode mode = at::GraphCaptureMode::Default) override;

  // Ends the capture, on the stream on which it began. AcceleratorError when a call during the capture made it invalid; then there is no graph.
  // Warns of a graph without a task (not while another capture takes some up).
  void capture_end() override;

  void instantiate() override;
  // On the current stream, of the device that was captured.
  void replay() override;
  void reset() override;
  c10::MempoolId_t pool() const override;
  void enable_debug_mode() override { debug_ = true; }
  void debug_dump(const std::string& path) override;

  // The generator's numbers advance with each replay. Before the capture begins, or during it.
  void register_generator(const at::Generator& generator);

  // Runs what `other` captured instead of its own, which has to be the same operators in the same order; takes other's graph, memory and
  // generators, and leaves it empty. Throws ValueError when they differ.
  void update(Graph& other);

 private:
  struct Random {
    at::Generator generator;
    void* words;        // device memory: seed, offset
    uint64_t used = 0;  // 32-bit numbers per replay
  };

  bool capturing() const { return capture_ != 0; }
  void begin_generator(const at::Generator& generator);
  void leave_capture();
  void advance_generators(c10::Stream stream);
  void release() noexcept;

  const bool keep_graph_;
  bool debug_ = false, ready_ = false;
  uint64_t capture_ = 0;  // the driver's number while capturing
  uint64_t tasks_before_ = 0;  // captured_tasks() when the capture began
  std::optional<c10::Stream> stream_;  // that was captured; set while capturing and while there is a graph
  c10::MempoolId_t pool_ = {0, 0};
  bool device_pool_ = false, host_pool_ = false;  // whether the capture's allocations went to the pool
  openreg_graph graph_ = nullptr;
  std::vector<at::Generator> registered_;
  std::vector<Random> random_;
  Event last_{false};  // use of the words: the end of the last replay that drew numbers, or what came before their first
};

}  // namespace openreg
