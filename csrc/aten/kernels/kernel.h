// What every device kernel of this folder is: a function over plain pointers and sizes, without PyTorch, of the form that
// driver/sim/sim_kernel.h runs. A driver for real hardware gives its own image for the same name.
//
// Rules of the folder. Pointers in argument blocks are kernel-view addresses of contiguous arrays; the number of elements is
// in the block, so the grid may be rounded up. An output may be exactly one of the inputs; any other overlap is the caller's
// mistake. Kernels do not allocate, fail or keep state. Files are compiled with -ffp-contract=off: a product and a sum round
// separately unless std::fma is written, so values do not depend on the instruction set.
#pragma once

#include <cstdint>

#include "hal/openreg_hal.h"

namespace openreg::kernels {

using Function = void (*)(const openreg_geometry*, const void*);

// Element types. The numbers are those of c10::ScalarType (aten/native_op.h asserts it).
enum class DType : uint8_t { u8 = 0, i8, i16, i32, i64, f16, f32, f64, c64 = 9, c128, boolean, bf16 = 15 };
constexpr int kDTypes = 16;

// A scalar operand: `f` for floating element types, `i` for integral ones.
union Value {
  double f;
  int64_t i;
};

}  // namespace openreg::kernels

// Before a kernel: compiled for AVX2 machines as well, chosen when the library is loaded. Empty where compilers cannot do it,
// and under sanitizers, whose runtime is not there yet when the choice is made.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12 && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define OPENREG_VECTOR __attribute__((target_clones("arch=x86-64-v3", "default")))
#else
#define OPENREG_VECTOR
#endif

// Before a loop whose iterations touch only their own index: exact aliasing is harmless.
#if defined(__clang__)
#define OPENREG_LOOP _Pragma("clang loop vectorize(assume_safety)")
#else
#define OPENREG_LOOP _Pragma("GCC ivdep")
#endif
