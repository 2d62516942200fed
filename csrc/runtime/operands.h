// What the next launch of the calling thread touches, for drivers and layers that want to know (openreg_driver.wants). Operators note their
// tensors one by one while they take their addresses; the launch hands the notes over and forgets them. Nothing but a check while
// nobody wants them.
#pragma once

#include <c10/core/ScalarType.h>
#include <c10/util/ArrayRef.h>

#include <cstdint>

#include "hal/openreg_hal.h"
#include "runtime/driver.h"
#include "runtime/export.h"

namespace openreg {

enum class Touch : uint8_t { reads, writes };

// Notes the elements at `base` (a device address, not one of the kernel view). `flags` and `token` as in openreg_operand. Only while wants_ranges().
OPENREG_API void note_operand(const void* base, c10::ScalarType type, c10::IntArrayRef sizes, c10::IntArrayRef strides, Touch touch,
                              uint32_t flags = 0, uint64_t token = 0);

// Forgets what was noted: for a call that launches nothing, or something else.
OPENREG_API void forget_operands() noexcept;

// Puts the notes into a descriptor; they live until forget_operands().
void add_operands(openreg_launch_desc* desc);

}  // namespace openreg
