// The two 16-bit floating formats, bit by bit: IEEE half and bfloat16. Conversions from float round to nearest even and give
// the bits that c10::Half and c10::BFloat16 give; everything is branch-free, so that loops over it become vector code.
#pragma once

#include <bit>
#include <cstdint>

namespace openreg::kernels {

struct Half {
  uint16_t bits;
};

struct BFloat16 {
  uint16_t bits;
};

inline float to_float(Half x) {
  // Read as a float with a 5-bit exponent, the value is 2^112 too small; infinity and NaN keep a full exponent.
  const uint32_t magnitude = uint32_t(x.bits & 0x7fffu) << 13;
  const uint32_t scaled = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112f);
  const uint32_t special = magnitude >= 0x0f800000u ? 0x7f800000u : 0u;
  return std::bit_cast<float>(scaled | special | (uint32_t(x.bits & 0x8000u) << 16));
}

inline float to_float(BFloat16 x) { return std::bit_cast<float>(uint32_t(x.bits) << 16); }

inline Half to_half(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t magnitude = bits & 0x7fffffffu;
  // Normal halves: move the exponent's bias by 112 and round away 13 bits; 65520 and more carries into infinity.
  const uint32_t rebased = magnitude - 0x38000000u;
  const uint32_t normal = (rebased + 0xfffu + ((rebased >> 13) & 1u)) >> 13;
  // Below 2^-14: the sum with 0.5 has the subnormal's unit as its last bit.
  const uint32_t subnormal = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
  const uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
  const uint32_t special = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
  const uint32_t result = magnitude >= 0x47800000u ? special : finite;
  return Half{uint16_t(result | ((bits >> 16) & 0x8000u))};
}

inline BFloat16 to_bfloat16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return BFloat16{uint16_t((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded)};
}

// The type in which arithmetic on T happens, and the way there and back.
template <class T>
struct Arithmetic {
  using type = T;
};
template <>
struct Arithmetic<Half> {
  using type = float;
};
template <>
struct Arithmetic<BFloat16> {
  using type = float;
};
template <class T>
using arithmetic_t = typename Arithmetic<T>::type;

template <class T>
inline T load(T x) {
  return x;
}
inline float load(Half x) { return to_float(x); }
inline float load(BFloat16 x) { return to_float(x); }

template <class T>
struct Store {
  template <class From>
  static T from(From x) {
    return static_cast<T>(x);
  }
};
template <>
struct Store<Half> {
  template <class From>
  static Half from(From x) {
    return to_half(static_cast<float>(x));
  }
};
template <>
struct Store<BFloat16> {
  template <class From>
  static BFloat16 from(From x) {
    return to_bfloat16(static_cast<float>(x));
  }
};

}  // namespace openreg::kernels
