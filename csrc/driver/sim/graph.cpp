// graph.cpp: launching, destroying and drawing graphs.
#include "driver/sim/graph.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>

#include "driver/sim/capture.h"
#include "driver/sim/device.h"
#include "driver/sim/executor.h"
#include "driver/sim/handle.h"
#include "driver/sim/status.h"

namespace openreg::sim {
namespace {

using SharedGraph = std::shared_ptr<Graph>;
using GraphTable = HandleTable<SharedGraph, openreg_graph, HandleKind::graph>;

GraphTable& graph_table() {
  static GraphTable& table = *new GraphTable;
  return table;
}

// LOCK: the pointers that the handles lead to.
std::mutex& pointers_mutex() {
  static std::mutex& mutex = *new std::mutex;
  return mutex;
}

// One update at a time. Before Graph::mutex.
std::mutex& update_mutex() {
  static std::mutex& mutex = *new std::mutex;
  return mutex;
}

SharedGraph* erase_graph(openreg_graph handle) {
  std::lock_guard<std::mutex> guard(pointers_mutex());
  return graph_table().erase(handle);
}

SharedGraph find_graph(const char* operation, openreg_graph handle) {
  std::lock_guard<std::mutex> guard(pointers_mutex());
  const SharedGraph* graph = graph_table().find(handle);
  if (graph) return *graph;
  fail(OPENREG_INVALID_VALUE, "%s: %p is not a live graph", operation, static_cast<void*>(handle));
  return nullptr;
}

openreg_status make_streams(Graph& graph) {
  for (size_t lane = graph.streams.size() + 1; lane < graph.lanes.size(); ++lane) {
    openreg_stream stream;
    if (openreg_status status = stream_create(graph.lanes[lane].device->index, graph.lanes[lane].priority, &stream)) return status;
    graph.streams.push_back(stream);
  }
  return OPENREG_OK;
}

openreg_status do_nothing(void*, openreg_error*) { return OPENREG_OK; }
void drop_graph(void* args) { delete *static_cast<SharedGraph**>(args); }

// Keeps the graph, which owns what arguments refer to, until everything enqueued on the stream has finished.
openreg_status keep_graph(const SharedGraph& graph, Stream& stream) {
  auto kept = std::make_unique<SharedGraph>(graph);
  SharedGraph* args = kept.get();
  Task task{};
  task.kind = TaskKind::host_func;
  task.name = "graph end";
  task.host_func = do_nothing;
  task.cleanup = drop_graph;
  task.internal = true;
  const openreg_status status = submit(stream, task, {}, {&args, sizeof args}, nullptr);
  if (status == OPENREG_OK) kept.release();
  return status;
}

openreg_status launch_op(const GraphOp& op, Stream& stream, std::vector<RecordRef>& records) {
  switch (op.head.kind) {
    case TaskKind::record:
      records[op.record] = make_record(stream, false);
      return enqueue_record(stream, records[op.record]);
    case TaskKind::wait:
      return enqueue_wait(stream, records[op.record]);
    default: {
      Task head = op.head;
      head.cleanup = nullptr;  // the graph keeps the arguments for its next launch
      return submit(stream, head, {}, {op.payload.data(), op.payload.size()}, nullptr);
    }
  }
}

// LOCK: Graph::mutex
openreg_status launch(const SharedGraph& shared, Stream& stream) {
  Graph& graph = *shared;
  if (openreg_status status = make_streams(graph)) return status;
  std::vector<Stream*> lanes{&stream};
  for (openreg_stream handle : graph.streams) lanes.push_back(stream_table().find(handle));
  std::vector<RecordRef> records(graph.records);
  for (const RecordRef& last : graph.last)
    if (last->stream.get() != &stream)
      if (openreg_status status = enqueue_wait(stream, last)) return status;
  for (const GraphOp& op : graph.ops)
    if (openreg_status status = launch_op(op, *lanes[op.lane], records)) return status;
  if (graph.owns_arguments)
    if (openreg_status status = keep_graph(shared, stream)) return status;
  RecordRef end = make_record(stream, false);
  if (openreg_status status = enqueue_record(stream, end, true)) return status;
  graph.last.clear();
  graph.last.push_back(std::move(end));
  return OPENREG_OK;
}

bool same_operations(const Graph& a, const Graph& b) {
  const auto same_lane = [](const Lane& x, const Lane& y) { return x.device == y.device && x.priority == y.priority; };
  const auto same_op = [](const GraphOp& x, const GraphOp& y) {
    return x.head.kind == y.head.kind && x.lane == y.lane && x.record == y.record && strcmp(x.head.name, y.head.name) == 0;
  };
  return std::equal(a.lanes.begin(), a.lanes.end(), b.lanes.begin(), b.lanes.end(), same_lane) &&
         std::equal(a.ops.begin(), a.ops.end(), b.ops.begin(), b.ops.end(), same_op);
}

// ---- Drawing ----------------------------------------------------------------

std::string quoted(const char* name) {
  std::string text = "\"";
  for (; *name; ++name) {
    if (*name == '"' || *name == '\\') text += '\\';
    text += *name;
  }
  return text + '"';
}

void draw(const Graph& graph, FILE* file) {
  fprintf(file, "digraph graph_of_%zu_operations {\n", graph.ops.size());
  std::vector<long> last_of_lane(graph.lanes.size(), -1), op_of_record(graph.records, -1);
  for (size_t i = 0; i < graph.ops.size(); ++i) {
    const GraphOp& op = graph.ops[i];
    long& last = last_of_lane[op.lane];
    fprintf(file, "  op%zu [label=%s, shape=%s, group=lane%u];\n", i, quoted(op.head.name).c_str(),
            op.head.kind == TaskKind::record || op.head.kind == TaskKind::wait ? "point" : "ellipse", op.lane);
    if (last >= 0) fprintf(file, "  op%ld -> op%zu;\n", last, i);
    if (op.head.kind == TaskKind::wait) fprintf(file, "  op%ld -> op%zu [style=dashed];\n", op_of_record[op.record], i);
    if (op.head.kind == TaskKind::record) op_of_record[op.record] = static_cast<long>(i);
    last = static_cast<long>(i);
  }
  fprintf(file, "}\n");
}

}  // namespace

Graph::~Graph() {
  for (GraphOp& op : ops) {
    if (!op.head.cleanup) continue;
    op.head.heap_payload = op.payload.data();
    clean_up_arguments(op.head);
  }
  for (openreg_stream stream : streams) stream_destroy(stream);
}

openreg_graph add_graph(std::unique_ptr<Graph> graph) {
  auto shared = std::make_unique<SharedGraph>(std::move(graph));
  const openreg_graph handle = graph_table().insert(shared.get());
  if (handle) shared.release();
  return handle;
}

void forget_graphs() {
  graph_table().clear([](SharedGraph* graph) { delete graph; });
}

openreg_status graph_launch(openreg_graph graph, openreg_stream stream) {
  return entry([&]() -> openreg_status {
    Stream* on = find_stream("graph_launch", stream);
    if (!on) return OPENREG_INVALID_VALUE;
    SharedGraph object;
    std::unique_lock<std::mutex> guard;
    do {
      if (guard) guard.unlock();
      object = find_graph("graph_launch", graph);
      if (!object) return OPENREG_INVALID_VALUE;
      guard = std::unique_lock<std::mutex>(object->mutex);
    } while (object->replaced);
    if (object->lanes[0].device != on->device)
      return fail(OPENREG_INVALID_VALUE, "graph_launch: the graph was captured on device %d, the stream is on device %d",
                  object->lanes[0].device->index, on->device->index);
    if (on->capture.load(std::memory_order_acquire)) return refuse_on_capturing("graph_launch", *on);
    return launch(object, *on);
  });
}

openreg_status graph_destroy(openreg_graph graph) {
  return entry([&]() -> openreg_status {
    SharedGraph* object = erase_graph(graph);
    if (!object) return fail(OPENREG_INVALID_VALUE, "graph_destroy: %p is not a live graph", static_cast<void*>(graph));
    delete object;
    return OPENREG_OK;
  });
}

openreg_status graph_update(openreg_graph graph, openreg_graph source) {
  return entry([&]() -> openreg_status {
    std::lock_guard<std::mutex> one(update_mutex());
    const SharedGraph object = find_graph("graph_update", graph), other = find_graph("graph_update", source);
    if (!object || !other) return OPENREG_INVALID_VALUE;
    if (object == other || !same_operations(*object, *other))
      return fail(OPENREG_INVALID_VALUE, "graph_update: the two graphs have not the same operations in the same order; capture and launch the new one instead");
    {
      // The old operations may be queued, and what they own lives until those launches are over; so the object is replaced, not its contents.
      std::scoped_lock guard(object->mutex, other->mutex);
      other->streams.swap(object->streams);
      for (RecordRef& last : object->last) other->last.push_back(std::move(last));
      object->replaced = true;
      std::lock_guard<std::mutex> pointers(pointers_mutex());
      if (SharedGraph* updated = graph_table().find(graph)) *updated = other;
    }
    delete erase_graph(source);
    return OPENREG_OK;
  });
}

openreg_status graph_dump(openreg_graph graph, const char* path) {
  return entry([&]() -> openreg_status {
    if (!path) return fail(OPENREG_INVALID_VALUE, "graph_dump: path is null");
    const SharedGraph object = find_graph("graph_dump", graph);
    if (!object) return OPENREG_INVALID_VALUE;
    FILE* file = fopen(path, "w");
    if (!file) return fail(OPENREG_INVALID_VALUE, "graph_dump: %s cannot be written: %s", path, strerror(errno));
    draw(*object, file);
    const bool written = !ferror(file);
    if (fclose(file) != 0 || !written) return fail(OPENREG_INVALID_VALUE, "graph_dump: %s cannot be written: %s", path, strerror(errno));
    return OPENREG_OK;
  });
}

}  // namespace openreg::sim
