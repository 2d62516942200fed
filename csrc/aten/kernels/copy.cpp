// The matrix of conversions: one short loop per pair of types.
#include "aten/kernels/copy.h"

#include <cstring>
#include <type_traits>

#include "aten/kernels/half.h"

// Conversions between float and half have an instruction.
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define OPENREG_F16C __attribute__((target("avx,f16c")))
#endif

namespace openreg::kernels {
namespace {

template <class T>
struct Complex {
  T real, imag;
};
template <class T>
struct is_complex : std::false_type {};
template <class T>
struct is_complex<Complex<T>> : std::true_type {};

// A bool as memory holds it: every byte but 0 is true, also those that no bool writes (a view of bytes has them).
struct Truth {
  uint8_t byte;
};
using openreg::kernels::load;
inline bool load(Truth x) { return x.byte != 0; }

template <class To, class From>
inline To convert(From value) {
  if constexpr (std::is_same_v<To, From>) {
    return value;
  } else if constexpr (std::is_same_v<To, bool>) {
    if constexpr (is_complex<From>::value) {
      return value.real != 0 || value.imag != 0;
    } else {
      return load(value) != 0;
    }
  } else if constexpr (is_complex<From>::value) {
    if constexpr (is_complex<To>::value) {
      using Part = decltype(To::real);
      return To{static_cast<Part>(value.real), static_cast<Part>(value.imag)};
    } else {
      return convert<To>(value.real);
    }
  } else if constexpr (is_complex<To>::value) {
    using Part = decltype(To::real);
    return To{static_cast<Part>(load(value)), Part(0)};
  } else if constexpr (std::is_same_v<To, uint8_t> && std::is_floating_point_v<decltype(load(value))>) {
    return static_cast<uint8_t>(static_cast<int64_t>(load(value)));
  } else {
    return Store<To>::from(load(value));
  }
}

template <class To, class From>
void copy(const openreg_geometry*, const void* raw) {
  const auto& args = *static_cast<const CopyArgs*>(raw);
  To* out = static_cast<To*>(args.out);
  const From* in = static_cast<const From*>(args.in);
  OPENREG_LOOP
  for (uint64_t i = 0; i < args.count; ++i) out[i] = convert<To>(in[i]);
}

// The pairs that mixed precision uses, with vectors.
template <class To, class From>
OPENREG_VECTOR void copy_vector(const openreg_geometry*, const void* raw) {
  const auto& args = *static_cast<const CopyArgs*>(raw);
  To* out = static_cast<To*>(args.out);
  const From* in = static_cast<const From*>(args.in);
  const uint64_t count = args.count;
  OPENREG_LOOP
  for (uint64_t i = 0; i < count; ++i) out[i] = convert<To>(in[i]);
}

#if defined(OPENREG_F16C)
OPENREG_F16C void float_to_half(const openreg_geometry*, const void* raw) {
  const auto& args = *static_cast<const CopyArgs*>(raw);
  char* out = static_cast<char*>(args.out);
  const float* in = static_cast<const float*>(args.in);
  uint64_t i = 0;
  for (; i + 8 <= args.count; i += 8) {
    const __m128i halves = _mm256_cvtps_ph(_mm256_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 2 * i), halves);
  }
  float rest[8] = {};
  std::memcpy(rest, in + i, (args.count - i) * sizeof(float));
  const __m128i halves = _mm256_cvtps_ph(_mm256_loadu_ps(rest), _MM_FROUND_TO_NEAREST_INT);
  std::memcpy(out + 2 * i, &halves, (args.count - i) * sizeof(Half));
}

OPENREG_F16C void half_to_float(const openreg_geometry*, const void* raw) {
  const auto& args = *static_cast<const CopyArgs*>(raw);
  float* out = static_cast<float*>(args.out);
  const char* in = static_cast<const char*>(args.in);
  uint64_t i = 0;
  for (; i + 8 <= args.count; i += 8) {
    _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in + 2 * i))));
  }
  __m128i rest = _mm_setzero_si128();
  std::memcpy(&rest, in + 2 * i, (args.count - i) * sizeof(Half));
  float floats[8];
  _mm256_storeu_ps(floats, _mm256_cvtph_ps(rest));
  std::memcpy(out + i, floats, (args.count - i) * sizeof(float));
}
#endif

// The faster kernel for a pair of types, or null.
Function fast_copy(DType to, DType from) {
#if defined(OPENREG_F16C)
  if (__builtin_cpu_supports("avx") && __builtin_cpu_supports("f16c")) {
    if (to == DType::f16 && from == DType::f32) return float_to_half;
    if (to == DType::f32 && from == DType::f16) return half_to_float;
  }
#endif
  if (to == DType::bf16 && from == DType::f32) return copy_vector<BFloat16, float>;
  if (to == DType::f32 && from == DType::bf16) return copy_vector<float, BFloat16>;
  if (to == DType::f32 && from == DType::f64) return copy_vector<float, double>;
  if (to == DType::f64 && from == DType::f32) return copy_vector<double, float>;
  return nullptr;
}

template <class To>
Function copy_to(DType from) {
  switch (from) {
    case DType::u8: return copy<To, uint8_t>;
    case DType::i8: return copy<To, int8_t>;
    case DType::i16: return copy<To, int16_t>;
    case DType::i32: return copy<To, int32_t>;
    case DType::i64: return copy<To, int64_t>;
    case DType::f16: return copy<To, Half>;
    case DType::f32: return copy<To, float>;
    case DType::f64: return copy<To, double>;
    case DType::c64: return copy<To, Complex<float>>;
    case DType::c128: return copy<To, Complex<double>>;
    case DType::boolean: return copy<To, Truth>;
    case DType::bf16: return copy<To, BFloat16>;
  }
  return nullptr;
}

}  // namespace

Function copy_kernel(DType to, DType from) {
  if (const Function fast = fast_copy(to, from)) return fast;
  switch (to) {
    case DType::u8: return copy_to<uint8_t>(from);
    case DType::i8: return copy_to<int8_t>(from);
    case DType::i16: return copy_to<int16_t>(from);
    case DType::i32: return copy_to<int32_t>(from);
    case DType::i64: return copy_to<int64_t>(from);
    case DType::f16: return copy_to<Half>(from);
    case DType::f32: return copy_to<float>(from);
    case DType::f64: return copy_to<double>(from);
    case DType::c64: return copy_to<Complex<float>>(from);
    case DType::c128: return copy_to<Complex<double>>(from);
    case DType::boolean: return copy_to<bool>(from);
    case DType::bf16: return copy_to<BFloat16>(from);
  }
  return nullptr;
}

}  // namespace openreg::kernels
