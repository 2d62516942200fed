// Watching the host: operators of the CPU on pinned memory that copies of a device may still use.
#pragma once

namespace openreg {

// From the first call on, while the sanitizer looks for races, operators of the CPU are watched. Nothing while it is off. Hot.
void watch_host_operators();

}  // namespace openreg
