// graph.h: what a capture recorded, and running it again.
//
// Note [Lanes]
// A graph is a list of operations in the order in which they were captured. Each belongs to a lane: lane 0 is the stream that the capture
// began on, the others are streams that joined it. That order respects every dependency, so a launch just enqueues the operations again, lane 0 on
// the stream that it was given, the others on streams of the graph's own, with new records for the events. Late errors, back-pressure, stall
// reports and schedules treat them as they treat any task.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "driver/sim/event.h"
#include "driver/sim/stream.h"
#include "driver/sim/task.h"
#include "hal/openreg_hal.h"

namespace openreg::sim {

struct Device;

struct GraphOp {
  Task head;            // record, wait: only kind and name count
  uint32_t lane = 0;
  uint32_t record = 0;  // record, wait: the number of the record in the graph
  std::vector<char> payload;
};

struct Lane {
  const Device* device;
  int32_t priority;
};

struct Graph {
  Graph() = default;
  ~Graph();  // runs the cleanups, destroys the streams
  Graph(const Graph&) = delete;

  std::vector<Lane> lanes;
  std::vector<GraphOp> ops;
  uint32_t records = 0;
  bool owns_arguments = false;  // an operation has a cleanup

  std::mutex mutex;                     // LOCK: everything below. One launch at a time. Before the mutex of the handles' pointers
  std::vector<openreg_stream> streams;  // of lanes 1, 2, ...; made by the first launch
  std::vector<RecordRef> last;          // the ends of launches that the next one waits for: of the latest, and of those before an update
  bool replaced = false;                // by graph_update: the handle leads to another graph now
};

// A handle for a graph; null when there are too many.
openreg_graph add_graph(std::unique_ptr<Graph> graph);

// Invalidates every handle. Called by shutdown.
void forget_graphs();

openreg_status graph_launch(openreg_graph graph, openreg_stream stream);
openreg_status graph_destroy(openreg_graph graph);
openreg_status graph_update(openreg_graph graph, openreg_graph source);
openreg_status graph_dump(openreg_graph graph, const char* path);

}  // namespace openreg::sim
