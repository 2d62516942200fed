// capture.h: streams whose work goes into a graph instead of a queue.
//
// Note [What a capture has seen]
// Each lane of a capture has a clock: for every lane the number of its last operation that comes before whatever is captured next.
// An event's record keeps the clock of its lane, a wait takes the larger of both. At the end lane 0 must have seen the last piece of work of
// every lane, else a launch would end before its work does.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "driver/sim/graph.h"
#include "driver/sim/stream.h"
#include "hal/openreg_hal.h"

namespace openreg::sim {

struct Event;

// The place of an event's record in a capture.
struct CapturedRecord {
  uint64_t capture;  // its number
  uint32_t lane;
  uint32_t number;              // among the capture's records
  std::vector<uint32_t> clock;  // of its lane
};

struct Capture {
  uint64_t id;
  int32_t mode;
  std::thread::id thread;  // that began it
  std::string reason;      // why it is invalid, or ""
  std::unique_ptr<Graph> graph;
  std::vector<StreamRef> streams;             // by lane
  std::vector<std::vector<uint32_t>> clocks;  // by lane
  std::vector<uint32_t> last_work;            // by lane: one more than the index of its last task
};

// Every live capture.
struct Captures {
  std::atomic<uint32_t> count{0};
  std::mutex mutex;                            // LOCK: everything below, and what the captures hold
  std::vector<std::unique_ptr<Capture>> live;  // one per origin stream
};

Captures& captures();

// Puts the task into the capture of the stream. *captured becomes false, and nothing happens, when the stream is not being captured.
openreg_status capture_task(Stream& stream, const Task& head, Bytes prefix, Bytes args, bool* captured);

// The same for an event's record and a wait for one; *captured as above.
openreg_status capture_record(Event& event, Stream& stream, bool* captured);
openreg_status capture_wait(Stream& stream, const RecordRef& record, bool* captured);

// CAPTURE with a sentence, and an invalid capture, for an entry that no thread may use on a capturing stream or a captured event.
openreg_status refuse_on_capturing(const char* operation, Stream& stream);
openreg_status refuse_captured(const char* operation, const CapturedRecord& record);
openreg_status refuse_on_capturing_device(const char* operation, int32_t device);

// OK unless a capture keeps the calling thread from entries that wait, ask, allocate and free; then CAPTURE, and the capture is invalid.
openreg_status refuse_unsafe(const char* operation);

// Drops every capture. Called by shutdown.
void forget_captures();

openreg_status capture_begin(openreg_stream stream, int32_t mode);
openreg_status capture_end(openreg_stream stream, openreg_graph* graph);
openreg_status stream_capture_info(openreg_stream stream, int32_t* state, uint64_t* capture);
openreg_status capture_exchange_mode(int32_t* mode);

}  // namespace openreg::sim
