// Softmax by rows: the largest value, the exponentials and their sum, and the quotients. A row stays in the cache between the passes.
#include "aten/kernels/softmax.h"

#include <array>
#include <limits>

#include "aten/kernels/elementary.h"
#include "aten/kernels/half.h"
#include "aten/kernels/lanes.h"
#include "aten/kernels/wide_vector.h"

namespace openreg::kernels {
namespace {

// The inverse factorials, the largest first: with 7 powers for float, what is left out is below a unit in the last place.
template <class T>
struct Series {
  static constexpr int size = sizeof(T) == 4 ? 8 : Format<T>::exp_terms + 1;
  static constexpr std::array<T, size> coefficients = [] {
    std::array<T, size> values{};
    double factorial = 1;
    for (int n = 0; n < size; ++n) {
      if (n > 1) factorial *= n;
      values[size - 1 - n] = static_cast<T>(1 / factorial);
    }
    return values;
  }();
};

// e^x for x <= 0; 0 where the result is no normal number.
template <class T>
inline T exp_negative(T x) {
  using F = Format<T>;
  using Bits = typename F::Bits;
  using Int = typename F::Int;
  constexpr T lowest = T(1 - F::bias) * static_cast<T>(0.69314718055994530942);
  const T bounded = x < lowest ? lowest : x;
  const T sum = bounded * static_cast<T>(1.44269504088896340736) + F::shifter;
  const T whole = sum - F::shifter;
  const T rest = (bounded - whole * F::ln2_high) - whole * F::ln2_low;
  T series = Series<T>::coefficients[0];
#pragma GCC unroll 16
  for (int i = 1; i < Series<T>::size; ++i) series = series * rest + Series<T>::coefficients[i];
  const Int k = static_cast<Int>(std::bit_cast<Bits>(sum)) - std::bit_cast<Int>(F::shifter);
  const T factor = std::bit_cast<T>(static_cast<Bits>(k + F::bias) << F::mantissa_bits);
  return x < lowest ? T(0) : series * factor;
}

template <class T>
inline T log_of_sum(T sum) {
  return sum == sum ? log_positive(sum) : sum;
}

// out[i] = e^(in[i] - largest) / sum. Elements of 16 bits cannot hold the exponentials between the passes: they are computed twice.
template <class T, class In>
inline void write_quotients(T* out, uint64_t columns, arithmetic_t<T> largest, In in) {
  using A = arithmetic_t<T>;
  if constexpr (std::is_same_v<T, A>) {
    const A sum = sum_row<A>(columns, [&](uint64_t i) { return out[i] = exp_negative(in(i) - largest); });
    const A scale = A(1) / sum;
    OPENREG_LOOP
    for (uint64_t i = 0; i < columns; ++i) out[i] *= scale;
  } else {
    const A sum = sum_row<A>(columns, [&](uint64_t i) { return exp_negative(in(i) - largest); });
    const A scale = A(1) / sum;
    OPENREG_LOOP
    for (uint64_t i = 0; i < columns; ++i) out[i] = Store<T>::from(exp_negative(in(i) - largest) * scale);
  }
}

template <SoftmaxOp op, class T>
OPENREG_WIDE_VECTOR void softmax(const openreg_geometry*, const void* raw) {
  using A = arithmetic_t<T>;
  constexpr A least = -std::numeric_limits<A>::infinity();
  const auto& args = *static_cast<const SoftmaxArgs*>(raw);
  const uint64_t columns = args.columns;
  for (uint64_t row = 0; row < args.rows; ++row) {
    const T* values = static_cast<const T*>(args.in) + row * columns;
    T* out = static_cast<T*>(args.out) + row * columns;
    const auto in = [&](uint64_t i) { return static_cast<A>(load(values[i])); };
    const A largest = max_row<A>(columns, least, in);
    if constexpr (op == SoftmaxOp::log_softmax) {
      const A shift = log_of_sum(sum_row<A>(columns, [&](uint64_t i) { return exp_negative(in(i) - largest); }));
      OPENREG_LOOP
      for (uint64_t i = 0; i < columns; ++i) out[i] = Store<T>::from((in(i) - largest) - shift);
    } else {
      if (op == SoftmaxOp::safe_softmax && largest == least && max_row<A>(columns, A(0), [&](uint64_t i) { return A(in(i) == least ? 0 : 1); }) == A(0)) {
        for (uint64_t i = 0; i < columns; ++i) out[i] = Store<T>::from(A(0));
        continue;
      }
      write_quotients(out, columns, largest, in);
    }
  }
}

template <class T>
OPENREG_WIDE_VECTOR void masked_softmax(const openreg_geometry*, const void* raw) {
  using A = arithmetic_t<T>;
  constexpr A least = -std::numeric_limits<A>::infinity();
  const auto& args = *static_cast<const MaskedSoftmaxArgs*>(raw);
  const T masked = Store<T>::from(least);
  const uint64_t columns = args.columns;
  for (uint64_t row = 0; row < args.rows; ++row) {
    const T* values = static_cast<const T*>(args.in) + row * columns;
    T* out = static_cast<T*>(args.out) + row * columns;
    const uint8_t* mask = args.mask + row / args.rows_per_mask % args.masks * columns;
    // In a pass of its own, because bytes beside floats keep the compiler from vector code.
    OPENREG_LOOP
    for (uint64_t i = 0; i < columns; ++i) out[i] = mask[i] != 0 ? masked : values[i];
    const auto in = [&](uint64_t i) { return static_cast<A>(load(out[i])); };
    write_quotients(out, columns, max_row<A>(columns, least, in), in);
  }
}

template <SoftmaxOp op>
Function forward_of(DType dtype) {
  switch (dtype) {
    case DType::f32: return softmax<op, float>;
    case DType::f64: return softmax<op, double>;
    case DType::f16: return softmax<op, Half>;
    case DType::bf16: return softmax<op, BFloat16>;
    default: return nullptr;
  }
}

}  // namespace

Function softmax_kernel(SoftmaxOp op, DType dtype) {
  switch (op) {
    case SoftmaxOp::softmax: return forward_of<SoftmaxOp::softmax>(dtype);
    case SoftmaxOp::log_softmax: return forward_of<SoftmaxOp::log_softmax>(dtype);
    case SoftmaxOp::safe_softmax: return forward_of<SoftmaxOp::safe_softmax>(dtype);
  }
  return nullptr;
}

Function masked_softmax_kernel(DType dtype) {
  switch (dtype) {
    case DType::f32: return masked_softmax<float>;
    case DType::f64: return masked_softmax<double>;
    case DType::f16: return masked_softmax<Half>;
    case DType::bf16: return masked_softmax<BFloat16>;
    default: return nullptr;
  }
}

}  // namespace openreg::kernels
