// Registering the engine with the dispatcher.
#pragma once

#include "runtime/export.h"

namespace openreg {

// Registers the engine for the operators that have no kernel of this library but would not reach the fallback. Once, at load, after
// the static registrations.
OPENREG_API void register_engine();

}  // namespace openreg
