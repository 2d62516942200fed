// failure.cpp: the cold path of a stream: failing, inheriting, reporting.
#include "driver/sim/failure.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <mutex>

#include "driver/sim/device.h"
#include "driver/sim/status.h"
#include "driver/sim/stream.h"

namespace openreg::sim {
namespace {

constexpr uint64_t kEverything = UINT64_MAX;

// LOCK: failure_mutex
void carry(Stream& stream, const FailurePtr& failure) {
  stream.failure = failure;
  stream.skip_until.store(kEverything, std::memory_order_release);
}

// LOCK: failure_mutex
void skip_reported(Stream& stream, const FailurePtr& failure, uint64_t tail) {
  stream.skipped_for = failure;
  stream.skip_until.store(tail, std::memory_order_release);
}

}  // namespace

void fail_stream(Stream& stream, const openreg_error& error) {
  auto failure = std::make_shared<Failure>();
  failure->error = error;
  Chip& chip = *stream.chip;
  std::lock_guard<std::mutex> guard(chip.failure_mutex);
  if (stream.failure) return;
  failure->order = ++chip.failures;
  carry(stream, failure);
}

void inherit_failure(Stream& stream, const FailurePtr& failure, uint64_t position) {
  std::lock_guard<std::mutex> guard(stream.chip->failure_mutex);
  if (stream.failure) return;
  if (!failure->reported) {
    carry(stream, failure);
    return;
  }
  for (const auto& [id, tail] : failure->tails)
    if (id == stream.id && tail > position && tail > stream.skip_until.load(std::memory_order_relaxed))
      skip_reported(stream, failure, tail);
}

FailurePtr carried_failure(Stream& stream, uint64_t position) {
  if (position >= stream.skip_until.load(std::memory_order_acquire)) return nullptr;
  std::lock_guard<std::mutex> guard(stream.chip->failure_mutex);
  if (stream.failure) return stream.failure;
  return position < stream.skip_until.load(std::memory_order_relaxed) ? stream.skipped_for : nullptr;
}

FailurePtr pending_failure(Stream& stream) {
  if (stream.skip_until.load(std::memory_order_acquire) != kEverything) return nullptr;
  std::lock_guard<std::mutex> guard(stream.chip->failure_mutex);
  return stream.failure;
}

openreg_status report_failure(Chip& chip, const FailurePtr& failure, openreg_error* error) {
  if (!failure) return OPENREG_OK;
  {
    std::lock_guard<std::mutex> registry(chip.registry_mutex);
    std::lock_guard<std::mutex> guard(chip.failure_mutex);
    if (failure->reported) return OPENREG_OK;
    failure->reported = true;
    failure->tails.reserve(chip.streams.size());
    for (Stream* stream : chip.streams) {
      const uint64_t tail = stream->queue.tail();
      failure->tails.emplace_back(stream->id, tail);
      if (stream->failure != failure || stream->lost.load(std::memory_order_relaxed)) continue;
      stream->failure = nullptr;
      skip_reported(*stream, failure, tail);
    }
  }
  fill_error(*failure, error);
  return fail(failure->error.status, "%s on device %d, stream %llu: %s", failure->error.name, failure->error.device,
              static_cast<unsigned long long>(failure->error.stream_id), failure->error.message);
}

void fill_error(const Failure& failure, openreg_error* error) {
  if (!error) return;
  openreg_error record = failure.error;
  record.struct_size = error->struct_size;
  std::memcpy(error, &record, std::min<size_t>(error->struct_size, sizeof record));
}

void print_unreported(Stream& stream) {
  Chip& chip = *stream.chip;
  std::lock_guard<std::mutex> registry(chip.registry_mutex);
  std::lock_guard<std::mutex> guard(chip.failure_mutex);
  const FailurePtr failure = stream.failure;
  if (!failure || failure->reported || failure->printed) return;
  for (Stream* other : chip.streams)
    if (other != &stream && other->failure == failure) return;
  failure->printed = true;
  fprintf(stderr, "openreg: nobody asked for this error: %s failed on device %d, stream %llu: %s\n", failure->error.name,
          failure->error.device, static_cast<unsigned long long>(failure->error.stream_id), failure->error.message);
}

openreg_status check_error_record(const char* operation, const openreg_error* error) {
  if (error && error->struct_size < 8)
    return fail(OPENREG_INVALID_VALUE, "%s: error->struct_size is %u; set it to sizeof(openreg_error)", operation, error->struct_size);
  return OPENREG_OK;
}

}  // namespace openreg::sim
