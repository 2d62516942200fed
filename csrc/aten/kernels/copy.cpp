// The matrix of conversions: one short loop per pair of types.
#include "aten/kernels/copy.h"

#include <type_traits>

#include "aten/kernels/half.h"

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
    case DType::boolean: return copy<To, bool>;
    case DType::bf16: return copy<To, BFloat16>;
  }
  return nullptr;
}

}  // namespace

Function copy_kernel(DType to, DType from) {
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
