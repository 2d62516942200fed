// options.cpp: parses the options of init and asks the machine for the defaults.
#include "driver/sim/options.h"

#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "driver/sim/status.h"

namespace openreg::sim {
namespace {

constexpr uint64_t kMiB = 1u << 20, kGiB = 1u << 30;
constexpr uint64_t kMaxBytes = uint64_t{1} << 46;

// Decimal digits only. False when empty, not a number or above `max`.
bool parse_number(const char* text, uint64_t max, uint64_t* value, const char** rest) {
  const char* at = text;
  uint64_t result = 0;
  for (; *at >= '0' && *at <= '9'; ++at) {
    const uint64_t digit = static_cast<uint64_t>(*at - '0');
    if (result > (max - digit) / 10) return false;
    result = result * 10 + digit;
  }
  if (at == text) return false;
  *value = result;
  *rest = at;
  return true;
}

bool parse_integer(const char* text, uint64_t max, uint64_t* value) {
  const char* rest;
  return parse_number(text, max, value, &rest) && *rest == 0;
}

bool parse_bytes(const char* text, uint64_t* bytes) {
  static constexpr struct {
    const char* suffix;
    uint64_t scale;
  } kScales[] = {{"", 1},       {"B", 1},         {"KiB", 1u << 10}, {"MiB", kMiB},       {"GiB", kGiB}, {"TiB", kGiB << 10},
                 {"kB", 1000},  {"KB", 1000},     {"MB", 1000000},   {"GB", 1000000000u}, {"TB", 1000000000000u}};
  uint64_t number;
  const char* rest;
  if (!parse_number(text, kMaxBytes, &number, &rest)) return false;
  for (const auto& scale : kScales) {
    if (strcmp(rest, scale.suffix) != 0) continue;
    if (number == 0 || number > kMaxBytes / scale.scale) return false;
    *bytes = number * scale.scale;
    return true;
  }
  return false;
}

// The number in a file like memory.max; UINT64_MAX for "max" or when there is none.
uint64_t read_limit(const std::string& path) {
  FILE* file = fopen(path.c_str(), "re");
  if (!file) return UINT64_MAX;
  char line[64] = "";
  const bool read = fgets(line, sizeof line, file) != nullptr;
  fclose(file);
  uint64_t value;
  const char* rest;
  return read && parse_number(line, UINT64_MAX, &value, &rest) ? value : UINT64_MAX;
}

// The least limit from a cgroup up to the root of its hierarchy.
uint64_t least_limit(const std::string& root, std::string group, const char* file) {
  uint64_t least = UINT64_MAX;
  for (;;) {
    least = std::min(least, read_limit(root + group + "/" + file));
    const size_t slash = group.rfind('/');
    if (slash == std::string::npos) return least;
    group.resize(slash);
  }
}

uint64_t cgroup_limit_bytes() {
  uint64_t least = UINT64_MAX;
  FILE* file = fopen("/proc/self/cgroup", "re");
  if (!file) return least;
  char line[4096];
  while (fgets(line, sizeof line, file)) {
    line[strcspn(line, "\n")] = 0;
    const char* controllers = strchr(line, ':');
    const char* group = controllers ? strchr(controllers + 1, ':') : nullptr;
    if (!group) continue;
    const std::string names(controllers + 1, group);
    ++group;
    if (names.empty())
      least = std::min(least, least_limit("/sys/fs/cgroup", group, "memory.max"));
    else if (("," + names + ",").find(",memory,") != std::string::npos)
      least = std::min(least, least_limit("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes"));
  }
  fclose(file);
  return least;
}

}  // namespace

bool is_option(const char* key) {
  for (const char* known : {"devices", "memory", "schedule", "schedule_log", "queue_bytes", "compute_units", "kernel_view"})
    if (strcmp(key, known) == 0) return true;
  return false;
}

bool parse_schedule(const char* text, Options* options) {
  if (strcmp(text, "eager") == 0) return options->schedule = Schedule::eager, true;
  if (strcmp(text, "lazy") == 0) return options->schedule = Schedule::lazy, true;
  if (strncmp(text, "random:", 7) == 0 && parse_integer(text + 7, UINT64_MAX, &options->seed))
    return options->schedule = Schedule::random, true;
  return false;
}

int32_t available_cpus() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return static_cast<int32_t>(std::max(1L, sysconf(_SC_NPROCESSORS_ONLN)));
}

