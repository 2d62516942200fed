// Operators and record_function ranges as trace records, on the threads that run them.
#pragma once

#include "runtime/export.h"

namespace openreg {

// From now on every operator, backward node and record_function range of any thread gives a record of kind kTraceRange to whoever traces, when it
// ends. Starts the driver, whose clock the times are on. Calls nest: as many ends as begins. Any thread.
OPENREG_API void begin_ranges();
OPENREG_API void end_ranges();

}  // namespace openreg
