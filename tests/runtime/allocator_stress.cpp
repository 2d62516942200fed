// allocator_stress.cpp: eight threads on the allocator of two devices, without torch's libraries but c10. Usage:
// allocator_stress driver.so steps [key=value ...], where the pairs are the driver's options.
//
// Tasks write and read the blocks through the kernel view as plain memory: a block that two owners have, or that is handed out before
// another stream has finished with it, is a wrong value, and a data race for a sanitizer. Prints "ok" and exits 0, or says what was
// wrong and exits 1.
#include <c10/core/AllocatorConfig.h>
#include <c10/util/Exception.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "runtime/allocator_config.h"
#include "runtime/device.h"
#include "runtime/device_allocator.h"
#include "runtime/device_heap.h"
#include "runtime/driver.h"
#include "runtime/event.h"
#include "runtime/memory_pool.h"
#include "runtime/stream.h"

namespace openreg {

// What needs more of torch than c10: this program shares no memory and takes no snapshots.
void collect_shared_memory() {}
void DeviceHeap::snapshot(std::vector<c10::CachingDeviceAllocator::SegmentInfo>&, std::vector<c10::CachingDeviceAllocator::TraceEntry>*) {}

}  // namespace openreg

namespace {

using namespace openreg;

constexpr int kThreads = 8, kDevices = 2, kStreams = 3;

#define CHECK(condition)                                                              \
  do {                                                                                \
    if (!(condition)) {                                                               \
      fprintf(stderr, "%s:%d: %s is false\n", __FILE__, __LINE__, #condition);        \
      _Exit(1);                                                                       \
    }                                                                                 \
  } while (0)

struct Held {
  void* address;
  size_t bytes;
  c10::Stream stream;
  uint32_t tag;
};

struct Touch {
  uint32_t* first;
  uint32_t* last;
  uint32_t tag;
  bool write;
};

std::atomic<uint64_t> wrong{0};

openreg_status touch(void* args, openreg_error*) {
  const Touch& work = *static_cast<Touch*>(args);
  for (uint32_t* place : {work.first, work.last}) {
    if (work.write) {
      *place = work.tag;
    } else if (*place != work.tag) {
      ++wrong;
    }
  }
  return OPENREG_OK;
}

void launch(const Held& block, c10::Stream stream, bool write) {
  uint32_t* begin = kernel_ptr(static_cast<uint32_t*>(block.address), block.stream.device_index());
  const Touch work{begin, begin + block.bytes / 4 - 1, block.tag, write};
  CHECK(hal().launch_host_func(stream_handle(stream), touch, &work, sizeof work, nullptr) == OPENREG_OK);
}

struct Shared {
  std::vector<c10::Stream> streams[kDevices];
  c10::MempoolId_t pools[kDevices][2];
  std::mutex mutex;  // LOCK: handed_over
  std::vector<Held> handed_over;
  std::atomic<uint64_t> failures{0};
};

class Walk {
 public:
  Walk(Shared& shared, int number) : shared_(shared), random_(static_cast<uint32_t>(number)), tag_(static_cast<uint32_t>(number) << 24) {}

  void run(int steps) {
    for (int step = 0; step < steps; ++step) {
      const uint32_t choice = below(1000);
      if (held_.empty() || (choice < 450 && held_.size() < 30)) {
        allocate();
      } else if (choice < 700) {
        free_device_block(take().address);
      } else if (choice < 850) {
        use_elsewhere(held_[below(held_.size())]);
      } else if (choice < 900) {
        const Held& block = held_[below(held_.size())];
        launch(block, block.stream, false);
      } else if (choice < 960) {
        hand_over();
      } else if (choice < 970) {
        device_allocator()->emptyCache();
      } else if (choice < 980) {
        device_allocator()->getDeviceStats(device());
      } else if (choice < 985) {
        c10::CachingAllocator::setAllocatorSettings(below(2) ? "expandable_segments:True" : "garbage_collection_threshold:0.5");
      } else if (choice < 990) {
        set_memory_caching(below(3) != 0);
      } else if (choice < 995) {
        set_memory_fraction(device(), below(2) ? 1.0 : 0.7);
      } else {
        synchronize_device(device());
      }
    }
    while (!held_.empty()) free_device_block(take().address);
  }

 private:
  uint32_t below(size_t bound) { return static_cast<uint32_t>(random_() % bound); }
  c10::DeviceIndex device() { return static_cast<c10::DeviceIndex>(below(kDevices)); }

  void allocate() {
    const c10::DeviceIndex on = device();
    const c10::Stream stream = shared_.streams[on][below(kStreams)];
    const size_t bytes = (1 + below(size_t{1} << (4 + below(19)))) * 4;
    const bool pooled = below(4) == 0;
    const c10::MempoolId_t pool = shared_.pools[on][below(2)];
    if (pooled) begin_allocate_current_thread_to_pool(on, pool);
    try {
      held_.push_back({allocate_device_block(stream, bytes), bytes, stream, ++tag_});
      launch(held_.back(), stream, true);
    } catch (const c10::OutOfMemoryError&) {
      ++shared_.failures;
    }
    if (!pooled) return;
    end_allocate_to_pool(on, pool);
    release_memory_pool(on, pool);
  }

  Held take() {
    const size_t place = below(held_.size());
    const Held block = held_[place];
    held_[place] = held_.back();
    held_.pop_back();
    if (below(3) == 0) launch(block, block.stream, false);
    return block;
  }

  void use_elsewhere(const Held& block) {
    const c10::Stream other = shared_.streams[device()][below(kStreams)];
    if (other == block.stream) return;
    Event written;
    written.record(block.stream);
    written.block(other);
    launch(block, other, false);
    record_block_on_stream(block.address, other);
  }

  // Another thread will free the block.
  void hand_over() {
    std::vector<Held> received;
    {
      std::lock_guard<std::mutex> lock(shared_.mutex);
      received.swap(shared_.handed_over);
      shared_.handed_over.push_back(take());
    }
    for (const Held& block : received) free_device_block(block.address);
  }

  Shared& shared_;
  std::mt19937 random_;
  uint32_t tag_;
  std::vector<Held> held_;
};

}  // namespace

int main(int argc, char** argv) {
  CHECK(argc >= 3);
  DriverSettings settings;
  settings.path = argv[1];
  for (int i = 3; i < argc; ++i) {
    const std::string pair = argv[i];
    settings.options[pair.substr(0, pair.find('='))] = pair.substr(pair.find('=') + 1);
  }
  configure_driver(settings);
  register_device_allocator();

  Shared shared;
  for (c10::DeviceIndex on = 0; on < kDevices; ++on) {
    for (int i = 0; i < kStreams; ++i) shared.streams[on].push_back(i == 0 ? default_stream(on) : stream_from_pool(on, 0));
    for (c10::MempoolId_t& pool : shared.pools[on]) retain_memory_pool(on, pool = new_memory_pool_id());
  }
  std::vector<std::thread> threads;
  for (int number = 0; number < kThreads; ++number) threads.emplace_back([&, number] { Walk(shared, number).run(atoi(argv[2])); });
  for (std::thread& thread : threads) thread.join();
  for (const Held& block : shared.handed_over) free_device_block(block.address);

  for (c10::DeviceIndex on = 0; on < kDevices; ++on) {
    for (c10::MempoolId_t pool : shared.pools[on]) release_memory_pool(on, pool);
    synchronize_device(on);
  }
  device_allocator()->emptyCache();
  for (c10::DeviceIndex on = 0; on < kDevices; ++on) {
    const auto stats = device_allocator()->getDeviceStats(on);
    CHECK(stats.allocation[0].current == 0 && stats.active_bytes[0].current == 0);
    CHECK(stats.reserved_bytes[0].current == 0 && stats.segment[0].current == 0);
  }
  CHECK(wrong == 0);
  stop_driver(UINT64_MAX);
  puts("ok");
  return 0;
}
