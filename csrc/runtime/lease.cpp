// Ledgers of leases, one's own and those of other processes.
#include "runtime/lease.h"

#include <c10/util/Exception.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

namespace openreg {

namespace {

struct Entry {
  std::atomic<uint32_t> on_their_way;
  std::atomic<uint32_t> generation;
};

constexpr uint32_t kEntries = 1 << 20;  // a sparse file: pages come with use
constexpr size_t kBytes = kEntries * sizeof(Entry);

struct flock lock_of(uint32_t entry, short type) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = entry;
  lock.l_len = 1;
  return lock;
}

bool set_lock(int fd, int command, uint32_t entry, short type) {
  struct flock lock = lock_of(entry, type);
  int result;
  while ((result = fcntl(fd, command, &lock)) != 0 && errno == EINTR) {
  }
  return result == 0;
}

// A forked child does not get the mapping: it would keep the file open, and its locks with it.
Entry* map(int fd) {
  void* entries = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
  if (entries == MAP_FAILED) return nullptr;
  madvise(entries, kBytes, MADV_DONTFORK);
  return static_cast<Entry*>(entries);
}

struct Own {
  std::mutex mutex;  // LOCK: everything below
  int fd = -1;
  uint64_t inode = 0;
  Entry* entries = nullptr;
  uint32_t used = 0;
  std::vector<uint32_t> free;
};

struct Foreign {
  int fd = -1;
  Entry* entries = nullptr;
  std::unordered_map<uint32_t, uint32_t> held;  // entry -> how often this process holds it
};

using Owner = std::pair<int32_t, uint64_t>;  // process, inode of its ledger

struct Foreigners {
  std::mutex mutex;  // LOCK: the map. Never held across a driver call: workers take it
  std::map<Owner, Foreign> ledgers;
};

Own& own() {
  static Own* leaked = new Own;
  return *leaked;
}

Foreigners& foreigners() {
  static Foreigners* leaked = new Foreigners;
  return *leaked;
}

void close_all(Foreigners& all) {
  for (auto& [owner, ledger] : all.ledgers) close(ledger.fd);
  all.ledgers.clear();
}

// A forked child holds no leases: its copies of the descriptors would keep the locks after the parent has ended. Both mutexes are held across
// the fork, so that the child finds whole lists, whatever other threads are doing.
void close_in_forked_children() {
  static const int registered = pthread_atfork(
      [] {
        own().mutex.lock();
        foreigners().mutex.lock();
      },
      [] {
        foreigners().mutex.unlock();
        own().mutex.unlock();
      },
      [] {
        close_all(foreigners());
        if (own().fd >= 0) close(std::exchange(own().fd, -1));
        foreigners().mutex.unlock();
        own().mutex.unlock();
      });
  TORCH_CHECK(registered == 0, "Device memory cannot be shared with other processes: no memory for a fork handler.");
}

void open_own(Own& ledger) {
  ledger.fd = memfd_create("openreg-leases", MFD_CLOEXEC);
  struct stat status;
  const bool made = ledger.fd >= 0 && ftruncate(ledger.fd, kBytes) == 0 && fstat(ledger.fd, &status) == 0 &&
                    (ledger.entries = map(ledger.fd)) != nullptr;
  if (made) {
    ledger.inode = status.st_ino;
    return;
  }
  const int cause = errno;
  if (ledger.fd >= 0) close(ledger.fd);
  ledger.fd = -1;
  TORCH_CHECK(false, "Device memory cannot be shared with other processes: the system refuses a memory file (", std::strerror(cause), ").");
}

Foreign& open_foreign(Foreigners& all, const LeaseName& name) {
  const auto known = all.ledgers.find({name.pid, name.inode});
  if (known != all.ledgers.end()) return known->second;
  char path[64];
  std::snprintf(path, sizeof(path), "/proc/%d/fd/%d", name.pid, name.fd);
  Foreign ledger;
  ledger.fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  const int cause = errno;
  TORCH_CHECK(ledger.fd >= 0 || cause == ENOENT, "A tensor of process ", name.pid, " cannot be received, because ", path,
              " cannot be opened: ", std::strerror(cause), ".");
  struct stat status;
  const bool same = ledger.fd >= 0 && fstat(ledger.fd, &status) == 0 && status.st_ino == name.inode &&
                    static_cast<size_t>(status.st_size) == kBytes;
  if (same) ledger.entries = map(ledger.fd);
  const int map_cause = errno;
  if (ledger.entries == nullptr && ledger.fd >= 0) close(ledger.fd);
  TORCH_CHECK(same, "The device memory of process ", name.pid,
              " cannot be received, because that process has ended. Keep the process that sends a tensor alive until it has been received.");
  TORCH_CHECK(ledger.entries != nullptr, "A tensor of process ", name.pid, " cannot be received, because ", path,
              " cannot be mapped: ", std::strerror(map_cause), ".");
  return all.ledgers.emplace(Owner{name.pid, name.inode}, std::move(ledger)).first->second;
}

// LOCK: the foreigners' mutex.
void drop(Foreigners& all, const LeaseName& name) noexcept {
  const auto found = all.ledgers.find({name.pid, name.inode});
  if (found == all.ledgers.end()) return;
  Foreign& ledger = found->second;
  const auto held = ledger.held.find(name.entry);
  if (held != ledger.held.end() && --held->second == 0) {
    set_lock(ledger.fd, F_OFD_SETLK, name.entry, F_UNLCK);
    ledger.held.erase(held);
  }
  if (!ledger.held.empty()) return;
  munmap(ledger.entries, kBytes);
  close(ledger.fd);
  all.ledgers.erase(found);
}

}  // namespace

