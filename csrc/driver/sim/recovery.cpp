// recovery.cpp: marks a device and its streams as lost, empties their queues, and undoes that.
#include "driver/sim/recovery.h"

#include <sched.h>

#include <cstdio>
#include <memory>
#include <mutex>
#include <vector>

#include "driver/sim/capture.h"
#include "driver/sim/executor.h"
#include "driver/sim/schedule.h"
#include "driver/sim/status.h"
#include "driver/sim/stream.h"

namespace openreg::sim {
namespace {

constexpr uint64_t kEverything = UINT64_MAX;

// One loss or reset at a time. Before Chip::registry_mutex.
std::mutex& recovery_mutex() {
  static std::mutex& mutex = *new std::mutex;
  return mutex;
}

FailurePtr describe(int32_t device, const char* reason) {
  auto failure = std::make_shared<Failure>();
  openreg_error& error = failure->error;
  error.struct_size = sizeof error;
  error.status = OPENREG_DEVICE_LOST;
  error.device = device;
  snprintf(error.name, sizeof error.name, "the device");
  snprintf(error.message, sizeof error.message, "%s", reason);
  return failure;
}

// From here on nothing is enqueued on the streams, and their tasks are skipped. Returns all streams of the chip.
std::vector<StreamRef> mark_lost(Chip& chip, Device& device, const FailurePtr& failure) {
  std::vector<StreamRef> streams;
  std::lock_guard<std::mutex> registry(chip.registry_mutex);
  std::lock_guard<std::mutex> guard(chip.failure_mutex);
  failure->order = ++chip.failures;
  device.loss = failure;
  for (Stream* stream : chip.streams) {
    streams.emplace_back(stream);
    if (stream->device != &device) continue;
    stream->failure = failure;
    stream->skip_until.store(kEverything, std::memory_order_release);
    stream->lost.store(true, std::memory_order_seq_cst);
  }
  device.losses.fetch_add(1, std::memory_order_acq_rel);
  device.lost.store(true, std::memory_order_seq_cst);
  return streams;
}

// Whether no thread is about to enqueue something that it began before the stream was lost.
bool is_quiet(Stream& stream) {
  if (stream.producer_waits.load(std::memory_order_seq_cst)) return true;
  if (!stream.queue.producers.try_lock()) return false;
  stream.queue.producers.unlock();
  return true;
}

// Empties a lost stream, as its owner or instead of it. Waits for nothing but threads between two tasks.
void empty(Stream& stream) {
  bool quiet = false;
  while (!stream.chip->stopping.load(std::memory_order_seq_cst)) {
    if (stream.queue.empty()) {
      if (quiet) return;
      quiet = is_quiet(stream);
      if (!quiet) sched_yield();
    } else if (stream.try_own()) {
      run_tasks(stream, stream.queue.tail(), kNever);
      disown(stream);
    } else if (const pthread_t owner = stream.owner.load(std::memory_order_relaxed); empty_for_owner(stream)) {
      stream.chip->random.take_from(owner);
    } else {
      sched_yield();
    }
  }
}

bool is_capturing(const Device& device) {
  std::lock_guard<std::mutex> guard(captures().mutex);
  for (const auto& capture : captures().live)
    for (const StreamRef& stream : capture->streams)
      if (stream->device == &device) return true;
  return false;
}

// Everybody who asks from now on was told of the loss, but for streams of other devices that carry it: they keep a copy.
void close_loss(Chip& chip, Device& device) {
  std::lock_guard<std::mutex> registry(chip.registry_mutex);
  std::lock_guard<std::mutex> guard(chip.failure_mutex);
  Failure& loss = *device.loss;
  auto copy = std::make_shared<Failure>();
  copy->error = loss.error;
  copy->order = loss.order;
  loss.tails.clear();
  loss.tails.reserve(chip.streams.size());
  for (Stream* stream : chip.streams) {
    loss.tails.emplace_back(stream->id, stream->queue.tail());
    if (stream->device != &device) {
      if (stream->failure == device.loss) stream->failure = copy;
      continue;
    }
    stream->failure = stream->skipped_for = nullptr;
    stream->skip_until.store(0, std::memory_order_release);
    stream->queue.settle();
    stream->lost.store(false, std::memory_order_seq_cst);
  }
  loss.reported = true;
  device.lost.store(false, std::memory_order_seq_cst);
}

}  // namespace

openreg_status report_loss(const char* operation, Device& device, openreg_error* error) {
  FailurePtr loss;
  {
    std::lock_guard<std::mutex> guard(chip().failure_mutex);
    loss = device.loss;
    loss->printed = true;
  }
  fill_error(*loss, error);
  return fail(OPENREG_DEVICE_LOST, "%s: device %d is lost: %s", operation, device.index, loss->error.message);
}

bool has_abandoned_tasks(const Chip& chip) {
  for (const auto& device : chip.devices)
    if (device->abandoned.load(std::memory_order_acquire) != 0) return true;
  return false;
}

openreg_status device_lose(int32_t device, const char* reason) {
  return entry([&]() -> openreg_status {
    if (!reason) return fail(OPENREG_INVALID_VALUE, "device_lose: reason is null");
    if (openreg_status status = check_device("device_lose", device)) return status;
    Device& lost = *chip().devices[static_cast<size_t>(device)];
    std::lock_guard<std::mutex> guard(recovery_mutex());
    if (lost.lost.load(std::memory_order_acquire)) return OPENREG_OK;
    chip().loss_steps.fetch_add(1, std::memory_order_seq_cst);
    lost.memory.begin_loss();
    const std::vector<StreamRef> streams = mark_lost(chip(), lost, describe(device, reason));
    lost.slots.cancel();
    for (const StreamRef& stream : streams) wake_everybody(*stream);
    for (const StreamRef& stream : streams)
      if (stream->device == &lost) empty(*stream);
    chip().loss_steps.fetch_add(1, std::memory_order_seq_cst);
    chip().random.wake();
    return OPENREG_OK;
  });
}

openreg_status device_reset(int32_t device) {
  return entry([&]() -> openreg_status {
    if (openreg_status status = check_device("device_reset", device)) return status;
    Device& lost = *chip().devices[static_cast<size_t>(device)];
    std::lock_guard<std::mutex> guard(recovery_mutex());
    if (!lost.lost.load(std::memory_order_acquire)) return OPENREG_OK;
    if (is_capturing(lost))
      return fail(OPENREG_INVALID_VALUE, "device_reset: a stream of device %d is being captured; end the capture first", device);
    if (lost.abandoned.load(std::memory_order_acquire) != 0) return OPENREG_NOT_READY;
    lost.slots.restore();
    lost.memory.end_loss();
    close_loss(chip(), lost);
    return OPENREG_OK;
  });
}

}  // namespace openreg::sim
