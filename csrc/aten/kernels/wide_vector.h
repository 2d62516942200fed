// Before a kernel whose arithmetic takes longer than its memory accesses: compiled for AVX-512 machines besides what OPENREG_VECTOR does.
#pragma once

#include "aten/kernels/kernel.h"

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12 && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define OPENREG_WIDE_VECTOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define OPENREG_WIDE_VECTOR
#endif
