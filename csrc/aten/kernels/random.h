// Device kernels that draw random numbers from Philox 4x32-10, a counter-based generator: the numbers of a launch are a function of
// (seed, offset) and the element's index alone, whatever device, stream, thread or order runs it.
//
// Numbers are counted in 32-bit words. Word w of the sequence of a seed is lane w % 4 of the block with counter w / 4 (64 bits, the
// upper half of the 128-bit counter is 0) and the seed as key. A launch starts at `offset`, a multiple of 4, and element i uses
// words_per_element() words from offset + i * words_per_element(); normal numbers come in pairs, elements 2k and 2k + 1
// sharing theirs.
#pragma once

#include <cstdint>

#include "aten/kernels/kernel.h"

namespace openreg::kernels {

// What an element becomes; `first` and `second` are the numbers in RandomArgs.
enum class Distribution : uint8_t {
  uniform,      // [first, second), first when both are equal
  normal,       // mean first, deviation second
  log_normal,   // e to the normal(first, second)
  exponential,  // rate first; above 0
  cauchy,       // median first, scale second
  geometric,    // trials up to the first success of probability first: 1, 2, ...
  bernoulli,    // 1 with probability first, else 0
  integer,      // base + [0, range), range at most 2^20
  wide_integer, // base + [0, range), any range
  bits,         // 64 random bits, cut to the type
};
constexpr int kDistributions = 10;

// Where a launch's numbers begin: at `offset` of the sequence of `seed`; with `base`, at base[1] + offset of that of base[0], two words of device
// memory that a graph's replay sets.
struct PhiloxArgs {
  uint64_t seed, offset;
  const uint64_t* base;
};

struct RandomArgs {
  void* out;
  uint64_t count;  // elements
  PhiloxArgs random;
  double first, second;
  int64_t base;
  uint64_t range;
};

// The kernel of a distribution for an element type. uniform, normal, log_normal, exponential, cauchy: f32, f64, f16, bf16. geometric: these and
// integers. bernoulli, integer, wide_integer, bits: these, integers and bool. Null for the rest.
Function random_kernel(Distribution distribution, DType dtype);

// 1 or 2. A launch of `count` elements takes count times this many words, plus the rest of the last block.
unsigned words_per_element(Distribution distribution, DType dtype);

// out[i] is 1 with probability p[i], else 0: one word per element. p_dtype is f32, f64, f16 or bf16; types of out as for bernoulli.
struct BernoulliArgs {
  void* out;
  const void* p;
  DType p_dtype;
  uint64_t count;
  PhiloxArgs random;
};
Function bernoulli_kernel(DType dtype);

// Whether every p[i] is in [0, 1]; NaN is not. For the types that BernoulliArgs takes as p.
bool are_probabilities(DType p_dtype, const void* p, uint64_t count);

// mask[i] is true with probability keep; out[i] = in[i] * mask[i] * scale. One word per element; f32, f64, f16, bf16, null for the rest.
struct DropoutArgs {
  void* out;
  bool* mask;
  const void* in;
  uint64_t count;
  PhiloxArgs random;
  double keep, scale;
};
Function dropout_kernel(DType dtype);

// out[i] = grad[i] * mask[i] * scale, for the types of dropout_kernel.
struct DropoutBackwardArgs {
  void* out;
  const void* grad;
  const bool* mask;
  uint64_t count;
  double scale;
};
Function dropout_backward_kernel(DType dtype);

// Writes the `blocks` * 4 words that start at word 4 * block of the sequence of `seed`.
void philox_words(uint32_t* words, uint64_t seed, uint64_t block, uint64_t blocks);

}  // namespace openreg::kernels
