// Optimizer steps over contiguous arrays.
#include "aten/kernels/optimizer.h"

#include <cmath>

namespace openreg::kernels {
namespace {

// What is the same for every element of one entry.
template <class T>
struct Adam {
  T keep, decay, weight, beta2, fresh2, root, epsilon, rate, sign;
  bool decays;  // without decay the gradient stays free of the parameter, which may be infinite

  Adam(const AdamArgs<1>& args, float step)
      : keep(args.decoupled ? static_cast<T>(1 - args.rate * args.weight_decay) : T(1)),
        decay(args.decoupled ? T(0) : static_cast<T>(args.weight_decay)),
        weight(static_cast<T>(1 - args.beta1)),
        beta2(static_cast<T>(args.beta2)),
        fresh2(static_cast<T>(1 - args.beta2)),
        root(static_cast<T>(std::sqrt(1 - std::pow(args.beta2, static_cast<double>(step))))),
        epsilon(static_cast<T>(args.epsilon)),
        rate(static_cast<T>(args.rate / (1 - std::pow(args.beta1, static_cast<double>(step))))),
        sign(args.maximize ? T(-1) : T(1)),
        decays(decay != T(0)) {}
};

// The larger one; NaN when one is NaN.
template <class T>
inline T larger(T a, T b) {
  return a > b || a != a ? a : b;
}

template <class T, bool amsgrad>
inline void adam_entry(const Adam<T>& c, const AdamEntry& entry) {
  T* parameter = static_cast<T*>(entry.parameter);
  const T* gradient = static_cast<const T*>(entry.gradient);
  T* average = static_cast<T*>(entry.average);
  T* square_average = static_cast<T*>(entry.square_average);
  [[maybe_unused]] T* largest = static_cast<T*>(entry.largest_average);
  const bool near = c.weight < T(0.5);
  const T factor = near ? c.weight : c.weight - T(1);
  const uint64_t count = entry.count;
  OPENREG_LOOP
  for (uint64_t i = 0; i < count; ++i) {
    const T p = parameter[i] * c.keep;
    const T slope = gradient[i] * c.sign;
    const T g = c.decays ? slope + p * c.decay : slope;
    const T m = std::fma(factor, g - average[i], near ? average[i] : g);
    const T v = square_average[i] * c.beta2 + c.fresh2 * g * g;
    average[i] = m;
    square_average[i] = v;
    T spread = v;
    if constexpr (amsgrad) {
      spread = larger(largest[i], v);
      largest[i] = spread;
    }
    parameter[i] = p - c.rate * m / (std::sqrt(spread) / c.root + c.epsilon);
  }
}

template <class T>
OPENREG_VECTOR void adam(const openreg_geometry*, const void* raw) {
  const auto& args = *static_cast<const AdamArgs<1>*>(raw);
  for (uint64_t n = 0; n < args.entries; ++n) {
    const AdamEntry& entry = args.entry[n];
    const Adam<T> constants(args, *entry.step);
    if (entry.largest_average != nullptr) {
      adam_entry<T, true>(constants, entry);
    } else {
      adam_entry<T, false>(constants, entry);
    }
  }
}

template <class T>
OPENREG_VECTOR void sgd(const openreg_geometry*, const void* raw) {
  const auto& args = *static_cast<const SgdArgs<1>*>(raw);
  const T rate = static_cast<T>(args.rate), decay = static_cast<T>(args.weight_decay), sign = args.maximize ? T(-1) : T(1);
  const T keep = static_cast<T>(args.momentum), fresh = static_cast<T>(1 - args.dampening);
  const bool decays = decay != T(0), nesterov = args.nesterov;
  const auto slope = [=](T gradient, T parameter) { return decays ? gradient * sign + parameter * decay : gradient * sign; };
  const auto step = [=](T g, T buffer) { return rate * (nesterov ? g + keep * buffer : buffer); };
  for (uint64_t n = 0; n < args.entries; ++n) {
    const SgdEntry& entry = args.entry[n];
    T* parameter = static_cast<T*>(entry.parameter);
    const T* gradient = static_cast<const T*>(entry.gradient);
    T* momentum = static_cast<T*>(entry.momentum);
    const uint64_t count = entry.count;
    if (momentum == nullptr) {
      OPENREG_LOOP
      for (uint64_t i = 0; i < count; ++i) parameter[i] -= rate * slope(gradient[i], parameter[i]);
    } else if (args.first_step) {
      OPENREG_LOOP
      for (uint64_t i = 0; i < count; ++i) {
        const T g = slope(gradient[i], parameter[i]);
        momentum[i] = g;  // it may hold anything before
        parameter[i] -= step(g, g);
      }
    } else {
      OPENREG_LOOP
      for (uint64_t i = 0; i < count; ++i) {
        const T g = slope(gradient[i], parameter[i]);
        const T buffer = momentum[i] * keep + g * fresh;
        momentum[i] = buffer;
        parameter[i] -= step(g, buffer);
      }
    }
  }
}

}  // namespace

Function adam_kernel(DType dtype) {
  return dtype == DType::f32 ? adam<float> : dtype == DType::f64 ? adam<double> : nullptr;
}

Function sgd_kernel(DType dtype) {
  return dtype == DType::f32 ? sgd<float> : dtype == DType::f64 ? sgd<double> : nullptr;
}

}  // namespace openreg::kernels
