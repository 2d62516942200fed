// Loops over lists of contiguous arrays. Values are rounded as the CPU's kernels of the single operators round them.
#include "aten/kernels/foreach.h"

#include <cmath>

namespace openreg::kernels {
namespace {

struct AddScalar {
  static constexpr int operands = 0;
  template <class T>
  static T apply(T self, T, T, T scalar) { return self + scalar; }
};

struct MulScalar {
  static constexpr int operands = 0;
  template <class T>
  static T apply(T self, T, T, T scalar) { return self * scalar; }
};

struct DivScalar {
  static constexpr int operands = 0;
  template <class T>
  static T apply(T self, T, T, T scalar) { return self / scalar; }
};

struct Sqrt {
  static constexpr int operands = 0;
  template <class T>
  static T apply(T self, T, T, T) { return std::sqrt(self); }
};

struct AddScaled {
  static constexpr int operands = 1;
  template <class T>
  static T apply(T self, T a, T, T scalar) { return std::fma(a, scalar, self); }
};

struct Mul {
  static constexpr int operands = 1;
  template <class T>
  static T apply(T self, T a, T, T) { return self * a; }
};

struct Div {
  static constexpr int operands = 1;
  template <class T>
  static T apply(T self, T a, T, T) { return self / a; }
};

struct Lerp {
  static constexpr int operands = 1;
  template <class T>
  static T apply(T self, T end, T, T weight) {
    const bool near = std::fabs(weight) < T(0.5);
    return std::fma(near ? weight : weight - T(1), end - self, near ? self : end);
  }
};

struct Addcmul {
  static constexpr int operands = 2;
  template <class T>
  static T apply(T self, T a, T b, T scalar) { return std::fma(scalar * a, b, self); }
};

struct Addcdiv {
  static constexpr int operands = 2;
  template <class T>
  static T apply(T self, T a, T b, T scalar) { return self + scalar * a / b; }
};

template <class Op, class T>
OPENREG_VECTOR void foreach(const openreg_geometry*, const void* raw) {
  const auto& args = *static_cast<const ForeachArgs<1>*>(raw);
  for (uint64_t n = 0; n < args.entries; ++n) {
    const ForeachEntry& entry = args.entry[n];
    T* out = static_cast<T*>(entry.out);
    const T* self = static_cast<const T*>(entry.self);
    [[maybe_unused]] const T* a = static_cast<const T*>(entry.a);
    [[maybe_unused]] const T* b = static_cast<const T*>(entry.b);
    const T scalar = static_cast<T>(entry.scalar);
    const uint64_t count = entry.count;
    OPENREG_LOOP
    for (uint64_t i = 0; i < count; ++i) {
      T left = T(), right = T();
      if constexpr (Op::operands > 0) left = a[i];
      if constexpr (Op::operands > 1) right = b[i];
      out[i] = Op::apply(self[i], left, right, scalar);
    }
  }
}

template <class T>
Function of_dtype(ForeachOp op) {
  switch (op) {
    case ForeachOp::add_scalar: return foreach<AddScalar, T>;
    case ForeachOp::mul_scalar: return foreach<MulScalar, T>;
    case ForeachOp::div_scalar: return foreach<DivScalar, T>;
    case ForeachOp::sqrt: return foreach<Sqrt, T>;
    case ForeachOp::add_scaled: return foreach<AddScaled, T>;
    case ForeachOp::mul: return foreach<Mul, T>;
    case ForeachOp::div: return foreach<Div, T>;
    case ForeachOp::lerp: return foreach<Lerp, T>;
    case ForeachOp::addcmul: return foreach<Addcmul, T>;
    case ForeachOp::addcdiv: return foreach<Addcdiv, T>;
  }
  return nullptr;
}

}  // namespace

Function foreach_kernel(ForeachOp op, DType dtype) {
  switch (dtype) {
    case DType::f32: return of_dtype<float>(op);
    case DType::f64: return of_dtype<double>(op);
    default: return nullptr;
  }
}

}  // namespace openreg::kernels
