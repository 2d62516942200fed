// Distributions over Philox words, in chunks that stay in the first-level cache.
#include "aten/kernels/random.h"

#include <cmath>
#include <limits>
#include <type_traits>

#include "aten/kernels/elementary.h"
#include "aten/kernels/half.h"

namespace openreg::kernels {
namespace {

constexpr uint64_t kChunk = 1024;  // elements; even, so that no pair of normal numbers is cut

template <class T>
constexpr unsigned words_of = sizeof(arithmetic_t<T>) == 8 && std::is_floating_point_v<T> ? 2 : 1;

// A number in [0, 1) with as many bits as T has: 24, 53, 11 or 8. `words` points at the element's words.
template <class T>
inline arithmetic_t<T> unit(const uint32_t* words) {
  if constexpr (std::is_same_v<T, double>) {
    return (static_cast<int32_t>(words[1] >> 5) * 0x1p26 + static_cast<int32_t>(words[0] >> 6)) * 0x1p-53;
  } else {
    constexpr int bits = std::is_same_v<T, float> ? 24 : std::is_same_v<T, Half> ? 11 : 8;
    constexpr float step = 1.0f / (1 << bits);
    return static_cast<float>(static_cast<int32_t>(words[0] >> (32 - bits))) * step;
  }
}

// A number in (0, 1), fine near 0, for logarithms.
template <class C>
inline C open_unit(const uint32_t* words) {
  if constexpr (std::is_same_v<C, double>) {
    return (static_cast<int32_t>(words[1] >> 5) * 0x1p25 + (static_cast<int32_t>(words[0] >> 7) + 0.5)) * 0x1p-52;
  } else {
    const float u = static_cast<float>(static_cast<int32_t>(words[0] >> 1)) * 0x1p-31f + 0x1p-32f;
    return u < 0x1.fffffep-1f ? u : 0x1.fffffep-1f;
  }
}

// Standard normal numbers by Box and Muller's method, an even count.
template <class C>
inline void normals(C* z, const uint32_t* words, uint64_t count) {
  constexpr unsigned step = sizeof(C) / 4;
  OPENREG_LOOP
  for (uint64_t k = 0; k < count / 2; ++k) {
    const uint32_t* pair = words + 2 * step * k;
    const C radius = std::sqrt(C(-2) * log_positive(open_unit<C>(pair)));
    C sine, cosine;
    sine_cosine_turns(unit<C>(pair + step), &sine, &cosine);
    z[2 * k] = radius * cosine;
    z[2 * k + 1] = radius * sine;
  }
}

// Calls body(words, start, n) for consecutive chunks; `words` holds those of elements start .. start + n - 1.
template <unsigned words_per, class Body>
inline void for_chunks(uint64_t count, const PhiloxArgs& random, Body body) {
  const uint64_t seed = random.base ? random.base[0] : random.seed;
  const uint64_t offset = random.offset + (random.base ? random.base[1] : 0);
  alignas(64) uint32_t words[kChunk * words_per];
  for (uint64_t start = 0; start < count; start += kChunk) {
    const uint64_t n = count - start < kChunk ? count - start : kChunk;
    philox_words(words, seed, offset / 4 + start * words_per / 4, (n * words_per + 3) / 4);
    body(words, start, n);
  }
}

// w < threshold happens with probability p; `always` covers p = 1, whose threshold has 33 bits.
struct Chance {
  uint32_t threshold;
  bool always;
  explicit Chance(double p) : threshold(p < 1 ? static_cast<uint32_t>(p * 0x1p32) : 0), always(p >= 1) {}
  bool operator()(uint32_t word) const { return (word < threshold) | always; }
};

template <class T>
OPENREG_VECTOR void uniform(const openreg_geometry*, const void* raw) {
  using C = arithmetic_t<T>;
  const auto& args = *static_cast<const RandomArgs*>(raw);
  T* out = static_cast<T*>(args.out);
  const C from = load(Store<T>::from(args.first)), to = load(Store<T>::from(args.second)), width = to - from;
  for_chunks<words_of<T>>(args.count, args.random, [=](const uint32_t* words, uint64_t start, uint64_t n) {
    OPENREG_LOOP
    for (uint64_t i = 0; i < n; ++i) {
      const C value = load(Store<T>::from(unit<T>(words + i * words_of<T>) * width + from));
      out[start + i] = Store<T>::from(value < to ? value : from);
    }
  });
}

template <class T, bool exponentiate>
OPENREG_VECTOR void normal(const openreg_geometry*, const void* raw) {
  using C = arithmetic_t<T>;
  const auto& args = *static_cast<const RandomArgs*>(raw);
  T* out = static_cast<T*>(args.out);
  const C mean = static_cast<C>(args.first), deviation = static_cast<C>(args.second);
  for_chunks<words_of<T>>(args.count, args.random, [=](const uint32_t* words, uint64_t start, uint64_t n) {
    alignas(64) C z[kChunk];
    normals(z, words, (n + 1) & ~uint64_t(1));
    OPENREG_LOOP
    for (uint64_t i = 0; i < n; ++i) {
      const C value = mean + deviation * z[i];
      out[start + i] = Store<T>::from(exponentiate ? openreg::kernels::exponential(value) : value);
    }
  });
}

template <class T>
OPENREG_VECTOR void exponential_numbers(const openreg_geometry*, const void* raw) {
  using C = arithmetic_t<T>;
  const auto& args = *static_cast<const RandomArgs*>(raw);
  T* out = static_cast<T*>(args.out);
  const C rate = static_cast<C>(args.first);
  for_chunks<words_of<T>>(args.count, args.random, [=](const uint32_t* words, uint64_t start, uint64_t n) {
    OPENREG_LOOP
    for (uint64_t i = 0; i < n; ++i) {
      out[start + i] = Store<T>::from(-log_positive(open_unit<C>(words + i * words_of<T>)) / rate);
    }
  });
}

template <class T>
OPENREG_VECTOR void cauchy(const openreg_geometry*, const void* raw) {
  using C = arithmetic_t<T>;
  const auto& args = *static_cast<const RandomArgs*>(raw);
  T* out = static_cast<T*>(args.out);
  const C median = static_cast<C>(args.first), scale = static_cast<C>(args.second);
  for_chunks<words_of<T>>(args.count, args.random, [=](const uint32_t* words, uint64_t start, uint64_t n) {
    OPENREG_LOOP
    for (uint64_t i = 0; i < n; ++i) {
      // tan(pi * (u - 1/2)) = -cos(pi * u) / sin(pi * u)
      C sine, cosine;
      sine_cosine_turns(open_unit<C>(words + i * words_of<T>) * C(0.5), &sine, &cosine);
      out[start + i] = Store<T>::from(median - scale * (cosine / sine));
    }
  });
}

template <class T>
void geometric(const openreg_geometry*, const void* raw) {
  const auto& args = *static_cast<const RandomArgs*>(raw);
  T* out = static_cast<T*>(args.out);
  const double scale = 1 / std::log1p(-args.first);
  double largest = std::numeric_limits<double>::infinity();
  if constexpr (std::is_integral_v<T>) largest = static_cast<double>(std::numeric_limits<T>::max() / 2 + 1) * 2 * (1 - 0x1p-53);
  for_chunks<2>(args.count, args.random, [=](const uint32_t* words, uint64_t start, uint64_t n) {
    for (uint64_t i = 0; i < n; ++i) {
      const double trials = std::ceil(log_positive(open_unit<double>(words + 2 * i)) * scale);
      out[start + i] = Store<T>::from(trials < 1 ? 1 : trials > largest ? largest : trials);
    }
  });
}

template <class T>
OPENREG_VECTOR void bernoulli(const openreg_geometry*, const void* raw) {
  const auto& args = *static_cast<const RandomArgs*>(raw);
  T* out = static_cast<T*>(args.out);
  const Chance chance(args.first);
  for_chunks<1>(args.count, args.random, [=](const uint32_t* words, uint64_t start, uint64_t n) {
    OPENREG_LOOP
    for (uint64_t i = 0; i < n; ++i) out[start + i] = Store<T>::from(static_cast<arithmetic_t<T>>(chance(words[i])));
  });
}

template <class T>
OPENREG_VECTOR void integer(const openreg_geometry*, const void* raw) {
  const auto& args = *static_cast<const RandomArgs*>(raw);
  T* out = static_cast<T*>(args.out);
  const uint32_t range = static_cast<uint32_t>(args.range);
  const int64_t base = args.base;
  for_chunks<1>(args.count, args.random, [=](const uint32_t* words, uint64_t start, uint64_t n) {
    OPENREG_LOOP
    for (uint64_t i = 0; i < n; ++i) {
      const int64_t value = base + static_cast<int64_t>((uint64_t(words[i]) * range) >> 32);
      out[start + i] = Store<T>::from(value);
    }
  });
}

template <class T, bool cut>
void wide(const openreg_geometry*, const void* raw) {
  const auto& args = *static_cast<const RandomArgs*>(raw);
  T* out = static_cast<T*>(args.out);
  const uint64_t range = args.range, base = static_cast<uint64_t>(args.base);
  for_chunks<2>(args.count, args.random, [=](const uint32_t* words, uint64_t start, uint64_t n) {
    for (uint64_t i = 0; i < n; ++i) {
      const uint64_t bits = uint64_t(words[2 * i + 1]) << 32 | words[2 * i];
      const uint64_t value = cut ? bits : base + static_cast<uint64_t>((static_cast<unsigned __int128>(bits) * range) >> 64);
      out[start + i] = Store<T>::from(static_cast<int64_t>(value));
    }
  });
}

template <class P>
void hits(bool* hit, const uint32_t* words, const P* p, uint64_t n) {
  using C = arithmetic_t<P>;
  OPENREG_LOOP
  for (uint64_t i = 0; i < n; ++i) {
    // As many bits as the type of p can tell apart from 1.
    const C u = std::is_same_v<C, double> ? static_cast<int32_t>(words[i] >> 1) * C(0x1p-31) : unit<float>(words + i);
    hit[i] = u < load(p[i]);
  }
}

template <class T>
void bernoulli_each(const openreg_geometry*, const void* raw) {
  const auto& args = *static_cast<const BernoulliArgs*>(raw);
  T* out = static_cast<T*>(args.out);
  for_chunks<1>(args.count, args.random, [=](const uint32_t* words, uint64_t start, uint64_t n) {
    bool hit[kChunk];
    switch (args.p_dtype) {
      case DType::f64: hits(hit, words, static_cast<const double*>(args.p) + start, n); break;
      case DType::f16: hits(hit, words, static_cast<const Half*>(args.p) + start, n); break;
      case DType::bf16: hits(hit, words, static_cast<const BFloat16*>(args.p) + start, n); break;
      default: hits(hit, words, static_cast<const float*>(args.p) + start, n); break;
    }
    for (uint64_t i = 0; i < n; ++i) out[start + i] = Store<T>::from(static_cast<arithmetic_t<T>>(hit[i]));
  });
}

template <class P>
bool all_in_unit(const P* p, uint64_t count) {
  bool good = true;
  for (uint64_t i = 0; i < count; ++i) good &= load(p[i]) >= 0 && load(p[i]) <= 1;
  return good;
}

template <class T>
OPENREG_VECTOR void dropout(const openreg_geometry*, const void* raw) {
  using C = arithmetic_t<T>;
  const auto& args = *static_cast<const DropoutArgs*>(raw);
  T* out = static_cast<T*>(args.out);
  const T* in = static_cast<const T*>(args.in);
  bool* mask = args.mask;
  const C scale = static_cast<C>(args.scale);
  const Chance keep(args.keep);
  for_chunks<1>(args.count, args.random, [=](const uint32_t* words, uint64_t start, uint64_t n) {
    OPENREG_LOOP
    for (uint64_t i = 0; i < n; ++i) {
      const bool kept = keep(words[i]);
      mask[start + i] = kept;
      out[start + i] = Store<T>::from(load(in[start + i]) * (kept ? scale : C(0)));
    }
  });
}

template <class T>
OPENREG_VECTOR void dropout_backward(const openreg_geometry*, const void* raw) {
  using C = arithmetic_t<T>;
  const auto& args = *static_cast<const DropoutBackwardArgs*>(raw);
  T* out = static_cast<T*>(args.out);
  const T* grad = static_cast<const T*>(args.grad);
  const auto* mask = reinterpret_cast<const uint8_t*>(args.mask);  // which may hold other bytes than 0 and 1
  const uint64_t count = args.count;
  const C scale = static_cast<C>(args.scale);
  OPENREG_LOOP
  for (uint64_t i = 0; i < count; ++i) out[i] = Store<T>::from(load(grad[i]) * (mask[i] != 0 ? scale : C(0)));
}

template <class T>
Function of_floating(Distribution distribution) {
  switch (distribution) {
    case Distribution::uniform: return uniform<T>;
    case Distribution::normal: return normal<T, false>;
    case Distribution::log_normal: return normal<T, true>;
    case Distribution::exponential: return exponential_numbers<T>;
    case Distribution::cauchy: return cauchy<T>;
    default: return nullptr;
  }
}

template <class T>
Function of_any(Distribution distribution) {
  switch (distribution) {
    case Distribution::geometric:
      if constexpr (!std::is_same_v<T, bool>) return geometric<T>;
      return nullptr;
    case Distribution::bernoulli: return bernoulli<T>;
    case Distribution::integer: return integer<T>;
    case Distribution::wide_integer: return wide<T, false>;
    case Distribution::bits: return wide<T, true>;
    default: return nullptr;
  }
}

}  // namespace

Function random_kernel(Distribution distribution, DType dtype) {
  Function function = nullptr;
  switch (dtype) {
    case DType::f32: function = of_floating<float>(distribution); break;
    case DType::f64: function = of_floating<double>(distribution); break;
    case DType::f16: function = of_floating<Half>(distribution); break;
    case DType::bf16: function = of_floating<BFloat16>(distribution); break;
    default: break;
  }
  if (function != nullptr) return function;
  switch (dtype) {
    case DType::u8: return of_any<uint8_t>(distribution);
    case DType::i8: return of_any<int8_t>(distribution);
    case DType::i16: return of_any<int16_t>(distribution);
    case DType::i32: return of_any<int32_t>(distribution);
    case DType::i64: return of_any<int64_t>(distribution);
    case DType::f32: return of_any<float>(distribution);
    case DType::f64: return of_any<double>(distribution);
    case DType::f16: return of_any<Half>(distribution);
    case DType::bf16: return of_any<BFloat16>(distribution);
    case DType::boolean: return of_any<bool>(distribution);
    default: return nullptr;
  }
}

unsigned words_per_element(Distribution distribution, DType dtype) {
  switch (distribution) {
    case Distribution::bernoulli:
    case Distribution::integer: return 1;
    case Distribution::geometric:
    case Distribution::wide_integer:
    case Distribution::bits: return 2;
    default: return dtype == DType::f64 ? 2 : 1;
  }
}

Function bernoulli_kernel(DType dtype) {
  switch (dtype) {
    case DType::u8: return bernoulli_each<uint8_t>;
    case DType::i8: return bernoulli_each<int8_t>;
    case DType::i16: return bernoulli_each<int16_t>;
    case DType::i32: return bernoulli_each<int32_t>;
    case DType::i64: return bernoulli_each<int64_t>;
    case DType::f32: return bernoulli_each<float>;
    case DType::f64: return bernoulli_each<double>;
    case DType::f16: return bernoulli_each<Half>;
    case DType::bf16: return bernoulli_each<BFloat16>;
    case DType::boolean: return bernoulli_each<bool>;
    default: return nullptr;
  }
}

bool are_probabilities(DType p_dtype, const void* p, uint64_t count) {
  switch (p_dtype) {
    case DType::f64: return all_in_unit(static_cast<const double*>(p), count);
    case DType::f16: return all_in_unit(static_cast<const Half*>(p), count);
    case DType::bf16: return all_in_unit(static_cast<const BFloat16*>(p), count);
    default: return all_in_unit(static_cast<const float*>(p), count);
  }
}

Function dropout_kernel(DType dtype) {
  switch (dtype) {
    case DType::f32: return dropout<float>;
    case DType::f64: return dropout<double>;
    case DType::f16: return dropout<Half>;
    case DType::bf16: return dropout<BFloat16>;
    default: return nullptr;
  }
}

Function dropout_backward_kernel(DType dtype) {
  switch (dtype) {
    case DType::f32: return dropout_backward<float>;
    case DType::f64: return dropout_backward<double>;
    case DType::f16: return dropout_backward<Half>;
    case DType::bf16: return dropout_backward<BFloat16>;
    default: return nullptr;
  }
}

}  // namespace openreg::kernels
