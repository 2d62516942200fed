// shared_event.cpp: the file behind a shared event, its records and its waits.
#include "driver/sim/shared_event.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstdio>
#include <map>
#include <mutex>

#include "driver/sim/device.h"
#include "driver/sim/futex.h"
#include "driver/sim/ipc.h"
#include "driver/sim/status.h"
#include "driver/sim/trace.h"
#include "driver/sim/stream.h"

namespace openreg::sim {
namespace {

// How often a waiter looks whether the recording process lives.
constexpr uint64_t kLook_ns = 20000000;

struct Registry {
  std::mutex mutex;
  std::map<uint64_t, std::weak_ptr<SharedEvent>> by_inode;  // LOCK: mutex
};

Registry& registry() {
  static Registry& all = *new Registry;
  return all;
}

// Futex operations that reach other processes, which those of futex.h do not.
void sleep_shared(std::atomic<uint32_t>& word, uint32_t expected, uint64_t ns) {
  timespec limit{static_cast<time_t>(ns / 1000000000u), static_cast<long>(ns % 1000000000u)};
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT, expected, &limit, nullptr, 0);
}

void wake_shared(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

struct flock lock_of(int32_t process, short type) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = process;
  lock.l_len = 1;
  return lock;
}

bool recorder_lives(const SharedEvent& event) {
  const int32_t process = event.page->recorder.load(std::memory_order_acquire);
  if (process == getpid()) return true;
  struct flock lock = lock_of(process, F_WRLCK);
  return fcntl(event.fd, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

// The event of a file that this process has open already, or a new one over `fd`, which is the event's from then on.
std::shared_ptr<SharedEvent> adopt(int32_t device, int fd) {
  struct stat status;
  if (fstat(fd, &status) != 0) {
    close(fd);
    return nullptr;
  }
  Registry& all = registry();
  std::lock_guard<std::mutex> guard(all.mutex);
  if (auto known = all.by_inode[status.st_ino].lock()) {
    close(fd);
    return known;
  }
  void* page = mmap(nullptr, sizeof(SharedPage), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (page == MAP_FAILED) {
    close(fd);
    return nullptr;
  }
  madvise(page, sizeof(SharedPage), MADV_DONTFORK);  // a forked child would keep the file open, and its locks with it
  auto made = std::make_shared<SharedEvent>(device, fd, status.st_ino, static_cast<SharedPage*>(page));
  all.by_inode[status.st_ino] = made;
  return made;
}

openreg_status insert(const char* operation, std::shared_ptr<SharedEvent> shared, openreg_event* event) {
  if (!shared) return fail(OPENREG_OUT_OF_MEMORY, "%s: cannot make the event's file: %s", operation, strerror(errno));
  auto created = std::make_unique<Event>(shared->device, false);
  created->shared = std::move(shared);
  const openreg_event handle = event_table().insert(created.get());
  if (!handle) return fail(OPENREG_OUT_OF_MEMORY, "%s: there are too many live events", operation);
  created.release();
  *event = handle;
  return OPENREG_OK;
}

openreg_status nothing(void*, openreg_error*) { return OPENREG_OK; }

void publish(void* args) {
  const auto* record = static_cast<SharedRecord*>(args);
  publish_shared_record(**record->event, record->number);
  delete record->event;
}

void forget(void* args) { delete static_cast<SharedRecord*>(args)->event; }

openreg_status enqueue(Stream& stream, TaskKind kind, const char* name, void (*cleanup)(void*), const std::shared_ptr<SharedEvent>& event,
                       uint64_t number) {
  SharedRecord record{new std::shared_ptr<SharedEvent>(event), number};
  Task task{};
  task.kind = kind;
  task.name = name;
  task.cleanup = cleanup;
  task.host_func = nothing;
  task.internal = kind != TaskKind::wait_shared;
  const openreg_status status = submit(stream, task, {}, {&record, sizeof record}, nullptr);
  if (status != OPENREG_OK) delete record.event;
  return status;
}

}  // namespace

SharedEvent::~SharedEvent() {
  {
    Registry& all = registry();
    std::lock_guard<std::mutex> guard(all.mutex);
    const auto found = all.by_inode.find(inode);
    if (found != all.by_inode.end() && found->second.expired()) all.by_inode.erase(found);
  }
  munmap(page, sizeof(SharedPage));
  close(fd);
}

bool is_held_up(const SharedEvent& event, uint64_t number) { return !event.is_complete(number) && recorder_lives(event); }

SharedWait await_shared(const SharedEvent& event, uint64_t number, uint64_t deadline_ns, const std::atomic<bool>& stopping,
                        const std::atomic<bool>* given_up) {
  for (;;) {
    const uint32_t wakes = event.page->wakes.load(std::memory_order_acquire);
    if (event.is_complete(number)) return SharedWait::complete;
    if (stopping.load(std::memory_order_seq_cst) || (given_up && given_up->load(std::memory_order_acquire))) return SharedWait::stopped;
    if (!recorder_lives(event)) return event.is_complete(number) ? SharedWait::complete : SharedWait::lost;
    if (is_past(deadline_ns)) return SharedWait::timed_out;
    uint64_t slice_ns = kLook_ns;
    if (deadline_ns != kNever) slice_ns = std::min(slice_ns, (deadline_ns & ~kLends) - std::min(now_ns(), deadline_ns & ~kLends));
    sleep_shared(event.page->wakes, wakes, slice_ns);
  }
}

void describe_lost(const SharedEvent& event, openreg_error* error) {
  error->status = OPENREG_LAUNCH_FAILED;
  error->kind = 0;
  error->device = event.device;
  error->stream_id = error->tag = 0;
  snprintf(error->name, sizeof error->name, "event wait");
  snprintf(error->message, sizeof error->message, "process %d, which recorded the shared event, ended before the record completed",
           event.page->recorder.load(std::memory_order_relaxed));
}

uint64_t begin_shared_record(SharedEvent& event) {
  struct flock lock = lock_of(getpid(), F_RDLCK);
  fcntl(event.fd, F_OFD_SETLK, &lock);
  event.page->recorder.store(getpid(), std::memory_order_release);
  return event.page->recorded.fetch_add(1, std::memory_order_acq_rel) + 1;
}

void publish_shared_record(SharedEvent& event, uint64_t number) {
  uint64_t latest = event.page->completed.load(std::memory_order_relaxed);
  while (latest < number && !event.page->completed.compare_exchange_weak(latest, number, std::memory_order_release)) {
  }
  event.page->wakes.fetch_add(1, std::memory_order_release);
  wake_shared(event.page->wakes);
}

openreg_status enqueue_publication(const std::shared_ptr<SharedEvent>& event, uint64_t number, Stream& stream) {
  return enqueue(stream, TaskKind::host_func, "shared event record", publish, event, number);
}

openreg_status enqueue_shared_wait(const std::shared_ptr<SharedEvent>& event, Stream& stream) {
  const uint64_t number = event->page->recorded.load(std::memory_order_acquire);
  if (event->is_complete(number)) {
    if (is_traced()) trace_wait_at_call(stream, 0);
    return OPENREG_OK;
  }
  return enqueue(stream, TaskKind::wait_shared, "shared event wait", forget, event, number);
}

void close_shared_events_after_fork() {
  Registry& all = registry();
  if (!all.mutex.try_lock()) return;  // the parent was in here when it forked
  for (auto& [inode, weak] : all.by_inode)
    if (auto event = weak.lock()) {
      close(event->fd);
      new std::shared_ptr<SharedEvent>(event);  // never destroyed here: the descriptor may become another's
    }
  all.mutex.unlock();
}

openreg_status event_create_shared(int32_t device, openreg_event* event) {
  return entry([&]() -> openreg_status {
    if (!event) return fail(OPENREG_INVALID_VALUE, "event_create_shared: event is null");
    if (openreg_status status = check_device("event_create_shared", device)) return status;
    const int fd = memfd_create("openreg-event", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, sizeof(SharedPage)) != 0) {
      const int cause = errno;
      if (fd >= 0) close(fd);
      return fail(OPENREG_OUT_OF_MEMORY, "event_create_shared: cannot make the event's file: %s", strerror(cause));
    }
    return insert("event_create_shared", adopt(device, fd), event);
  });
}

openreg_status event_export(openreg_event event, openreg_ipc_handle* handle) {
  return entry([&]() -> openreg_status {
    if (!handle) return fail(OPENREG_INVALID_VALUE, "event_export: handle is null");
    const Event* object = event_table().find(event);
    if (!object) return fail(OPENREG_INVALID_VALUE, "event_export: %p is not a live event", static_cast<void*>(event));
    if (!object->shared)
      return fail(OPENREG_INVALID_VALUE, "event_export: the event was not created to be shared; use event_create_shared");
    return name_file("event_export", SharedKind::event, object->device, object->shared->fd, 0, sizeof(SharedPage), handle);
  });
}

openreg_status event_import(const openreg_ipc_handle* handle, int32_t* device, openreg_event* event) {
  return entry([&]() -> openreg_status {
    if (!device || !event) return fail(OPENREG_INVALID_VALUE, "event_import: device or event is null");
    SharedFile file;
    int fd;
    if (openreg_status status = open_file("event_import", SharedKind::event, handle, &file, &fd)) return status;
    if (openreg_status status = insert("event_import", adopt(file.device, fd), event)) return status;
    *device = file.device;
    return OPENREG_OK;
  });
}

}  // namespace openreg::sim
