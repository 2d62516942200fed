// Unary operators on contiguous arrays. Integers wrap; NaN passes through relu, whose zero keeps its sign, as on the CPU.
#include "aten/kernels/unary.h"

#include <cmath>
#include <type_traits>

#include "aten/kernels/half.h"

namespace openreg::kernels {
namespace {

struct Neg {
  template <class T>
  static T apply(T x) {
    if constexpr (std::is_integral_v<T>) {
      return static_cast<T>(0 - static_cast<std::make_unsigned_t<T>>(x));
    } else {
      return -x;
    }
  }
};

struct Abs {
  template <class T>
  static T apply(T x) {
    if constexpr (std::is_integral_v<T>) {
      return x < 0 ? Neg::apply(x) : x;
    } else {
      return std::fabs(x);
    }
  }
};

struct Relu {
  template <class T>
  static T apply(T x) {
    return x < T(0) ? T(0) : x;
  }
};

struct Sqrt {
  template <class T>
  static T apply(T x) {
    return std::sqrt(x);
  }
};

struct Rsqrt {
  template <class T>
  static T apply(T x) {
    return T(1) / std::sqrt(x);
  }
};

struct Reciprocal {
  template <class T>
  static T apply(T x) {
    return T(1) / x;
  }
};

template <class Op, class T>
OPENREG_VECTOR void unary(const openreg_geometry*, const void* raw) {
  const auto& args = *static_cast<const UnaryArgs*>(raw);
  T* out = static_cast<T*>(args.out);
  const T* in = static_cast<const T*>(args.in);
  const uint64_t count = args.count;
  OPENREG_LOOP
  for (uint64_t i = 0; i < count; ++i) out[i] = Store<T>::from(Op::apply(load(in[i])));
}

template <class Op>
Function any_dtype(DType dtype) {
  switch (dtype) {
    case DType::f32: return unary<Op, float>;
    case DType::f64: return unary<Op, double>;
    case DType::f16: return unary<Op, Half>;
    case DType::bf16: return unary<Op, BFloat16>;
    case DType::i32: return unary<Op, int32_t>;
    case DType::i64: return unary<Op, int64_t>;
    default: return nullptr;
  }
}

template <class Op>
Function float_dtype(DType dtype) {
  switch (dtype) {
    case DType::f32: return unary<Op, float>;
    case DType::f64: return unary<Op, double>;
    default: return nullptr;
  }
}

}  // namespace

Function unary_kernel(UnaryOp op, DType dtype) {
  switch (op) {
    case UnaryOp::neg: return any_dtype<Neg>(dtype);
    case UnaryOp::abs: return any_dtype<Abs>(dtype);
    case UnaryOp::relu: return any_dtype<Relu>(dtype);
    case UnaryOp::sqrt: return float_dtype<Sqrt>(dtype);
    case UnaryOp::rsqrt: return float_dtype<Rsqrt>(dtype);
    case UnaryOp::reciprocal: return float_dtype<Reciprocal>(dtype);
  }
  return nullptr;
}

}  // namespace openreg::kernels
