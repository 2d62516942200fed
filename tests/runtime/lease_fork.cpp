// One thread takes and drops leases all the time while the main thread forks: each child must be without the ledgers' descriptors, and the
// parent keep them. Prints "ok".
#include <dirent.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

#include "runtime/lease.h"

namespace {

int ledgers_open() {
  int count = 0;
  DIR* folder = opendir("/proc/self/fd");
  while (const dirent* entry = readdir(folder)) {
    char target[256] = "";
    const std::string path = std::string("/proc/self/fd/") + entry->d_name;
    if (readlink(path.c_str(), target, sizeof(target) - 1) > 0 && std::strstr(target, "openreg-leases") != nullptr) ++count;
  }
  closedir(folder);
  return count;
}

}  // namespace

int main(int, char** arguments) {
  const openreg::LeaseName kept = openreg::begin_lease();
  openreg::hold_lease(kept);  // this process is also a receiver
  const openreg::LeaseName name = openreg::begin_lease();
  std::atomic<bool> stop{false};
  std::thread busy([&] {
    while (!stop) {
      openreg::extend_lease(name);
      openreg::hold_lease(name);
      openreg::drop_lease(name);
    }
  });
  int wrong = 0;
  for (int left = std::atoi(arguments[1]); left > 0; --left) {
    const pid_t child = fork();
    if (child == 0) _exit(ledgers_open());
    int status = 0;
    waitpid(child, &status, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) ++wrong;
  }
  stop = true;
  busy.join();
  if (ledgers_open() != 2 || openreg::try_end_lease(kept)) ++wrong;
  openreg::drop_lease(kept);
  if (!openreg::try_end_lease(kept)) ++wrong;
  std::puts(wrong == 0 ? "ok" : "wrong");
  return wrong == 0 ? 0 : 1;
}
