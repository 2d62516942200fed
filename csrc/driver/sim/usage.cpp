// usage.cpp: shares the page, and reads those of other processes through /proc.
#include "driver/sim/usage.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "driver/sim/device.h"
#include "driver/sim/futex.h"
#include "driver/sim/pages.h"
#include "driver/sim/status.h"

namespace openreg::sim {
namespace {

constexpr char kFile[] = "openreg-usage-1";
constexpr size_t kBytes = kMaxDevices * sizeof(DeviceUsage);
constexpr uint64_t kStep_ns = 1000000;
constexpr uint64_t kMaxWindow_ns = 10000000000;

ino_t own_file = 0;  // what forked children have inherited

DeviceUsage* make_page() {
  int file = memfd_create(kFile, MFD_CLOEXEC);  // stays open: /proc shows open files to the user's other processes
  struct stat info;
  if (file >= 0 && (ftruncate(file, kBytes) != 0 || fstat(file, &info) != 0)) {
    close(file);
    file = -1;
  }
  if (file >= 0) own_file = info.st_ino;
  void* page = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, file >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, file, 0);
  if (page == MAP_FAILED) return nullptr;
  hide_from_fork_and_dump(page, kBytes);  // a forked child has no device and must not write its parent's
  return static_cast<DeviceUsage*>(page);
}

// The pages of all processes that let us look, this one's first. A child that inherited its parent's has none of its own.
class Pages {
 public:
  Pages() {
    usage_page();
    seen_.insert(own_file);
    DIR* processes = opendir("/proc");
    if (processes == nullptr) return;
    while (const dirent* entry = readdir(processes)) {
      if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9') look_into(std::string("/proc/") + entry->d_name + "/fd");
    }
    closedir(processes);
  }
  ~Pages() {
    for (const DeviceUsage* page : others_) munmap(const_cast<DeviceUsage*>(page), kBytes);
  }
  Pages(const Pages&) = delete;

  template <class Visit>
  void for_each(int32_t device, Visit visit) const {
    if (const DeviceUsage* own = usage_page()) visit(own[device]);
    for (const DeviceUsage* page : others_) visit(page[device]);
  }

 private:
  void look_into(const std::string& folder) {
    DIR* files = opendir(folder.c_str());
    if (files == nullptr) return;
    while (const dirent* entry = readdir(files)) {
      const std::string path = folder + "/" + entry->d_name;
      char target[64] = "";
      if (readlink(path.c_str(), target, sizeof target - 1) > 0 && strstr(target, (std::string("/memfd:") + kFile + " ").c_str()) == target) map(path);
    }
    closedir(files);
  }

  void map(const std::string& path) {
    const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) return;
    struct stat info;
    if (fstat(file, &info) == 0 && info.st_size == static_cast<off_t>(kBytes) && seen_.insert(info.st_ino).second) {
      void* page = mmap(nullptr, kBytes, PROT_READ, MAP_SHARED, file, 0);
      if (page != MAP_FAILED) others_.push_back(static_cast<const DeviceUsage*>(page));
    }
    close(file);
  }

  std::vector<const DeviceUsage*> others_;
  std::set<ino_t> seen_;
};

bool is_busy(const Pages& pages, int32_t device) {
  bool busy = false;
  pages.for_each(device, [&](const DeviceUsage& usage) {
    busy = busy || usage.free_slots.load(std::memory_order_relaxed) < usage.slots.load(std::memory_order_relaxed);
  });
  return busy;
}

}  // namespace

DeviceUsage* usage_page() {
  static DeviceUsage* page = make_page();
  return page;
}

openreg_status device_usage(int32_t device, uint64_t window_ns, openreg_usage* usage) {
  return entry([&]() -> openreg_status {
    if (!usage || usage->struct_size < 8) return fail(OPENREG_INVALID_VALUE, "device_usage: usage is null or its struct_size is not set");
    if (window_ns > kMaxWindow_ns) return fail(OPENREG_INVALID_VALUE, "device_usage: a window is at most ten seconds long");
    if (openreg_status status = check_device("device_usage", device)) return status;
    const Pages pages;
    openreg_usage full{};
    full.struct_size = usage->struct_size;
    pages.for_each(device, [&](const DeviceUsage& found) {
      if (found.slots.load(std::memory_order_relaxed) == 0) return;
      ++full.processes;
      full.streams += static_cast<uint32_t>(std::max(0, found.streams.load(std::memory_order_relaxed)));
    });
    const uint64_t end = now_ns() + window_ns;
    uint64_t looks = 0, busy = 0;
    for (;;) {
      ++looks;
      busy += is_busy(pages, device);
      if (now_ns() + kStep_ns > end) break;
      const timespec step = {0, static_cast<long>(kStep_ns)};
      nanosleep(&step, nullptr);
    }
    full.busy_permille = static_cast<uint32_t>(busy * 1000 / looks);
    std::memcpy(usage, &full, std::min<size_t>(usage->struct_size, sizeof full));
    return OPENREG_OK;
  });
}

}  // namespace openreg::sim
