// queue.h: the byte ring of one stream. Many producers under a lock, one consumer without.
//
// A position is a count of bytes since the stream began, so it never wraps and orders tasks: a task has
// finished when head() has passed its end. That makes positions the sequence numbers of the whole chip.
#pragma once

#include <sys/mman.h>

#include <atomic>
#include <cstdint>

#include "driver/sim/futex.h"
#include "driver/sim/task.h"

namespace openreg::sim {

class Queue {
 public:
  static constexpr uint64_t kGrain = 64;  // records are whole cache lines

  explicit Queue(uint64_t capacity_bytes) : capacity_(capacity_bytes) {}
  ~Queue() { unmap(); }

  uint64_t head() const { return head_.load(std::memory_order_seq_cst); }
  uint64_t tail() const { return tail_.load(std::memory_order_acquire); }
  bool empty() const { return tail() == head(); }
  uint64_t enqueued_tasks() const { return enqueued_.load(std::memory_order_acquire); }
  uint64_t unfinished_tasks() const {
    const uint64_t finished = finished_.load(std::memory_order_acquire);
    return enqueued_.load(std::memory_order_acquire) - finished;
  }

  // Payloads above this go to the heap.
  uint64_t inline_limit_bytes() const { return capacity_ / 4; }

  // ---- producers, LOCK: producers ----

  Lock producers;

  // Maps the ring on first use. False when there is no memory.
  bool map() {
    if (ring_) return true;
    void* ring = mmap(nullptr, capacity_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (ring == MAP_FAILED) return false;
    ring_ = static_cast<char*>(ring);
    return true;
  }

  // How far head has to come before a record of this size fits; 0 when it fits now.
  uint64_t head_needed(uint64_t size_bytes) {
    const uint64_t end = tail_.load(std::memory_order_relaxed) + padding(size_bytes) + size_bytes;
    if (end - known_head_ <= capacity_) return 0;
    known_head_ = head_.load(std::memory_order_acquire);
    return end - known_head_ <= capacity_ ? 0 : end - capacity_;
  }

  // Room for a record that head_needed lets pass, padded if it would cross the end of the ring.
  Task* reserve(uint64_t size_bytes) {
    uint64_t at = tail_.load(std::memory_order_relaxed);
    if (const uint64_t pad = padding(size_bytes)) {
      Task* task = task_at(at);
      task->kind = TaskKind::pad;
      task->size_bytes = static_cast<uint32_t>(pad);
      at += pad;
    }
    reserved_ = at;
    return task_at(at);
  }

  // Makes the reserved record visible. Returns its end position.
  uint64_t publish(uint64_t size_bytes) {
    const uint64_t end = reserved_ + size_bytes;
    enqueued_.store(enqueued_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    tail_.store(end, std::memory_order_release);
    return end;
  }

  // ---- the consumer: whoever owns the stream ----

  Task* task_at(uint64_t position) const { return reinterpret_cast<Task*>(ring_ + (position & (capacity_ - 1))); }

  // Gives the space from `head` up to `position` back and makes completion visible. False, and nothing is given back, when the head is not
  // there any more: the stream was taken from its owner, see Note [Giving up a task].
  bool finish(uint64_t head, uint64_t position) {
    finished_.store(finished_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    return head_.compare_exchange_strong(head, position, std::memory_order_seq_cst);
  }

  // Takes the task at `head` from the owner who is in it: the owner's finish will fail. False when the head has moved. No record ends
  // at the head that this leaves, so nobody who waits takes the task for finished, and its space stays its own. Any thread.
  bool take(uint64_t head) { return head_.compare_exchange_strong(head, head + kTaken, std::memory_order_seq_cst); }
  static constexpr uint64_t kTaken = 1;

  // Counts every task as finished. The queue is empty, and nobody uses it.
  void settle() { finished_.store(enqueued_.load(std::memory_order_relaxed), std::memory_order_relaxed); }

  void unmap() {
    if (ring_) munmap(ring_, capacity_);
    ring_ = nullptr;
  }

 private:
  uint64_t padding(uint64_t size_bytes) const {
    const uint64_t offset = tail_.load(std::memory_order_relaxed) & (capacity_ - 1);
    return capacity_ - offset >= size_bytes ? 0 : capacity_ - offset;
  }

  char* ring_ = nullptr;
  const uint64_t capacity_;  // a power of two
  uint64_t known_head_ = 0, reserved_ = 0;
  std::atomic<uint64_t> enqueued_{0};
  std::atomic<uint64_t> tail_{0};
  alignas(64) std::atomic<uint64_t> head_{0};
  std::atomic<uint64_t> finished_{0};
};

}  // namespace openreg::sim
