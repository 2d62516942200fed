// What the hooks have learnt of core.
#pragma once

namespace openreg {

// The intra-op threads of the thread that began the latest backward with work on a device; 0 before the first one. Any thread.
int threads_of_backward() noexcept;

}  // namespace openreg
