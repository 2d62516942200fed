// Staging copies.
#include "aten/engine/staging.h"

#include <cstdlib>
#include <new>

#include "runtime/launch.h"

namespace openreg::engine {

namespace {

const c10::Device kHost(c10::DeviceType::CPU);

openreg_status nothing(void*, openreg_error*) { return OPENREG_OK; }
void free_buffer(void* args) { std::free(*static_cast<void**>(args)); }

}  // namespace

Staging::~Staging() {
  for (Buffer& buffer : buffers_) {
    if (!in_use_) {
      std::free(buffer.host);
      continue;
    }
    try {
      launch_host_func(stream_, "openreg::free_staging", nothing, &buffer.host, sizeof(buffer.host), free_buffer);
    } catch (...) {  // the stream takes nothing more: a task may still run on the buffer, so it is leaked
    }
  }
}

Staging::Buffer* Staging::find(const c10::StorageImpl* storage) {
  for (Buffer& buffer : buffers_) {
    if (buffer.storage == storage) return &buffer;
  }
  return nullptr;
}

void* Staging::host_of(const c10::StorageImpl* storage) {
  if (const Buffer* known = find(storage)) return known->host;
  if (storage->data() == nullptr || storage->nbytes() == 0) return nullptr;
  // The CPU's own allocations are aligned to 64 bytes, and kernels may count on it.
  void* host = std::aligned_alloc(64, (storage->nbytes() + 63) / 64 * 64);
  if (host == nullptr) throw std::bad_alloc();
  buffers_.push_back({storage, const_cast<void*>(storage->data()), host, storage->nbytes(), false, false});
  return host;
}

void Staging::mark_written(const c10::StorageImpl* storage, bool fresh) {
  if (Buffer* buffer = find(storage)) {
    buffer->written = true;
    buffer->fresh = buffer->fresh || fresh;
  }
}

void Staging::mark_all_written() {
  for (Buffer& buffer : buffers_) buffer.written = true;
}

void Staging::copy_in() {
  in_use_ = true;
  for (const Buffer& buffer : buffers_) {
    if (!buffer.fresh) launch_copy(stream_, "openreg::stage_in", buffer.host, kHost, buffer.device, stream_.device(), buffer.bytes);
  }
}

void Staging::copy_out() {
  for (const Buffer& buffer : buffers_) {
    if (buffer.written) launch_copy(stream_, "openreg::stage_out", buffer.device, stream_.device(), buffer.host, kHost, buffer.bytes);
  }
}

}  // namespace openreg::engine