uint64_t available_memory_bytes() {
  uint64_t least = static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  least = std::min(least, cgroup_limit_bytes());
  rlimit limit;
  if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) least = std::min<uint64_t>(least, limit.rlim_cur);
  return least;
}

openreg_status parse_options(const openreg_option* given, size_t count, Options* options) {
  Options parsed;
  parsed.compute_units = available_cpus();
  if (count && !given) return fail(OPENREG_INVALID_VALUE, "init: options is null but count is %zu", count);
  for (size_t i = 0; i < count; ++i) {
    const char* key = given[i].key;
    const char* value = given[i].value;
    if (!key || !value) return fail(OPENREG_INVALID_VALUE, "init: option %zu has a null key or value", i);
    uint64_t number = 0;
    if (strcmp(key, "devices") == 0) {
      if (!parse_integer(value, kMaxDevices, &number) || number == 0)
        return fail(OPENREG_INVALID_VALUE, "option devices: '%s' is not a number from 1 to %d", value, kMaxDevices);
      parsed.devices = static_cast<int32_t>(number);
    } else if (strcmp(key, "memory") == 0) {
      if (!parse_bytes(value, &parsed.memory_bytes))
        return fail(OPENREG_INVALID_VALUE,
                    "option memory: '%s' is not a size; write bytes, or a number with KiB, MiB, GiB, TiB, KB, MB, GB or TB", value);
    } else if (strcmp(key, "kernel_view") == 0) {
      if (strcmp(value, "on") != 0 && strcmp(value, "off") != 0)
        return fail(OPENREG_INVALID_VALUE, "option kernel_view: '%s' is not on or off", value);
      parsed.kernel_view = value[1] == 'n';
    } else if (strcmp(key, "schedule") == 0) {
      if (!parse_schedule(value, &parsed))
        return fail(OPENREG_INVALID_VALUE, "option schedule: '%s' is not eager, lazy or random:SEED", value);
    } else if (strcmp(key, "schedule_log") == 0) {
      parsed.schedule_log = value;
    } else if (strcmp(key, "queue_bytes") == 0) {
      if (!parse_bytes(value, &number) || number < 4096 || number > kGiB)
        return fail(OPENREG_INVALID_VALUE, "option queue_bytes: '%s' is not a size from 4KiB to 1GiB", value);
      parsed.queue_bytes = 4096;
      while (parsed.queue_bytes < number) parsed.queue_bytes *= 2;
    } else if (strcmp(key, "compute_units") == 0) {
      if (!parse_integer(value, 4096, &number) || number == 0)
        return fail(OPENREG_INVALID_VALUE, "option compute_units: '%s' is not a number from 1 to 4096", value);
      parsed.compute_units = static_cast<int32_t>(number);
    } else {
      return fail(OPENREG_INVALID_VALUE,
                  "unknown option '%s'; the simulator knows devices, memory, schedule, schedule_log, queue_bytes, compute_units and kernel_view", key);
    }
  }
  if (parsed.memory_bytes == 0) {
    const uint64_t share = available_memory_bytes() / 2 / static_cast<uint64_t>(parsed.devices);
    parsed.memory_bytes = std::clamp<uint64_t>(share - std::min(share, kMiB), 16 * kMiB, 16 * kGiB - 2 * kMiB);
  }
  const uint64_t page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  parsed.memory_bytes = std::max(parsed.memory_bytes / page, uint64_t{1}) * page;
  *options = parsed;
  return OPENREG_OK;
}

}  // namespace openreg::sim
