// Capturing and replaying over the HAL. See Note [Graphs].
#include "runtime/graph.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <utility>

#include "runtime/capture.h"
#include "runtime/device.h"
#include "runtime/device_allocator.h"
#include "runtime/device_heap.h"
#include "runtime/driver.h"
#include "runtime/generator.h"
#include "runtime/host_allocator.h"
#include "runtime/launch.h"
#include "runtime/memory_pool.h"
#include "runtime/storage.h"
#include "runtime/stream.h"

namespace openreg {

namespace {

const openreg_driver& graph_driver() {
  const openreg_driver& driver = hal();
  TORCH_CHECK_NOT_IMPLEMENTED(has_entry(driver, &openreg_driver::graph_dump) && has_entry(driver, &openreg_driver::capture_begin),
                              "The driver '", driver.name, "' cannot capture graphs: it has no capture_begin.");
  return driver;
}

int32_t driver_mode(at::GraphCaptureMode mode) {
  switch (mode) {
    case at::GraphCaptureMode::ThreadLocal: return OPENREG_CAPTURE_THREAD_LOCAL;
    case at::GraphCaptureMode::Relaxed: return OPENREG_CAPTURE_RELAXED;
    default: return OPENREG_CAPTURE_GLOBAL;
  }
}

struct Words {
  uint64_t* to;  // kernel-view address
  uint64_t seed, offset;
};

void store_words(const openreg_geometry*, const void* raw) {
  const auto& args = *static_cast<const Words*>(raw);
  args.to[0] = args.seed;
  args.to[1] = args.offset;
}

constexpr size_t kWordBytes = 2 * sizeof(uint64_t);

// Ends the capture without using what it captured, which may come in *unused. False: it goes on, for the driver ends it on its own thread only.
bool drop_capture(openreg_stream stream, openreg_graph* unused) {
  return hal().capture_end(stream, nullptr) != OPENREG_INVALID_VALUE || hal().capture_end(stream, unused) != OPENREG_INVALID_VALUE;
}

Generator& impl_of(const at::Generator& generator) { return *generator.get<Generator>(); }

}  // namespace

Graph::Graph(const at::GraphImplArgs& args) : keep_graph_(args.keep_graph) {}

Graph::~Graph() { release(); }

void Graph::register_generator(const at::Generator& generator) {
  TORCH_CHECK(generator.defined() && generator.device().type() == c10::DeviceType::PrivateUse1,
              "A graph on openreg takes generators of openreg, not of ", generator.defined() ? generator.device().str() : "nothing", ".");
  TORCH_CHECK(graph_ == nullptr, "The graph was captured already: register generators before or during the capture.");
  if (std::find(registered_.begin(), registered_.end(), generator) != registered_.end()) return;
  if (capturing()) begin_generator(generator);
  registered_.push_back(generator);
}

void Graph::begin_generator(const at::Generator& generator) {
  const bool known = std::any_of(random_.begin(), random_.end(), [&](const Random& random) { return random.generator == generator; });
  if (known || generator.device().index() != stream_->device_index()) return;
  const c10::Stream owner = default_stream(stream_->device_index());
  void* words = allocate_device_block(owner, kWordBytes);
  last_.record(owner);
  random_.push_back({generator, words});
  impl_of(generator).begin_capture(capture_, kernel_ptr(static_cast<const uint64_t*>(words), stream_->device_index()));
}

void Graph::capture_begin(c10::MempoolId_t pool, at::GraphCaptureMode mode) {
  TORCH_CHECK(graph_ == nullptr && !capturing(), "This graph was captured already; reset it first, or make another one.");
  const c10::DeviceIndex device = current_device();
  check_device(device);
  const c10::Stream stream = current_stream(device);
  TORCH_CHECK(stream.id() != 0, "Graphs are captured on a stream other than the default one: make a torch.Stream current first.");
  const openreg_driver& driver = graph_driver();
  const c10::MempoolId_t chosen = pool == c10::MempoolId_t{0, 0} ? new_memory_pool_id(false) : pool;
  default_generator(device);  // made outside the capture
  const openreg_status status = driver.capture_begin(stream_handle(stream), driver_mode(mode));
  check(status, "Beginning to capture a graph");
  ++detail::captures;
  stream_ = stream;
  tasks_before_ = captured_tasks();
  pool_ = chosen;
  try {
    capture_ = capture_of(stream);
    const auto in_capture = [number = capture_](c10::Stream asked) { return capture_of(asked) == number; };
    begin_allocate_to_pool(device, pool_, [=](c10::StreamId id) {
      return in_capture(c10::Stream(c10::Stream::UNSAFE, c10::Device(c10::DeviceType::PrivateUse1, device), id));
    });
    device_pool_ = true;
    host_allocator()->begin_allocate_to_pool(pool_, in_capture);
    host_pool_ = true;
    begin_generator(default_generator(device));
    for (const at::Generator& generator : registered_) begin_generator(generator);
  } catch (...) {  // no heap, a pool that another capture fills, no memory for the words: nothing is captured
    release();
    throw;
  }
}

// What the runtime keeps beside the driver's capture ends with it.
void Graph::leave_capture() {
  --detail::captures;
  if (device_pool_) end_allocate_to_pool(stream_->device_index(), pool_);
  if (host_pool_) host_allocator()->end_allocate_to_pool(pool_);
  for (Random& random : random_) random.used = impl_of(random.generator).end_capture(capture_);
  capture_ = 0;
  record_deferred_blocks();
  release_deferred();
}

void Graph::capture_end() {
  TORCH_CHECK(capturing(), "No capture of this graph is underway.");
  const c10::DeviceIndex device = stream_->device_index();
  TORCH_CHECK(current_stream(device) == *stream_, "A capture ends on the stream on which it began: stream ", stream_->id(), " of ",
              stream_->device(), ", not stream ", current_stream(device).id(), ".");
  const openreg_status status = hal().capture_end(stream_handle(*stream_), &graph_);
  if (status == OPENREG_INVALID_VALUE) check(status, "Ending the capture of a graph");  // it goes on
  const std::string reason = status == OPENREG_OK ? "" : hal().last_message();
  leave_capture();
  if (status != OPENREG_OK) {
    release();
    throw c10::AcceleratorError({__func__, __FILE__, __LINE__}, status, "The capture failed, and there is no graph: " + reason);
  }
  if (captured_tasks() == tasks_before_) {
    TORCH_WARN("The graph is empty: no task was enqueued on stream ", stream_->id(), " of ", stream_->device(),
               " during the capture. Was it captured on the wrong device or stream?");
  }
  if (!keep_graph_) instantiate();
}

void Graph::instantiate() {
  TORCH_CHECK(graph_ != nullptr, "There is no captured graph to instantiate.");
  ready_ = true;
}

// Sets the two words of each generator, in stream order.
void Graph::advance_generators(c10::Stream stream) {
  static Kernel& kernel = *new Kernel("openreg::set_graph_random", store_words);
  for (Random& random : random_) {
    if (random.used == 0) continue;
    const PhiloxState state = impl_of(random.generator).advance(random.used);
    const Words words = {kernel_ptr(static_cast<uint64_t*>(random.words), stream.device_index()), state.seed, state.offset};
    kernel.launch(stream, "openreg::set_graph_random", 1, words);
    record_block_on_stream(random.words, stream);
  }
}

void Graph::replay() {
  TORCH_CHECK(graph_ != nullptr, "There is no captured graph to replay.");
  if (!ready_) instantiate();
  const c10::Stream stream = current_stream(stream_->device_index());
  TORCH_CHECK(capture_of(stream) == 0, "A graph cannot be replayed on stream ", stream.id(), ", which is being captured.");
  const bool draws = std::any_of(random_.begin(), random_.end(), [](const Random& random) { return random.used != 0; });
  if (draws) {
    last_.block(stream);
    advance_generators(stream);
  }
  check(hal().graph_launch(graph_, stream_handle(stream)), "Replaying a graph");
  if (draws) last_.record(stream);
  if (launch_blocking()) synchronize_stream(stream);
}

void Graph::release() noexcept {
  if (!driver_started() || driver_stopped()) return;
  try {
    if (capturing()) {  // destroyed in the middle: the capture is worthless
      if (!drop_capture(stream_handle(*stream_), &graph_)) {
        TORCH_WARN("A graph died in the middle of its capture on a thread on which the driver cannot end it. Stream ", stream_->id(), " of ",
                   stream_->device(), " stays captured; end captures on the thread on which they begin.");
        return;
      }
      leave_capture();
    }
    if (graph_ != nullptr) hal().graph_destroy(graph_);
    for (const Random& random : random_) free_device_block(random.words);
    if (device_pool_) {  // then the host's pool counts this graph too, even when it refused the capture
      release_memory_pool(stream_->device_index(), pool_);
      host_allocator()->release_pool(pool_);
    }
  } catch (const std::exception& error) {
    TORCH_WARN("A graph could not be released completely: ", error.what());
  }
  graph_ = nullptr;
  ready_ = device_pool_ = host_pool_ = false;
  random_.clear();
  last_ = Event(false);
  stream_.reset();
}

void Graph::reset() {
  TORCH_CHECK(!capturing(), "The graph is being captured; end the capture before it is reset.");
  release();
}

c10::MempoolId_t Graph::pool() const {
  TORCH_CHECK(stream_.has_value(), "The graph has no memory pool before its capture begins.");
  return pool_;
}

void Graph::debug_dump(const std::string& path) {
  TORCH_CHECK(debug_, "Call enable_debug_mode() on the graph before the capture, then debug_dump(path).");
  TORCH_CHECK(graph_ != nullptr, "There is no captured graph to dump.");
  check(hal().graph_dump(graph_, path.c_str()), "Dumping a graph");
}

void Graph::update(Graph& other) {
  TORCH_CHECK(graph_ != nullptr && other.graph_ != nullptr && this != &other, "Both graphs must have been captured, and be two.");
  check(hal().graph_update(graph_, other.graph_), "Updating a graph");
  other.graph_ = nullptr;
  // The memory and the words that the old operations used go with `other`, once what is queued has finished with them.
  std::swap(stream_, other.stream_);
  std::swap(pool_, other.pool_);
  std::swap(device_pool_, other.device_pool_);
  std::swap(host_pool_, other.host_pool_);
  std::swap(random_, other.random_);
  std::swap(last_, other.last_);
  other.release();
}

}  // namespace openreg

namespace at {
using OpenregGraph = openreg::Graph;
REGISTER_GRAPH_IMPL(OPENREG, OpenregGraph)
}  // namespace at
