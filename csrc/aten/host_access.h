// Watching the host: operators of the CPU on pinned memory that copies of a device may still use.
#pragma once

#include "runtime/export.h"

namespace openreg {

// From the first call on, while the sanitizer looks for races, operators of the CPU are watched. Nothing while it is off. Hot.
void watch_host_operators();

// Ends that: the sanitizer was switched off.
OPENREG_API void stop_watching_host_operators();

}  // namespace openreg
