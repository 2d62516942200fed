// ipc.h: how one process names a file of its own for another, and device memory that crosses that way.
//
// A segment and a shared event are memory files of the process that made them. A handle says which process, which descriptor and which file;
// the other process opens it through /proc, where the system checks that both belong to one user. Nothing has to listen, and
// what is open stays when its maker ends.
#pragma once

#include <cstdint>

#include "hal/openreg_hal.h"

namespace openreg::sim {

enum class SharedKind : uint32_t { memory = 1, event = 2 };

// What the bytes of a handle mean.
struct SharedFile {
  char magic[8];  // "openreg"
  SharedKind kind;
  int32_t device;
  int32_t pid;
  int32_t fd;
  uint64_t inode;
  uint64_t offset;  // what is shared lies at [offset, offset + bytes) of the file
  uint64_t bytes;
};
static_assert(sizeof(SharedFile) <= sizeof(openreg_ipc_handle));

// Names a part of a file of this process.
openreg_status name_file(const char* operation, SharedKind kind, int32_t device, int fd, uint64_t offset, uint64_t bytes,
                         openreg_ipc_handle* handle);

// Opens what the handle names; the caller closes *fd. INVALID_VALUE with a sentence when it is no handle of this kind, when its process has
// ended, or when the file is gone; INVALID_DEVICE when this chip has fewer devices.
openreg_status open_file(const char* operation, SharedKind kind, const openreg_ipc_handle* handle, SharedFile* file, int* fd);

openreg_status mem_export(int32_t device, void* ptr, openreg_ipc_handle* handle);
openreg_status mem_import(const openreg_ipc_handle* handle, int32_t* device, void** ptr, uint64_t* bytes);
openreg_status mem_close(int32_t device, void* ptr);

}  // namespace openreg::sim
