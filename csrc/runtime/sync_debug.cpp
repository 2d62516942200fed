// Sync debug mode.
#include "runtime/sync_debug.h"

#include <c10/util/Exception.h>

namespace openreg {

std::atomic<int> current_sync_debug_mode{0};

void set_sync_debug_mode(SyncDebugMode mode) noexcept { current_sync_debug_mode = static_cast<int>(mode); }
SyncDebugMode sync_debug_mode() noexcept { return static_cast<SyncDebugMode>(current_sync_debug_mode.load()); }

void before_host_wait_slow(const char* name) {
  constexpr const char* kText = " makes the host wait for the device, and torch.openreg.set_sync_debug_mode() asked to be told.";
  TORCH_CHECK(sync_debug_mode() != SyncDebugMode::error, name, kText);
  TORCH_WARN(name, kText);
}

}  // namespace openreg
