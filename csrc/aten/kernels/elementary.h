// log, exp and sine/cosine from IEEE sums, products, quotients and bit operations only, so that random numbers are the same bits on
// every machine and loops over them become vector code. Errors are at most a few units in the last place on the stated domains.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

namespace openreg::kernels {

template <class T>
struct Format;

template <>
struct Format<float> {
  using Bits = uint32_t;
  using Int = int32_t;
  static constexpr int mantissa_bits = 23, bias = 127;
  static constexpr int log_terms = 5, sine_terms = 5, exp_terms = 8;
  static constexpr float shifter = 0x1.8p23f;
  static constexpr float ln2_high = 0x1.62e4p-1f, ln2_low = 0x1.7f7d1cp-20f;
};

template <>
struct Format<double> {
  using Bits = uint64_t;
  using Int = int64_t;
  static constexpr int mantissa_bits = 52, bias = 1023;
  static constexpr int log_terms = 11, sine_terms = 9, exp_terms = 14;
  static constexpr double shifter = 0x1.8p52;
  static constexpr double ln2_high = 0x1.62e42fefa38p-1, ln2_low = 0x1.ef35793c7673p-45;
};

// Natural logarithm of a positive normal number.
template <class T>
inline T log_positive(T x) {
  using F = Format<T>;
  using Bits = typename F::Bits;
  using Int = typename F::Int;
  // x = m * 2^e with m in [sqrt(1/2), sqrt(2)); log m = 2 atanh(s), s = (m - 1) / (m + 1).
  constexpr Bits half_root = std::bit_cast<Bits>(static_cast<T>(0.70710678118654752440));
  const Bits bits = std::bit_cast<Bits>(x);
  const Bits shifted = (bits - half_root) & ~((Bits(1) << F::mantissa_bits) - 1);
  const T m = std::bit_cast<T>(bits - shifted);
  // The exponent as a number without an integer conversion: it lies in the low bits of a big constant.
  const Int e_bits = static_cast<Int>(shifted) >> F::mantissa_bits;
  const T e = std::bit_cast<T>(static_cast<Bits>(std::bit_cast<Int>(F::shifter) + e_bits)) - F::shifter;
  const T s = (m - T(1)) / (m + T(1));
  const T square = s * s;
  T sum = T(1) / T(2 * F::log_terms - 1);
  for (int k = F::log_terms - 2; k >= 1; --k) sum = sum * square + T(1) / T(2 * k + 1);
  const T tail = T(2) * s * square * sum;
  return e * F::ln2_high + (T(2) * s + (tail + e * F::ln2_low));
}

// sin and cos of 2 * pi * turns, for |turns| below 2^20.
template <class T>
inline void sine_cosine_turns(T turns, T* sine, T* cosine) {
  using F = Format<T>;
  using Bits = typename F::Bits;
  // The nearest quarter turn falls into the last bits of a sum with a big constant.
  const T sum = turns * T(4) + F::shifter;
  const Bits quarter = std::bit_cast<Bits>(sum);
  const T angle = (turns * T(4) - (sum - F::shifter)) * static_cast<T>(1.57079632679489661923);
  const T square = angle * angle;
  T s = T(1), c = T(1);
  for (int k = F::sine_terms; k >= 1; --k) {
    s = T(1) - s * square * (T(1) / T((2 * k) * (2 * k + 1)));
    c = T(1) - c * square * (T(1) / T((2 * k - 1) * (2 * k)));
  }
  s = s * angle;
  const bool swap = quarter & 1;
  constexpr int to_sign = 8 * sizeof(T) - 2;  // moves bit 1 to the sign
  const Bits sine_sign = (quarter & 2) << to_sign;
  const Bits cosine_sign = ((quarter + 1) & 2) << to_sign;
  *sine = std::bit_cast<T>(std::bit_cast<Bits>(swap ? c : s) ^ sine_sign);
  *cosine = std::bit_cast<T>(std::bit_cast<Bits>(swap ? s : c) ^ cosine_sign);
}

// e^x for any x: infinity above the range, 0 far below it.
template <class T>
inline T exponential(T x) {
  using F = Format<T>;
  using Bits = typename F::Bits;
  using Int = typename F::Int;
  constexpr T limit = T(2 * F::bias);
  const T bounded = x > limit ? limit : (x < -limit ? -limit : x);
  const T sum = bounded * static_cast<T>(1.44269504088896340736) + F::shifter;
  const T whole = sum - F::shifter;
  const T rest = (bounded - whole * F::ln2_high) - whole * F::ln2_low;
  T series = T(1);
  for (int k = F::exp_terms; k >= 1; --k) series = T(1) + series * rest * (T(1) / T(k));
  // Four exact factors of 2^(whole / 4): each is a normal number, and only the product leaves the range.
  const Int k = static_cast<Int>(std::bit_cast<Bits>(sum)) - std::bit_cast<Int>(F::shifter);
  const Int part = k >> 2;
  const Int last = k - 3 * part;
  const T factor = std::bit_cast<T>(static_cast<Bits>(part + F::bias) << F::mantissa_bits);
  const T last_factor = std::bit_cast<T>(static_cast<Bits>(last + F::bias) << F::mantissa_bits);
  return series * factor * factor * factor * last_factor;
}

}  // namespace openreg::kernels