LeaseName begin_lease() {
  close_in_forked_children();
  Own& ledger = own();
  std::lock_guard<std::mutex> lock(ledger.mutex);
  if (ledger.fd < 0) open_own(ledger);
  uint32_t number = ledger.used;
  if (!ledger.free.empty()) {
    number = ledger.free.back();
    ledger.free.pop_back();
  } else {
    TORCH_CHECK(ledger.used < kEntries, "Other processes use ", kEntries, " pieces of this process's device memory, which is the limit.");
    ++ledger.used;
  }
  Entry& entry = ledger.entries[number];
  entry.on_their_way.store(1, std::memory_order_release);
  return {getpid(), ledger.fd, ledger.inode, number, entry.generation.load(std::memory_order_relaxed)};
}

void extend_lease(const LeaseName& name) { own().entries[name.entry].on_their_way.fetch_add(1, std::memory_order_acq_rel); }

bool try_end_lease(const LeaseName& name) {
  Own& ledger = own();
  std::lock_guard<std::mutex> lock(ledger.mutex);
  Entry& entry = ledger.entries[name.entry];
  if (entry.on_their_way.load(std::memory_order_acquire) != 0) return false;
  if (!set_lock(ledger.fd, F_OFD_SETLK, name.entry, F_WRLCK)) return false;
  entry.generation.fetch_add(1, std::memory_order_release);
  set_lock(ledger.fd, F_OFD_SETLK, name.entry, F_UNLCK);
  ledger.free.push_back(name.entry);
  return true;
}

void hold_lease(const LeaseName& name) {
  close_in_forked_children();
  Foreigners& all = foreigners();
  std::lock_guard<std::mutex> lock(all.mutex);
  Foreign& ledger = open_foreign(all, name);
  uint32_t& held = ledger.held[name.entry];
  // The owner's lock, which conflicts, is held for a moment only.
  const bool locked = held++ != 0 || set_lock(ledger.fd, F_OFD_SETLKW, name.entry, F_RDLCK);
  Entry& entry = ledger.entries[name.entry];
  if (!locked || entry.generation.load(std::memory_order_acquire) != name.generation) {
    drop(all, name);
    TORCH_CHECK(false, "The device memory that process ", name.pid, " sent has been given back: a message can be opened again only while the ",
                "first result, or another one, lives.");
  }
  uint32_t on_their_way = entry.on_their_way.load(std::memory_order_acquire);
  while (on_their_way != 0 && !entry.on_their_way.compare_exchange_weak(on_their_way, on_their_way - 1, std::memory_order_acq_rel)) {
  }
}

void drop_lease(const LeaseName& name) noexcept {
  Foreigners& all = foreigners();
  std::lock_guard<std::mutex> lock(all.mutex);
  drop(all, name);
}

}  // namespace openreg
