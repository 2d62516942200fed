// stream.cpp: runs tasks in place and keeps the first failure of each stream.
#include "driver/null/stream.h"

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstring>

#include "driver/null/device.h"
#include "driver/null/status.h"

namespace openreg::null {
namespace {

std::atomic<uint64_t> last_id{0}, failures{0};

// LOCK: stream.mutex
bool is_failed(const Stream& stream) { return stream.failure && !stream.failure->reported; }

void print_unreported(Stream& stream) {
  if (std::shared_ptr<Failure> failure = pending_failure(stream); failure && !failure->reported.exchange(true))
    fprintf(stderr, "openreg: nobody asked for this error: %s failed: %s\n", failure->error.name, failure->error.message);
}

}  // namespace

Streams& streams() {
  static Streams& all = *new Streams;
  return all;
}

std::shared_ptr<Stream> find_stream(openreg_stream handle) {
  std::shared_ptr<Stream> stream = streams().find(handle);
  if (!stream) fail(OPENREG_INVALID_VALUE, "%p is not a live stream", static_cast<void*>(handle));
  return stream;
}

openreg_status check_descriptor(const openreg_launch_desc* desc) {
  if (desc && desc->struct_size < offsetof(openreg_launch_desc, cleanup) + sizeof desc->cleanup)
    return fail(OPENREG_INVALID_VALUE, "desc->struct_size is %u; set it to sizeof(openreg_launch_desc)", desc->struct_size);
  return OPENREG_OK;
}

void run_task(Stream& stream, const Task& task, void* args, const openreg_launch_desc* desc) {
  std::lock_guard guard(stream.mutex);
  if (!is_failed(stream)) {
    openreg_error error{};
    error.struct_size = sizeof error;
    openreg_status status = OPENREG_LAUNCH_FAILED;
    try {
      status = task(&error);
    } catch (const std::exception& thrown) {
      snprintf(error.message, sizeof error.message, "the task threw an exception: %s", thrown.what());
    } catch (...) {
      snprintf(error.message, sizeof error.message, "the task threw something that is not a std::exception");
    }
    if (status != OPENREG_OK) {
      error.status = OPENREG_LAUNCH_FAILED;
      error.device = 0;
      error.stream_id = stream.id;
      error.tag = desc ? desc->tag : 0;
      snprintf(error.name, sizeof error.name, "%s", desc && desc->name ? desc->name : "unnamed");
      stream.failure = std::make_shared<Failure>();
      stream.failure->error = error;
      stream.failure->order = ++failures;
    }
  }
  if (desc && desc->cleanup) desc->cleanup(args);
}

std::shared_ptr<Failure> pending_failure(Stream& stream) {
  std::lock_guard guard(stream.mutex);
  return is_failed(stream) ? stream.failure : nullptr;
}

openreg_status report(const std::shared_ptr<Failure>& failure, openreg_error* error) {
  if (error && error->struct_size < offsetof(openreg_error, kind))
    return fail(OPENREG_INVALID_VALUE, "error->struct_size is %u; set it to sizeof(openreg_error)", error->struct_size);
  if (!failure || failure->reported.exchange(true)) return OPENREG_OK;
  if (error) {
    openreg_error record = failure->error;
    record.struct_size = error->struct_size;
    std::memcpy(error, &record, std::min<size_t>(error->struct_size, sizeof record));
  }
  return fail(failure->error.status, "%s failed: %s", failure->error.name, failure->error.message);
}

void destroy_all_streams() {
  for (const std::shared_ptr<Stream>& stream : streams().all()) print_unreported(*stream);
  streams().destroy_all();
}

openreg_status stream_create(int32_t device, int32_t, openreg_stream* stream) {
  return entry([&]() -> openreg_status {
    if (!stream) return fail(OPENREG_INVALID_VALUE, "stream is null");
    if (openreg_status status = check_device(device)) return status;
    auto created = std::make_shared<Stream>();
    created->id = ++last_id;
    *stream = streams().add(std::move(created));
    return OPENREG_OK;
  });
}

openreg_status stream_destroy(openreg_stream stream) {
  return entry([&]() -> openreg_status {
    const std::shared_ptr<Stream> taken = streams().take(stream);
    if (!taken) return fail(OPENREG_INVALID_VALUE, "%p is not a live stream", static_cast<void*>(stream));
    print_unreported(*taken);
    return OPENREG_OK;
  });
}

openreg_status stream_query(openreg_stream stream) {
  return entry([&]() -> openreg_status { return find_stream(stream) ? OPENREG_OK : OPENREG_INVALID_VALUE; });
}

openreg_status stream_synchronize(openreg_stream stream, uint64_t, openreg_error* error) {
  return entry([&]() -> openreg_status {
    const std::shared_ptr<Stream> on = find_stream(stream);
    return on ? report(pending_failure(*on), error) : OPENREG_INVALID_VALUE;
  });
}

openreg_status stream_info(openreg_stream stream, openreg_stream_info* info) {
  return entry([&]() -> openreg_status {
    const std::shared_ptr<Stream> on = find_stream(stream);
    if (!on) return OPENREG_INVALID_VALUE;
    if (!info || info->struct_size < sizeof info->struct_size) return fail(OPENREG_INVALID_VALUE, "info is null or its struct_size is not set");
    openreg_stream_info full{};
    full.struct_size = info->struct_size;
    full.stream_id = on->id;
    std::memcpy(info, &full, std::min<size_t>(info->struct_size, sizeof full));
    return OPENREG_OK;
  });
}

}  // namespace openreg::null
