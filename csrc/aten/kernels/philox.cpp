// Philox 4x32-10 (Salmon and others, "Parallel random numbers: as easy as 1, 2, 3", 2011): in plain C++, and four blocks at a time
// for machines with AVX2, where compilers do not find the 32-bit product with a 64-bit result.
#include "aten/kernels/random.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace openreg::kernels {
namespace {

constexpr uint32_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
constexpr uint32_t kKeyStep0 = 0x9E3779B9, kKeyStep1 = 0xBB67AE85;
constexpr int kRounds = 10;

void plain(uint32_t* words, uint64_t seed, uint64_t block, uint64_t blocks) {
  for (uint64_t j = 0; j < blocks; ++j, words += 4) {
    const uint64_t counter = block + j;
    uint32_t c0 = static_cast<uint32_t>(counter), c1 = static_cast<uint32_t>(counter >> 32), c2 = 0, c3 = 0;
    uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
    for (int round = 0; round < kRounds; ++round) {
      const uint64_t product0 = uint64_t(kMultiplier0) * c0;
      const uint64_t product1 = uint64_t(kMultiplier1) * c2;
      c0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ key0;
      c2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ key1;
      c1 = static_cast<uint32_t>(product1);
      c3 = static_cast<uint32_t>(product0);
      key0 += kKeyStep0;
      key1 += kKeyStep1;
    }
    words[0] = c0;
    words[1] = c1;
    words[2] = c2;
    words[3] = c3;
  }
}

#if defined(__x86_64__)

// Every 64-bit lane is one block; only the low halves of c0..c3 mean something, products read nothing else.
__attribute__((target("avx2"))) void avx2(uint32_t* words, uint64_t seed, uint64_t block, uint64_t blocks) {
  constexpr int kVectors = 2;  // independent chains of four blocks, so that products overlap
  const __m256i multiplier0 = _mm256_set1_epi64x(kMultiplier0), multiplier1 = _mm256_set1_epi64x(kMultiplier1);
  const __m256i low_half = _mm256_set1_epi64x(0xffffffff);
  uint64_t done = 0;
  for (; done + 4 * kVectors <= blocks; done += 4 * kVectors) {
    __m256i c0[kVectors], c1[kVectors], c2[kVectors], c3[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      c0[v] = _mm256_add_epi64(_mm256_set1_epi64x(static_cast<int64_t>(block + done + 4 * v)), _mm256_set_epi64x(3, 2, 1, 0));
      c1[v] = _mm256_srli_epi64(c0[v], 32);
      c2[v] = c3[v] = _mm256_setzero_si256();
    }
    uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
    for (int round = 0; round < kRounds; ++round) {
      const __m256i k0 = _mm256_set1_epi64x(key0), k1 = _mm256_set1_epi64x(key1);
      for (int v = 0; v < kVectors; ++v) {
        const __m256i product0 = _mm256_mul_epu32(c0[v], multiplier0);
        const __m256i product1 = _mm256_mul_epu32(c2[v], multiplier1);
        c0[v] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(product1, 32), c1[v]), k0);
        c2[v] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(product0, 32), c3[v]), k1);
        c1[v] = product1;
        c3[v] = product0;
      }
      key0 += kKeyStep0;
      key1 += kKeyStep1;
    }
    for (int v = 0; v < kVectors; ++v) {
      const __m256i words01 = _mm256_or_si256(_mm256_and_si256(c0[v], low_half), _mm256_slli_epi64(c1[v], 32));
      const __m256i words23 = _mm256_or_si256(_mm256_and_si256(c2[v], low_half), _mm256_slli_epi64(c3[v], 32));
      const __m256i blocks02 = _mm256_unpacklo_epi64(words01, words23);
      const __m256i blocks13 = _mm256_unpackhi_epi64(words01, words23);
      auto* out = reinterpret_cast<__m256i*>(words + 4 * (done + 4 * v));
      _mm256_storeu_si256(out, _mm256_permute2x128_si256(blocks02, blocks13, 0x20));
      _mm256_storeu_si256(out + 1, _mm256_permute2x128_si256(blocks02, blocks13, 0x31));
    }
  }
  plain(words + 4 * done, seed, block + done, blocks - done);
}

#endif

}  // namespace

void philox_words(uint32_t* words, uint64_t seed, uint64_t block, uint64_t blocks) {
#if defined(__x86_64__)
  static const bool has_avx2 = __builtin_cpu_supports("avx2");
  if (has_avx2) return avx2(words, seed, block, blocks);
#endif
  plain(words, seed, block, blocks);
}

}  // namespace openreg::kernels
