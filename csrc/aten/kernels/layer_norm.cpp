// Layer normalization by rows: a row stays in the cache between its passes.
#include "aten/kernels/layer_norm.h"

#include <cmath>

#include "aten/kernels/lanes.h"

namespace openreg::kernels {
namespace {

template <class T, bool weighted, bool biased>
inline void scale_row(T* out, const T* in, const T* weight, const T* bias, uint64_t columns, T scale, T shift) {
  OPENREG_LOOP
  for (uint64_t i = 0; i < columns; ++i) {
    T value = in[i] * scale + shift;
    if constexpr (weighted) value = value * weight[i];
    if constexpr (biased) value = value + bias[i];
    out[i] = value;
  }
}

template <class T>
OPENREG_VECTOR void layer_norm(const openreg_geometry*, const void* raw) {
  const auto& args = *static_cast<const LayerNormArgs*>(raw);
  const T* weight = static_cast<const T*>(args.weight);
  const T* bias = static_cast<const T*>(args.bias);
  const uint64_t columns = args.columns;
  for (uint64_t row = 0; row < args.rows; ++row) {
    const T* in = static_cast<const T*>(args.in) + row * columns;
    T* out = static_cast<T*>(args.out) + row * columns;
    const T mean = sum_row<T>(columns, [&](uint64_t i) { return in[i]; }) / static_cast<T>(columns);
    const T squares = sum_row<T>(columns, [&](uint64_t i) { return (in[i] - mean) * (in[i] - mean); });
    const T reciprocal = T(1) / std::sqrt(squares / static_cast<T>(columns) + static_cast<T>(args.epsilon));
    static_cast<T*>(args.mean)[row] = mean;
    static_cast<T*>(args.reciprocal)[row] = reciprocal;
    const T shift = -mean * reciprocal;
    if (weight != nullptr && bias != nullptr) {
      scale_row<T, true, true>(out, in, weight, bias, columns, reciprocal, shift);
    } else if (weight != nullptr) {
      scale_row<T, true, false>(out, in, weight, bias, columns, reciprocal, shift);
    } else if (bias != nullptr) {
      scale_row<T, false, true>(out, in, weight, bias, columns, reciprocal, shift);
    } else {
      scale_row<T, false, false>(out, in, weight, bias, columns, reciprocal, shift);
    }
  }
}

template <class T, bool weighted>
inline void grad_row(T* out, const T* grad, const T* in, const T* weight, uint64_t columns, T mean, T reciprocal) {
  const auto scaled = [&](uint64_t i) { return weighted ? grad[i] * weight[i] : grad[i]; };
  const T along = sum_row<T>(columns, [&](uint64_t i) { return scaled(i) * in[i]; });
  const T whole = sum_row<T>(columns, scaled);
  const T share = T(1) / static_cast<T>(columns);
  const T slope = (whole * mean - along) * reciprocal * reciprocal * reciprocal * share;
  const T offset = -slope * mean - whole * reciprocal * share;
  OPENREG_LOOP
  for (uint64_t i = 0; i < columns; ++i) out[i] = reciprocal * scaled(i) + slope * in[i] + offset;
}

template <class T>
OPENREG_VECTOR void layer_norm_backward(const openreg_geometry*, const void* raw) {
  const auto& args = *static_cast<const LayerNormBackwardArgs*>(raw);
  const T* weight = static_cast<const T*>(args.weight);
  T* grad_weight = static_cast<T*>(args.grad_weight);
  T* grad_bias = static_cast<T*>(args.grad_bias);
  const uint64_t columns = args.columns;
  for (uint64_t i = 0; grad_weight != nullptr && i < columns; ++i) grad_weight[i] = T(0);
  for (uint64_t i = 0; grad_bias != nullptr && i < columns; ++i) grad_bias[i] = T(0);
  for (uint64_t row = 0; row < args.rows; ++row) {
    const T* in = static_cast<const T*>(args.in) + row * columns;
    const T* grad = static_cast<const T*>(args.grad_out) + row * columns;
    const T mean = static_cast<const T*>(args.mean)[row];
    const T reciprocal = static_cast<const T*>(args.reciprocal)[row];
    if (args.grad_in != nullptr) {
      T* out = static_cast<T*>(args.grad_in) + row * columns;
      if (weight != nullptr) {
        grad_row<T, true>(out, grad, in, weight, columns, mean, reciprocal);
      } else {
        grad_row<T, false>(out, grad, in, weight, columns, mean, reciprocal);
      }
    }
    if (grad_weight != nullptr) {
      const T shift = -mean * reciprocal;
      OPENREG_LOOP
      for (uint64_t i = 0; i < columns; ++i) grad_weight[i] += grad[i] * (in[i] * reciprocal + shift);
    }
    if (grad_bias != nullptr) {
      OPENREG_LOOP
      for (uint64_t i = 0; i < columns; ++i) grad_bias[i] += grad[i];
    }
  }
}

}  // namespace

Function layer_norm_kernel(DType dtype) {
  return dtype == DType::f32 ? layer_norm<float> : dtype == DType::f64 ? layer_norm<double> : nullptr;
}

Function layer_norm_backward_kernel(DType dtype) {
  return dtype == DType::f32 ? layer_norm_backward<float> : dtype == DType::f64 ? layer_norm_backward<double> : nullptr;
}

}  // namespace openreg::kernels
