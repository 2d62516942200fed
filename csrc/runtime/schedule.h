// The driver's schedule: when queued work runs, on drivers that let it be chosen while they run.
#pragma once

#include <optional>
#include <string>

#include "runtime/export.h"

namespace openreg {

// Replaces the schedule and returns the one before; nothing, and no change, while work is queued: wait for it and try again.
// Throws ValueError for a name that the driver does not know and while a stream is being captured, NotImplementedError when the driver has
// one schedule only. Any thread.
OPENREG_API std::optional<std::string> exchange_schedule(const std::string& schedule);

// The schedule that holds; empty when the driver has one only. Never throws for a driver that has started.
OPENREG_API std::string current_schedule();

}  // namespace openreg
