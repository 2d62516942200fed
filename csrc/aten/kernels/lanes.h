// Reductions of a row in lanes: they vectorise, and a sum rounds less than one running sum does.
#pragma once

#include <cstdint>

#include "aten/kernels/kernel.h"

namespace openreg::kernels {

constexpr uint64_t kLanes = 32;

template <class T>
inline T total(T* lanes) {
  for (uint64_t half = kLanes / 2; half > 0; half /= 2) {
    for (uint64_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

constexpr uint64_t kRun = 128 * kLanes;  // numbers that lanes of float add without losing digits that matter

// The sum of term(i) from `begin` on.
template <class T, class Term>
inline T sum_run(uint64_t begin, uint64_t count, Term term) {
  T lanes[kLanes] = {};
  uint64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    OPENREG_LOOP
    for (uint64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += term(begin + i + lane);
  }
  for (uint64_t lane = 0; i < count; ++i, ++lane) lanes[lane] += term(begin + i);
  return total(lanes);
}

// The sum of term(i) over a row; runs of a long row are added in double, so that the error does not grow with its length.
template <class T, class Term>
inline T sum_row(uint64_t count, Term term) {
  if (count <= kRun) return sum_run<T>(0, count, term);
  double sum = 0;
  for (uint64_t begin = 0; begin < count; begin += kRun) sum += sum_run<T>(begin, count - begin < kRun ? count - begin : kRun, term);
  return static_cast<T>(sum);
}

// The largest of term(i) over a row, or `least` when none is larger; NaN is larger than nothing.
template <class T, class Term>
inline T max_row(uint64_t count, T least, Term term) {
  T lanes[kLanes];
  for (uint64_t lane = 0; lane < kLanes; ++lane) lanes[lane] = least;
  uint64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    OPENREG_LOOP
    for (uint64_t lane = 0; lane < kLanes; ++lane) {
      const T value = term(i + lane);
      lanes[lane] = value > lanes[lane] ? value : lanes[lane];
    }
  }
  for (uint64_t lane = 0; i < count; ++i, ++lane) {
    const T value = term(i);
    lanes[lane] = value > lanes[lane] ? value : lanes[lane];
  }
  for (uint64_t half = kLanes / 2; half > 0; half /= 2) {
    for (uint64_t lane = 0; lane < half; ++lane) lanes[lane] = lanes[lane + half] > lanes[lane] ? lanes[lane + half] : lanes[lane];
  }
  return lanes[0];
}

}  // namespace openreg::kernels
