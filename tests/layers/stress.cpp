// stress.cpp: many threads against the sanitizer layer around one driver. Usage: stress layered.so modes [key=value ...]
//
// Threads launch with operands, copy, fill, allocate, hand blocks out and back, record, wait, capture, replay, announce what tasks will tell, tell it,
// take findings and ask for possible ones, all at random on shared streams. What the layer finds is not looked at; that nothing breaks,
// and that what the program made is told of in whole sentences, is. OPENREG_TEST_BELOW is the driver below. Prints "ok" and exits 0.
#include <dlfcn.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "hal/openreg_hal.h"
#include "../driver/stress.h"

namespace {

// The functions of layered.cpp.
struct Layer {
  void (*sanitize)(uint32_t);
  const char* (*findings)();
  const char* (*possible)();
  uint64_t (*new_token)();
  void (*touched)(uint64_t, const void*, uint64_t);
  void (*untold)(uint64_t);
  uint64_t (*new_mark)(openreg_stream);
  void (*reached)(uint64_t);
  void (*host_access)(const void*, uint64_t, int);
  openreg_status (*poison)(const openreg_driver*, openreg_stream, void*, uint64_t);
  void (*expect_runtime_blocks)(int);
  void (*block_allocated)(openreg_stream, void*, uint64_t, uint64_t);
  void (*block_ends)(void*);
  void (*block_freed)(void*);
  void (*block_used_by)(void*, openreg_stream);
  void (*block_idle)(void*);
} layer;

constexpr int kStreams = 4;
constexpr uint64_t kShared = 1 << 16;  // bytes of memory that every thread names

struct World {
  int32_t devices = 0;
  openreg_stream streams[kStreams];
  openreg_event event;
  char* shared = nullptr;  // of device 0
  char* pinned = nullptr;
  bool graphs = false;
};

struct Task {
  uint64_t token, mark;
  const char* told;
  uint32_t bytes, fails;
};

openreg_status run(void* raw, openreg_error* error) {
  Task task;
  std::memcpy(&task, raw, sizeof(task));
  if (task.token != 0 && task.bytes != 0) layer.touched(task.token, task.told, task.bytes);
  if (task.token != 0 && task.bytes == 0) layer.untold(task.token);
  if (task.mark != 0) layer.reached(task.mark);
  if (!task.fails) return OPENREG_OK;
  snprintf(error->message, sizeof(error->message), "failed on purpose");
  return OPENREG_LAUNCH_FAILED;
}

void launch(World& world, openreg_stream stream, Random& random, char* base, uint64_t bytes, bool fails = false) {
  int64_t sizes[2] = {1 + random.below(8), 1 + random.below(16)}, strides[2] = {32, 1};
  openreg_range ranges[2];
  openreg_operand operands[2] = {};
  const uint32_t count = 1 + random.below(2);
  Task task = {};
  for (uint32_t i = 0; i < count; ++i) {
    const uint64_t offset = random.below(static_cast<uint32_t>(bytes - 256));
    ranges[i] = {base + offset, 240, static_cast<int32_t>(random.below(2))};
    operands[i] = {0, 1, 2, sizes, strides, "byte", 0};
    if (random.below(8) != 0 || task.token != 0) continue;
    task = {layer.new_token(), 0, base + offset, random.below(64), 0};
    operands[i].flags = OPENREG_OPERAND_SOME;
    operands[i].token = task.token;
  }
  if (random.below(16) == 0) task.mark = layer.new_mark(stream);
  task.fails = fails;
  openreg_launch_desc desc = {};
  desc.struct_size = sizeof(desc);
  desc.name = "stress";
  desc.tag = random.below(100);
  desc.ranges = ranges;
  desc.range_count = count;
  desc.operands = operands;
  OK(driver->launch_host_func(stream, run, &task, sizeof(task), random.below(32) == 0 ? nullptr : &desc));
  if (random.below(16) == 0) CHECK(driver->launch_host_func(stream, nullptr, nullptr, 0, &desc) == OPENREG_INVALID_VALUE);
  (void)world;
}

// Memory of this thread alone, handed out in pieces.
void heap(World& world, Random& random, char* base) {
  openreg_stream stream, other = world.streams[random.below(kStreams)];
  OK(driver->stream_create(0, 0, &stream));
  const uint64_t bytes = 512 * (1 + random.below(8));
  if (random.below(2)) OK(layer.poison(driver, stream, base, bytes));
  layer.block_allocated(stream, base, bytes, bytes - random.below(256));
  openreg_event ready;
  OK(driver->event_create(0, 0, &ready));
  OK(driver->event_record(ready, stream));
  OK(driver->stream_wait_event(other, ready));
  OK(driver->event_destroy(ready));
  for (uint32_t i = random.below(6); i > 0; --i) launch(world, random.below(2) ? stream : other, random, base, bytes);
  if (random.below(2)) layer.block_used_by(base, other);
  const openreg_status status = driver->stream_synchronize(other, UINT64_MAX, nullptr);  // and guard zones that are looked at there
  CHECK(status == OPENREG_OK || status == OPENREG_LAUNCH_FAILED);
  layer.block_ends(base);
  layer.block_freed(base);
  if (random.below(2)) layer.block_idle(base);
  OK(driver->stream_synchronize(stream, UINT64_MAX, nullptr));
  OK(driver->stream_destroy(stream));
}

void copies(World& world, Random& random) {
  openreg_stream stream = world.streams[0];  // of the memory's device
  const uint64_t bytes = 1 + random.below(4096), at = random.below(kShared - 4096);
  switch (random.below(4)) {
    case 0: OK(driver->copy(stream, world.shared + at, 0, world.pinned, -1, bytes, nullptr)); break;
    case 1: OK(driver->copy(stream, world.pinned, -1, world.shared + at, 0, bytes, nullptr)); break;
    case 2: OK(driver->fill(stream, world.shared + at, 1, bytes, nullptr)); break;
    default: layer.host_access(world.pinned, bytes, static_cast<int>(random.below(2)));
  }
}

void capture(World& world, Random& random) {
  if (!world.graphs) return;
  openreg_stream stream;
  openreg_graph graph = nullptr;
  OK(driver->stream_create(0, 0, &stream));
  int32_t mode = OPENREG_CAPTURE_RELAXED;
  OK(driver->capture_exchange_mode(&mode));
  OK(driver->capture_begin(stream, OPENREG_CAPTURE_RELAXED));
  for (uint32_t i = random.below(5); i > 0; --i) launch(world, stream, random, world.shared, kShared);
  OK(driver->capture_end(stream, &graph));
  OK(driver->capture_exchange_mode(&mode));
  for (uint32_t i = random.below(3); i > 0; --i) OK(driver->graph_launch(graph, stream));
  OK(driver->graph_destroy(graph));
  const openreg_status status = driver->stream_synchronize(stream, UINT64_MAX, nullptr);
  CHECK(status == OPENREG_OK);
  OK(driver->stream_destroy(stream));
}

void look(World& world, Random& random) {
  openreg_stream stream = world.streams[random.below(kStreams)];
  openreg_status status = OPENREG_OK;
  switch (random.below(4)) {
    case 0: status = driver->stream_query(stream); break;
    case 1: status = driver->stream_synchronize(stream, UINT64_MAX, nullptr); break;
    case 2: status = driver->event_query(world.event); break;
    default:
      // Not the device of captures, which a wait for all of it would spoil.
      if (!world.graphs || world.devices > 1) status = driver->device_synchronize(world.devices - 1, UINT64_MAX, nullptr);
  }
  CHECK(status == OPENREG_OK || status == OPENREG_NOT_READY || status == OPENREG_LAUNCH_FAILED);
}

template <class Function>
void find(void* library, const char* name, Function** function) {
  *function = reinterpret_cast<Function*>(dlsym(library, name));
  CHECK(*function != nullptr);
}

void round(uint64_t seed, uint32_t modes, const std::vector<openreg_option>& options, int threads, int steps) {
  OK(driver->init(options.data(), options.size()));
  World world;
  OK(driver->device_count(&world.devices));
  world.graphs = driver->capture_begin != nullptr;
  layer.expect_runtime_blocks(seed % 2);
  layer.sanitize(modes);
  for (int i = 0; i < kStreams; ++i) OK(driver->stream_create(i % world.devices, 0, &world.streams[i]));
  OK(driver->event_create(0, 0, &world.event));
  void *memory = nullptr, *own = nullptr, *pinned = nullptr;
  OK(driver->mem_alloc(0, kShared, &memory));
  OK(driver->mem_alloc(0, static_cast<uint64_t>(threads) * 8192, &own));
  OK(driver->host_alloc(4096, &pinned));
  world.shared = static_cast<char*>(memory);
  world.pinned = static_cast<char*>(pinned);
  std::vector<std::thread> crowd;
  for (int thread = 0; thread < threads; ++thread)
    crowd.emplace_back([&, thread] {
      Random random(seed * 100 + static_cast<uint64_t>(thread));
      for (int step = 0; step < steps; ++step) {
        openreg_stream stream = world.streams[random.below(kStreams)];
        switch (random.below(12)) {
          case 0: look(world, random); break;
          case 1: heap(world, random, static_cast<char*>(own) + thread * 8192); break;
          case 2: copies(world, random); break;
          case 3: OK(driver->event_record(world.event, stream)); break;
          case 4: OK(driver->stream_wait_event(stream, world.event)); break;
          case 5: capture(world, random); break;
          case 6:
            if (random.below(16) == 0) launch(world, stream, random, world.shared, kShared, true);
            break;
          default: launch(world, stream, random, world.shared, kShared);
        }
      }
    });
  // One thread reads what the others cause: the flat interface keeps one text.
  std::atomic<bool> done{false};
  bool whole = true;
  std::thread reader([&] {
    while (!done) {
      const std::string found = layer.findings(), possible = layer.possible();
      whole = whole && (found.empty() || found.back() == '\n') && (possible.empty() || possible.back() == '\n');
      std::this_thread::yield();
    }
  });
  for (std::thread& thread : crowd) thread.join();
  done = true;
  reader.join();
  CHECK(whole);
  for (int32_t device = 0; device < world.devices; ++device)
    while (driver->device_synchronize(device, UINT64_MAX, nullptr) == OPENREG_LAUNCH_FAILED) {
    }
  OK(driver->host_free(pinned));
  OK(driver->mem_free(0, own));
  OK(driver->mem_free(0, memory));
  OK(driver->event_destroy(world.event));
  for (openreg_stream stream : world.streams) OK(driver->stream_destroy(stream));
  layer.sanitize(0);
  OK(driver->shutdown(UINT64_MAX));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: %s layered.so modes [threads=N] [steps=N] [rounds=N] [option=value ...]\n", argv[0]);
    return 1;
  }
  void* library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  const auto get_driver = reinterpret_cast<openreg_get_driver_fn>(dlsym(library, OPENREG_GET_DRIVER_SYMBOL));
  if (!get_driver || get_driver(OPENREG_HAL_MAJOR, &driver) != OPENREG_OK) return 1;
  find(library, "sanitize", &layer.sanitize);
  find(library, "findings", &layer.findings);
  find(library, "possible", &layer.possible);
  find(library, "new_token", &layer.new_token);
  find(library, "touched", &layer.touched);
  find(library, "untold", &layer.untold);
  find(library, "new_mark", &layer.new_mark);
  find(library, "reached", &layer.reached);
  find(library, "host_access", &layer.host_access);
  find(library, "poison", &layer.poison);
  find(library, "expect_runtime_blocks", &layer.expect_runtime_blocks);
  find(library, "block_allocated", &layer.block_allocated);
  find(library, "block_ends", &layer.block_ends);
  find(library, "block_freed", &layer.block_freed);
  find(library, "block_used_by", &layer.block_used_by);
  find(library, "block_idle", &layer.block_idle);
  int threads = 4, steps = 500, rounds = 2;
  std::vector<std::string> words(argv + 3, argv + argc);
  std::vector<openreg_option> options;
  for (std::string& word : words) {
    char* equals = strchr(word.data(), '=');
    if (!equals) return 1;
    *equals = 0;
    const char* value = equals + 1;
    if (strcmp(word.c_str(), "threads") == 0)
      threads = atoi(value);
    else if (strcmp(word.c_str(), "steps") == 0)
      steps = atoi(value);
    else if (strcmp(word.c_str(), "rounds") == 0)
      rounds = atoi(value);
    else
      options.push_back({word.c_str(), value});
  }
  for (int i = 0; i < rounds; ++i) round(static_cast<uint64_t>(i), static_cast<uint32_t>(atoi(argv[2])), options, threads, steps);
  printf("ok\n");
  return 0;
}
