// stress.cpp: many threads against one driver, with every result checked. Usage: stress driver.so [key=value ...]
// With losses=1 the rounds lose and reset devices under the threads.
//
// Each round starts the driver, lets threads launch, copy, record, wait, fail, destroy and allocate at random on shared
// streams, and stops it. Buffers that tasks write are plain memory, so a sanitizer sees a missing order as a race.
// Prints "ok" and exits 0, or says what was wrong and exits 1.
#include <dlfcn.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "hal/openreg_hal.h"
#include "stress.h"

namespace {

// One shared stream: `ran` and `inside` are plain and touched by its tasks only, which run one at a time.
struct Lane {
  openreg_stream stream;
  uint64_t ran = 0;
  bool inside = false;
  std::atomic<uint64_t> cleaned{0}, launched{0}, failures{0};
};

struct TaskArgs {
  Lane* lane;
  uint16_t fails, dawdles;
  uint32_t bytes;  // `bytes` of padding follow, each equal to the low byte of `bytes`
};

openreg_status work(void* raw, openreg_error* error) {
  TaskArgs args;
  memcpy(&args, raw, sizeof args);
  CHECK(!args.lane->inside);
  args.lane->inside = true;
  ++args.lane->ran;
  const unsigned char* padding = static_cast<unsigned char*>(raw) + sizeof args;
  for (uint32_t i = 0; i < args.bytes; ++i) CHECK(padding[i] == static_cast<unsigned char>(args.bytes));
  for (uint32_t i = 0; i < args.dawdles; ++i) std::this_thread::yield();
  args.lane->inside = false;
  if (!args.fails) return OPENREG_OK;
  snprintf(error->message, sizeof error->message, "failed on purpose");
  return OPENREG_LAUNCH_FAILED;
}

void cleanup(void* raw) {
  TaskArgs args;
  memcpy(&args, raw, sizeof args);
  ++args.lane->cleaned;
}

openreg_status try_launch(Lane& lane, Random& random, bool fails, uint16_t dawdles) {
  unsigned char buffer[sizeof(TaskArgs) + 3000];
  const uint32_t bytes = random.below(20) ? random.below(200) : random.below(3000);
  const TaskArgs args{&lane, fails, dawdles, bytes};
  memcpy(buffer, &args, sizeof args);
  memset(buffer + sizeof args, static_cast<int>(bytes), bytes);
  openreg_launch_desc desc{};
  desc.struct_size = sizeof desc;
  desc.name = "stress";
  desc.cleanup = cleanup;
  ++lane.launched;
  const openreg_status status = driver->launch_host_func(lane.stream, work, buffer, sizeof args + bytes, &desc);
  if (status != OPENREG_OK) --lane.launched;
  return status;
}

void launch(Lane& lane, Random& random, bool fails) { OK(try_launch(lane, random, fails, 0)); }

// Passes a value through plain memory from one stream to another with an event between.
struct Relay {
  uint64_t* value;
  uint64_t expected;
};

openreg_status relay_write(void* raw, openreg_error*) {
  const Relay& relay = *static_cast<Relay*>(raw);
  *relay.value = relay.expected;
  return OPENREG_OK;
}

openreg_status relay_read(void* raw, openreg_error*) {
  const Relay& relay = *static_cast<Relay*>(raw);
  CHECK(*relay.value == relay.expected);
  return OPENREG_OK;
}

void relay(Random& random, int32_t devices, uint64_t* value, bool destroy_early) {
  openreg_stream from, to;
  openreg_event event;
  OK(driver->stream_create(static_cast<int32_t>(random.below(static_cast<uint32_t>(devices))), -static_cast<int32_t>(random.below(4)), &from));
  OK(driver->stream_create(static_cast<int32_t>(random.below(static_cast<uint32_t>(devices))), 0, &to));
  OK(driver->event_create(0, 1, &event));
  const Relay args{value, random.below(1u << 30)};
  OK(driver->launch_host_func(from, relay_write, &args, sizeof args, nullptr));
  OK(driver->event_record(event, from));
  OK(driver->stream_wait_event(to, event));
  OK(driver->launch_host_func(to, relay_read, &args, sizeof args, nullptr));
  OK(driver->event_record(event, to));
  if (destroy_early) {
    OK(driver->stream_destroy(from));
    OK(driver->event_synchronize(event, UINT64_MAX, nullptr));
    OK(driver->stream_destroy(to));
  } else {
    OK(driver->stream_synchronize(to, UINT64_MAX, nullptr));
    CHECK(*value == args.expected);
    OK(driver->stream_destroy(to));
    OK(driver->stream_destroy(from));
  }
  OK(driver->event_destroy(event));
}

// Allocates, fills, copies through two devices and back, compares, frees.
void copies(Random& random, int32_t devices) {
  const int32_t first = static_cast<int32_t>(random.below(static_cast<uint32_t>(devices)));
  const int32_t second = static_cast<int32_t>(random.below(static_cast<uint32_t>(devices)));
  const uint64_t bytes = 1 + random.below(100000);
  openreg_stream stream;
  void *a, *b;
  OK(driver->stream_create(first, 0, &stream));
  OK(driver->mem_alloc(first, bytes, &a));
  OK(driver->mem_alloc(second, bytes, &b));
  std::vector<unsigned char> source(bytes, static_cast<unsigned char>(bytes)), target(bytes);
  OK(driver->copy(stream, a, first, source.data(), -1, bytes, nullptr));
  OK(driver->copy(stream, b, second, a, first, bytes, nullptr));
  OK(driver->fill(stream, a, 0, bytes, nullptr));
  OK(driver->copy(stream, a, first, b, second, bytes, nullptr));
  OK(driver->copy(stream, target.data(), -1, a, first, bytes, nullptr));
  OK(driver->stream_synchronize(stream, UINT64_MAX, nullptr));
  CHECK(source == target);
  OK(driver->mem_free(first, a));
  OK(driver->mem_free(second, b));
  OK(driver->stream_destroy(stream));
}

void observe(Lane& lane, Random& random) {
  openreg_error error{};
  error.struct_size = sizeof error;
  openreg_stream_info info{};
  info.struct_size = sizeof info;
  openreg_status status = OPENREG_OK;
  switch (random.below(5)) {
    case 0:
      status = driver->stream_query(lane.stream);
      break;
    case 1:
      status = driver->stream_synchronize(lane.stream, random.below(3) * 100000, &error);
      break;
    case 2:
      status = driver->stream_synchronize(lane.stream, UINT64_MAX, &error);
      break;
    case 3:
      status = driver->device_synchronize(0, random.below(2) ? UINT64_MAX : 1000, &error);
      break;
    default:
      OK(driver->stream_info(lane.stream, &info));
      CHECK(info.stream_id != 0);
  }
  CHECK(status == OPENREG_OK || status == OPENREG_NOT_READY || status == OPENREG_LAUNCH_FAILED);
  if (status == OPENREG_LAUNCH_FAILED && error.status) CHECK(strcmp(error.message, "failed on purpose") == 0);
}

// What a sink keeps. It goes as soon as the next one is in place, so that a record which comes late is found.
struct Tracer {
  std::mutex mutex;
  uint64_t calls = 0, operations = 0;
  bool over = false;
};

void take(void* context, const openreg_trace_record* record) {
  Tracer& tracer = *static_cast<Tracer*>(context);
  CHECK(record->correlation != 0 && record->begin_ns <= record->end_ns && record->name[0] != 0);
  std::lock_guard<std::mutex> guard(tracer.mutex);
  CHECK(!tracer.over);
  ++(record->operation ? tracer.operations : tracer.calls);
}

// Traces for a while, with a sink after the other, until the others have finished. Drivers without a trace have nothing to do here.
void trace(const std::atomic<bool>& finished) {
  if (!driver->trace_exchange) return;
  std::unique_ptr<Tracer> before;
  while (!finished) {
    auto tracer = std::make_unique<Tracer>();
    OK(driver->trace_exchange(take, tracer.get()));
    if (before) before->over = true;  // nobody is in it any more
    before = std::move(tracer);
    for (int i = 0; i < 100 && !finished; ++i) std::this_thread::yield();
  }
  OK(driver->trace_exchange(nullptr, nullptr));
}

// Four, spread over the devices, each of another priority.
std::vector<std::unique_ptr<Lane>> make_lanes(int32_t devices) {
  std::vector<std::unique_ptr<Lane>> lanes;
  for (int i = 0; i < 4; ++i) {
    lanes.push_back(std::make_unique<Lane>());
    OK(driver->stream_create(i % devices, -i, &lanes.back()->stream));
  }
  return lanes;
}

void round(uint64_t seed, const std::vector<openreg_option>& options, int threads, int steps) {
  OK(driver->init(options.data(), options.size()));
  int32_t devices;
  OK(driver->device_count(&devices));
  const std::vector<std::unique_ptr<Lane>> lanes = make_lanes(devices);
  openreg_event shared_event;
  OK(driver->event_create(0, 1, &shared_event));
  std::vector<uint64_t> values(static_cast<size_t>(threads) * 8, 0);
  std::atomic<bool> finished{false};
  std::thread tracing([&] { trace(finished); });
  std::vector<std::thread> crowd;
  for (int thread = 0; thread < threads; ++thread)
    crowd.emplace_back([&, thread] {
      Random random(seed * 100 + static_cast<uint64_t>(thread));
      for (int step = 0; step < steps; ++step) {
        Lane& lane = *lanes[random.below(4)];
        switch (random.below(12)) {
          case 0:
            observe(lane, random);
            break;
          case 1:
            relay(random, devices, &values[static_cast<size_t>(thread) * 8], random.below(2));
            break;
          case 2:
            copies(random, devices);
            break;
          case 3:
            OK(driver->event_record(shared_event, lane.stream));
            break;
          case 4:
            OK(driver->stream_wait_event(lane.stream, shared_event));
            break;
          case 5: {
            const openreg_status status = driver->event_query(shared_event);
            CHECK(status == OPENREG_OK || status == OPENREG_NOT_READY);
            break;
          }
          case 6:
            if (random.below(8) == 0) {
              ++lane.failures;
              launch(lane, random, true);
            }
            break;
          default:
            launch(lane, random, false);
        }
      }
    });
  for (std::thread& thread : crowd) thread.join();
  finished = true;
  tracing.join();
  for (int32_t device = 0; device < devices; ++device)
    while (driver->device_synchronize(device, UINT64_MAX, nullptr) == OPENREG_LAUNCH_FAILED) {
    }
  uint64_t failures = 0;
  for (auto& lane : lanes) failures += lane->failures;
  for (auto& lane : lanes) {
    CHECK(lane->cleaned == lane->launched);
    CHECK(lane->ran <= lane->launched && (failures || lane->ran == lane->launched));
    const uint64_t before = lane->ran;
    Random random(seed);
    launch(*lane, random, false);  // every stream works again after the reports
    OK(driver->stream_synchronize(lane->stream, UINT64_MAX, nullptr));
    CHECK(lane->ran == before + 1);
    if (seed % 2) launch(*lane, random, false);  // and shutdown finds some work
  }
  if (seed % 3 == 0)
    for (auto& lane : lanes) OK(driver->stream_destroy(lane->stream));
  OK(driver->shutdown(UINT64_MAX));
  for (auto& lane : lanes) CHECK(lane->cleaned == lane->launched);
}

// What a thread sees while others lose the device.
void check_lossy(openreg_status status) {
  CHECK(status == OPENREG_OK || status == OPENREG_NOT_READY || status == OPENREG_LAUNCH_FAILED || status == OPENREG_DEVICE_LOST);
}

void use_lossy(Lane& lane, Random& random, openreg_event shared_event) {
  openreg_error error{};
  error.struct_size = sizeof error;
  switch (random.below(10)) {
    case 0: return check_lossy(driver->stream_synchronize(lane.stream, random.below(2) ? UINT64_MAX : 100000, &error));
    case 1: return check_lossy(driver->device_synchronize(0, random.below(2) ? UINT64_MAX : 1000, &error));
    case 2: return check_lossy(driver->event_record(shared_event, lane.stream));
    case 3: return check_lossy(driver->stream_wait_event(lane.stream, shared_event));
    case 4: return check_lossy(driver->event_synchronize(shared_event, random.below(2) ? UINT64_MAX : 1000, &error));
    case 5: return check_lossy(driver->stream_query(lane.stream));
    case 6: return check_lossy(try_launch(lane, random, random.below(8) == 0, 0));
    default: return check_lossy(try_launch(lane, random, false, static_cast<uint16_t>(random.below(4) ? 0 : 200)));
  }
}

void lose_and_reset(int32_t device) {
  OK(driver->device_lose(device, "lost on purpose"));
  CHECK(driver->device_synchronize(device, UINT64_MAX, nullptr) == OPENREG_DEVICE_LOST);
  openreg_status status;
  while ((status = driver->device_reset(device)) == OPENREG_NOT_READY) std::this_thread::yield();
  OK(status);
}

void round_of_losses(uint64_t seed, const std::vector<openreg_option>& options, int threads, int steps) {
  OK(driver->init(options.data(), options.size()));
  int32_t devices;
  OK(driver->device_count(&devices));
  const std::vector<std::unique_ptr<Lane>> lanes = make_lanes(devices);
  openreg_event shared_event;
  OK(driver->event_create(0, 1, &shared_event));
  std::atomic<int> busy{threads};
  std::vector<std::thread> crowd;
  for (int thread = 0; thread < threads; ++thread)
    crowd.emplace_back([&, thread] {
      Random random(seed * 100 + static_cast<uint64_t>(thread));
      for (int step = 0; step < steps; ++step) use_lossy(*lanes[random.below(4)], random, shared_event);
      --busy;
    });
  Random random(seed * 100 + 99);
  int losses = 0;
  for (; busy; ++losses) {
    lose_and_reset(static_cast<int32_t>(random.below(static_cast<uint32_t>(devices))));
    for (uint32_t pause = random.below(200); pause; --pause) std::this_thread::yield();
  }
  for (std::thread& thread : crowd) thread.join();
  CHECK(losses > 0);
  for (int32_t device = 0; device < devices; ++device)
    while (driver->device_synchronize(device, UINT64_MAX, nullptr) != OPENREG_OK) {
    }
  for (auto& lane : lanes) {
    CHECK(lane->cleaned == lane->launched && lane->ran <= lane->launched);
    const uint64_t before = lane->ran;
    launch(*lane, random, false);
    OK(driver->stream_synchronize(lane->stream, UINT64_MAX, nullptr));
    CHECK(lane->ran == before + 1);
    launch(*lane, random, false);
  }
  OK(driver->device_lose(0, "lost at the end"));
  const openreg_status status = driver->shutdown(UINT64_MAX);
  CHECK(status == OPENREG_OK);
  for (auto& lane : lanes) CHECK(lane->cleaned == lane->launched);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    fprintf(stderr, "usage: %s driver.so [threads=N] [steps=N] [rounds=N] [option=value ...]\n", argv[0]);
    return 1;
  }
  void* library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  const auto get_driver = reinterpret_cast<openreg_get_driver_fn>(dlsym(library, OPENREG_GET_DRIVER_SYMBOL));
  if (!get_driver || get_driver(OPENREG_HAL_MAJOR, &driver) != OPENREG_OK) return 1;
  int threads = 4, steps = 500, rounds = 3, losses = 0;
  std::vector<std::string> words(argv + 2, argv + argc);
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
    else if (strcmp(word.c_str(), "losses") == 0)
      losses = atoi(value);
    else
      options.push_back({word.c_str(), value});
  }
  for (int i = 0; i < rounds; ++i) (losses ? round_of_losses : round)(static_cast<uint64_t>(i), options, threads, steps);
  printf("ok\n");
  return 0;
}
