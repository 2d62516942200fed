// Staging: host copies of device storages around one launch, for a device whose memory the host cannot map.
//
// Everything happens in stream order: storages are copied to host buffers, the CPU kernel runs on the buffers, what it may have
// written is copied back, the buffers are freed. The host waits for none of it.
#pragma once

#include <c10/core/StorageImpl.h>
#include <c10/core/Stream.h>
#include <c10/util/SmallVector.h>

#include <cstddef>

namespace openreg::engine {

class Staging {
 public:
  explicit Staging(c10::Stream stream) : stream_(stream) {}
  // Frees the buffers: behind everything that the stream has been given, once a task may use them.
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  // The host buffer that stands for the storage; allocated at the first call. Null for a storage without memory.
  void* host_of(const c10::StorageImpl* storage);

  // The storage may be written: copied back after the launch. A fresh one holds nothing yet and is not copied to the host.
  void mark_written(const c10::StorageImpl* storage, bool fresh);
  void mark_all_written();

  // Enqueue the copies before and after the task. The storages' memory may be freed meanwhile: the caching allocator reuses a block in
  // stream order.
  void copy_in();
  void copy_out();

 private:
  struct Buffer {
    const c10::StorageImpl* storage;
    void* device;
    void* host;
    size_t bytes;
    bool written, fresh;
  };
  Buffer* find(const c10::StorageImpl* storage);

  c10::Stream stream_;
  bool in_use_ = false;
  c10::SmallVector<Buffer, 8> buffers_;
};

}  // namespace openreg::engine
