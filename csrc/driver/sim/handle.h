// handle.h: turns objects into handles that can be checked.
//
// A handle is a number, never an address: kind, slot and generation. Any bit pattern can be
// looked up safely, and a handle that was destroyed is never mistaken for a later object.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <new>
#include <vector>

namespace openreg::sim {

enum class HandleKind : uint64_t { stream = 1, event = 2, kernel = 3, graph = 4 };

template <class T, class Handle, HandleKind kind>
class HandleTable {
 public:
  // Returns null when the table is full (a million live objects).
  Handle insert(T* object) {
    std::lock_guard<std::mutex> guard(mutex_);
    uint32_t index;
    if (!free_.empty()) {
      index = free_.back();
      free_.pop_back();
    } else {
      if (used_ == kChunks * kChunkEntries) return nullptr;
      index = used_;
      if (index % kChunkEntries == 0) chunks_[index / kChunkEntries].store(new Entry[kChunkEntries], std::memory_order_release);
      free_.reserve(used_ + 1);
      ++used_;
    }
    Entry& entry = *at(index);
    const uint64_t value = (++generation_ << 24) | (uint64_t{index} << 4) | (static_cast<uint64_t>(kind) << 1);
    entry.object = object;
    entry.value.store(value, std::memory_order_release);
    return reinterpret_cast<Handle>(value);
  }

  // The object, or null for anything that is not a live handle of this kind. Any thread, wait-free.
  T* find(Handle handle) const {
    const uint64_t value = reinterpret_cast<uint64_t>(handle);
    Entry* entry = at(static_cast<uint32_t>(value >> 4) & (kChunks * kChunkEntries - 1));
    if (!entry || entry->value.load(std::memory_order_acquire) != value || value == 0) return nullptr;
    return entry->object;
  }

  // Invalidates the handle and returns its object, or null.
  T* erase(Handle handle) {
    std::lock_guard<std::mutex> guard(mutex_);
    T* object = find(handle);
    if (object) release(static_cast<uint32_t>(reinterpret_cast<uint64_t>(handle) >> 4) & (kChunks * kChunkEntries - 1));
    return object;
  }

  // Invalidates every handle and hands each object to `visit`.
  template <class Visit>
  void clear(Visit visit) {
    std::lock_guard<std::mutex> guard(mutex_);
    for (uint32_t index = 0; index < used_; ++index) {
      Entry& entry = *at(index);
      if (entry.value.load(std::memory_order_relaxed) == 0) continue;
      T* object = entry.object;
      release(index);
      visit(object);
    }
  }

 private:
  static constexpr uint32_t kChunks = 2048, kChunkEntries = 512;

  struct Entry {
    std::atomic<uint64_t> value{0};
    T* object = nullptr;
  };

  Entry* at(uint32_t index) const {
    Entry* chunk = chunks_[index / kChunkEntries].load(std::memory_order_acquire);
    return chunk ? &chunk[index % kChunkEntries] : nullptr;
  }

  // LOCK: mutex_. Cannot fail: insert reserved the room.
  void release(uint32_t index) {
    at(index)->value.store(0, std::memory_order_release);
    free_.push_back(index);
  }

  std::mutex mutex_;
  std::atomic<Entry*> chunks_[kChunks] = {};
  std::vector<uint32_t> free_;
  uint32_t used_ = 0;
  uint64_t generation_ = 0;
};

}  // namespace openreg::sim
