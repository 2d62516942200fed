// process.cpp: finds mappings of device memory in /proc. The file behind a segment has the device's number in its name.
#include "driver/sim/process.h"

#include <dirent.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "driver/sim/device.h"
#include "driver/sim/pages.h"
#include "driver/sim/status.h"

namespace openreg::sim {
namespace {

// 0 also when the system does not let us look.
uint64_t mapped_bytes(const std::string& pid, const std::string& file) {
  FILE* maps = fopen(("/proc/" + pid + "/maps").c_str(), "re");
  if (!maps) return 0;
  uint64_t total = 0;
  char* line = nullptr;
  size_t room = 0;
  while (getline(&line, &room, maps) > 0) {
    unsigned long long begin, end;
    if (strstr(line, file.c_str()) && sscanf(line, "%llx-%llx", &begin, &end) == 2) total += end - begin;
  }
  free(line);
  fclose(maps);
  return total;
}

}  // namespace

openreg_status device_processes(int32_t device, openreg_process* processes, uint32_t* count) {
  return entry([&]() -> openreg_status {
    if (!count || (*count != 0 && !processes)) return fail(OPENREG_INVALID_VALUE, "device_processes: processes or count is null");
    if (openreg_status status = check_device("device_processes", device)) return status;
    DIR* directory = opendir("/proc");
    if (!directory) return fail(OPENREG_UNSUPPORTED, "device_processes: /proc cannot be read");
    const std::string file = "/memfd:" + memory_file_name(device) + " ";
    std::vector<openreg_process> found;
    while (const dirent* entry = readdir(directory)) {
      const int64_t pid = atoll(entry->d_name);
      if (pid <= 0) continue;
      if (const uint64_t bytes = mapped_bytes(entry->d_name, file)) found.push_back({pid, bytes});
    }
    closedir(directory);
    for (size_t i = 0; i < found.size() && i < *count; ++i) processes[i] = found[i];
    *count = static_cast<uint32_t>(found.size());
    return OPENREG_OK;
  });
}

}  // namespace openreg::sim
