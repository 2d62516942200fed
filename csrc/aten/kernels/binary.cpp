// Binary operators on contiguous arrays and scalars. Integers wrap. 16-bit floats compute in float: a scalar factor or divisor keeps
// float precision, a scalar summand or comparand is rounded to the element type first, as on the CPU.
#include "aten/kernels/binary.h"

#include <cmath>
#include <type_traits>

#include "aten/kernels/half.h"

namespace openreg::kernels {
namespace {

// Integer arithmetic in the unsigned type, where wrapping is defined.
template <class T, bool = std::is_integral_v<T>>
struct wrapping {
  using type = T;
};
template <class T>
struct wrapping<T, true> {
  using type = std::make_unsigned_t<T>;
};
template <class T>
using wrapping_t = typename wrapping<T>::type;

struct Add {
  static constexpr bool rounds_scalar = true;
  template <class T>
  static T apply(T a, T b, T) {
    return static_cast<T>(static_cast<wrapping_t<T>>(a) + static_cast<wrapping_t<T>>(b));
  }
};

struct Sub {
  static constexpr bool rounds_scalar = true;
  template <class T>
  static T apply(T a, T b, T) {
    return static_cast<T>(static_cast<wrapping_t<T>>(a) - static_cast<wrapping_t<T>>(b));
  }
};

struct AddScaled {
  static constexpr bool rounds_scalar = true;
  template <class T>
  static T apply(T a, T b, T alpha) {
    if constexpr (std::is_integral_v<T>) {
      return static_cast<T>(static_cast<wrapping_t<T>>(a) + static_cast<wrapping_t<T>>(b) * static_cast<wrapping_t<T>>(alpha));
    } else {
      return std::fma(b, alpha, a);
    }
  }
};

struct Mul {
  static constexpr bool rounds_scalar = false;
  template <class T>
  static T apply(T a, T b, T) {
    return static_cast<T>(static_cast<wrapping_t<T>>(a) * static_cast<wrapping_t<T>>(b));
  }
};

struct Div {
  static constexpr bool rounds_scalar = false;
  template <class T>
  static T apply(T a, T b, T) {
    return a / b;
  }
};

struct ThresholdBackward {
  static constexpr bool rounds_scalar = true;
  template <class T>
  static T apply(T gradient, T x, T threshold) {
    return x <= threshold ? T(0) : gradient;
  }
};

#define OPENREG_COMPARISON(Name, op)         \
  struct Name {                              \
    static constexpr bool rounds_scalar = true; \
    template <class T>                       \
    static bool apply(T a, T b, T) {         \
      return a op b;                         \
    }                                        \
  };
OPENREG_COMPARISON(Eq, ==)
OPENREG_COMPARISON(Ne, !=)
OPENREG_COMPARISON(Lt, <)
OPENREG_COMPARISON(Le, <=)
OPENREG_COMPARISON(Gt, >)
OPENREG_COMPARISON(Ge, >=)
#undef OPENREG_COMPARISON

template <class T, bool round>
inline arithmetic_t<T> scalar_as(Value value) {
  if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(value.i);
  } else if constexpr (round) {
    return load(Store<T>::from(value.f));
  } else {
    return static_cast<arithmetic_t<T>>(value.f);
  }
}

template <class Op, BinaryForm form, class T>
OPENREG_VECTOR void binary(const openreg_geometry*, const void* raw) {
  using C = arithmetic_t<T>;
  constexpr bool compares = std::is_same_v<decltype(Op::apply(C(), C(), C())), bool> && !std::is_same_v<C, bool>;
  using Out = std::conditional_t<compares, bool, T>;
  const auto& args = *static_cast<const BinaryArgs*>(raw);
  Out* out = static_cast<Out*>(args.out);
  const T* a = static_cast<const T*>(args.a);
  const T* b = static_cast<const T*>(args.b);
  const uint64_t count = args.count;
  const C scalar = scalar_as<T, Op::rounds_scalar>(args.scalar);
  [[maybe_unused]] const C alpha = std::is_same_v<Op, ThresholdBackward> ? scalar : scalar_as<T, false>(args.alpha);
  OPENREG_LOOP
  for (uint64_t i = 0; i < count; ++i) {
    const C left = form == BinaryForm::left_scalar ? scalar : load(a[i]);
    const C right = form == BinaryForm::right_scalar ? scalar : load(b[i]);
    out[i] = Store<Out>::from(Op::apply(left, right, alpha));
  }
}

template <class Op, class T>
Function commutative(BinaryForm form) {
  switch (form) {
    case BinaryForm::tensors: return binary<Op, BinaryForm::tensors, T>;
    case BinaryForm::right_scalar: return binary<Op, BinaryForm::right_scalar, T>;
    case BinaryForm::left_scalar: return nullptr;
  }
  return nullptr;
}

template <class Op, class T>
Function ordered(BinaryForm form) {
  return form == BinaryForm::left_scalar ? binary<Op, BinaryForm::left_scalar, T> : commutative<Op, T>(form);
}

template <class T>
Function of_dtype(BinaryOp op, BinaryForm form) {
  constexpr bool integral = std::is_integral_v<T>;
  constexpr bool reduced = sizeof(T) == 2;
  switch (op) {
    case BinaryOp::add: return commutative<Add, T>(form);
    case BinaryOp::sub: return ordered<Sub, T>(form);
    case BinaryOp::add_scaled:
      if constexpr (!reduced) {
        if (form == BinaryForm::tensors) return binary<AddScaled, BinaryForm::tensors, T>;
      }
      return nullptr;
    case BinaryOp::mul: return commutative<Mul, T>(form);
    case BinaryOp::div:
      if constexpr (!integral) return ordered<Div, T>(form);
      return nullptr;
    case BinaryOp::eq: return commutative<Eq, T>(form);
    case BinaryOp::ne: return commutative<Ne, T>(form);
    case BinaryOp::lt: return commutative<Lt, T>(form);
    case BinaryOp::le: return commutative<Le, T>(form);
    case BinaryOp::gt: return commutative<Gt, T>(form);
    case BinaryOp::ge: return commutative<Ge, T>(form);
    case BinaryOp::threshold_backward:
      if constexpr (!integral) {
        if (form == BinaryForm::tensors) return binary<ThresholdBackward, BinaryForm::tensors, T>;
      }
      return nullptr;
  }
  return nullptr;
}

}  // namespace

Function binary_kernel(BinaryOp op, BinaryForm form, DType dtype) {
  switch (dtype) {
    case DType::f32: return of_dtype<float>(op, form);
    case DType::f64: return of_dtype<double>(op, form);
    case DType::i32: return of_dtype<int32_t>(op, form);
    case DType::i64: return of_dtype<int64_t>(op, form);
    case DType::f16: return of_dtype<Half>(op, form);
    case DType::bf16: return of_dtype<BFloat16>(op, form);
    default: return nullptr;
  }
}

}  // namespace openreg::kernels
