// ipc.cpp: names files, opens named ones, and maps the memory of other processes.
#include "driver/sim/ipc.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>

#include "driver/sim/device.h"
#include "driver/sim/status.h"

namespace openreg::sim {
namespace {

constexpr char kMagic[8] = "openreg";

}  // namespace

openreg_status name_file(const char* operation, SharedKind kind, int32_t device, int fd, uint64_t offset, uint64_t bytes,
                         openreg_ipc_handle* handle) {
  struct stat status;
  if (fstat(fd, &status) != 0) return fail(OPENREG_INTERNAL, "%s: cannot look at descriptor %d: %s", operation, fd, strerror(errno));
  SharedFile file{};
  memcpy(file.magic, kMagic, sizeof kMagic);
  file.kind = kind;
  file.device = device;
  file.pid = getpid();
  file.fd = fd;
  file.inode = status.st_ino;
  file.offset = offset;
  file.bytes = bytes;
  memset(handle, 0, sizeof *handle);
  memcpy(handle->bytes, &file, sizeof file);
  return OPENREG_OK;
}

openreg_status open_file(const char* operation, SharedKind kind, const openreg_ipc_handle* handle, SharedFile* file, int* fd) {
  if (!handle) return fail(OPENREG_INVALID_VALUE, "%s: handle is null", operation);
  memcpy(file, handle->bytes, sizeof *file);
  if (memcmp(file->magic, kMagic, sizeof kMagic) != 0 || file->kind != kind)
    return fail(OPENREG_INVALID_VALUE, "%s: these bytes are no handle of the simulator for %s", operation,
                kind == SharedKind::memory ? "memory" : "an event");
  if (openreg_status status = check_device(operation, file->device)) return status;
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/fd/%d", file->pid, file->fd);
  const int opened = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (opened < 0)
    return errno == ENOENT ? fail(OPENREG_INVALID_VALUE, "%s: process %d, which shared it, has ended or has freed it", operation, file->pid)
                           : fail(OPENREG_INVALID_VALUE, "%s: %s of process %d cannot be opened: %s", operation, path, file->pid, strerror(errno));
  struct stat status;
  if (fstat(opened, &status) != 0 || status.st_ino != file->inode || static_cast<uint64_t>(status.st_size) < file->offset + file->bytes) {
    close(opened);
    return fail(OPENREG_INVALID_VALUE, "%s: process %d has freed what it shared", operation, file->pid);
  }
  *fd = opened;
  return OPENREG_OK;
}

openreg_status mem_export(int32_t device, void* ptr, openreg_ipc_handle* handle) {
  return entry([&]() -> openreg_status {
    if (!handle) return fail(OPENREG_INVALID_VALUE, "mem_export: handle is null");
    if (openreg_status status = check_device("mem_export", device)) return status;
    int fd;
    uint64_t offset, bytes;
    if (openreg_status status = chip().devices[static_cast<size_t>(device)]->memory.file_of(ptr, &fd, &offset, &bytes)) return status;
    return name_file("mem_export", SharedKind::memory, device, fd, offset, bytes, handle);
  });
}

openreg_status mem_import(const openreg_ipc_handle* handle, int32_t* device, void** ptr, uint64_t* bytes) {
  return entry([&]() -> openreg_status {
    if (!device || !ptr || !bytes) return fail(OPENREG_INVALID_VALUE, "mem_import: device, ptr or bytes is null");
    SharedFile file;
    int fd;
    if (openreg_status status = open_file("mem_import", SharedKind::memory, handle, &file, &fd)) return status;
    const openreg_status status = chip().devices[static_cast<size_t>(file.device)]->memory.map_imported(fd, file.offset, file.bytes, ptr);
    close(fd);
    if (status != OPENREG_OK) return status;
    *device = file.device;
    *bytes = file.bytes;
    return OPENREG_OK;
  });
}

openreg_status mem_close(int32_t device, void* ptr) {
  return entry([&]() -> openreg_status {
    if (openreg_status status = check_device("mem_close", device)) return status;
    return chip().devices[static_cast<size_t>(device)]->memory.unmap_imported(ptr);
  });
}

}  // namespace openreg::sim
