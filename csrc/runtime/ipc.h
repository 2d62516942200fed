// Storages that several processes use, on the same memory.
//
// Note [Shared storages]
// The sender names the HAL segment around the storage's block, and where the block lies in it. Its storage then carries a lease (Note [Leases]):
// when the storage is destroyed while other processes need the block, the block waits in limbo, and goes back to the device allocator when a later
// call finds the lease ended. The receiver maps each segment once, with all blocks that it receives from it. A storage that it drops
// gives up its lease behind what every stream of this process has queued, so the sender never reuses memory that is still being read.
#pragma once

#include <c10/core/Storage.h>

#include <string>

#include "runtime/export.h"

namespace openreg {

// Bytes that stand for the storage in a message to one other process. Waits for the calling thread's current stream, so that the
// receiver finds what was written. Throws for a storage that was received itself. Any thread.
OPENREG_API std::string share_storage(const c10::Storage& storage);

// The storage that the bytes stand for, on the same memory. Throws when the sender has ended or has the memory back. Any thread.
OPENREG_API c10::Storage open_storage(const std::string& name);

// Frees what other processes have finished with, and unmaps what this one has. Never waits. Any host thread.
OPENREG_API void collect_shared_memory();

}  // namespace openreg
