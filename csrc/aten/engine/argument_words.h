// The words of encoded arguments: the tag in the first word's low byte, and small facts beside it. A number of dimensions that its byte does
// not hold follows in a word of its own.
#pragma once

#include <cstddef>
#include <cstdint>

namespace openreg::engine {

enum class Tag : uint8_t {
  none, undefined, tensor, again, cpu_tensor, sparse_coo, sparse_compressed, quantized, nested,
  integer, unsigned_integer, real, boolean, complex, string, device, generator, object,
  tensors, optional_tensors, integers, reals, booleans, scalars,
};

enum Flag : uint8_t { kWrappedNumber = 1, kConjugate = 2, kNegative = 4, kZero = 8, kCoalesced = 16, kRequiresGrad = 32 };

inline uint64_t head(Tag tag, uint8_t a = 0, uint8_t b = 0, uint8_t c = 0, uint32_t d = 0) {
  return static_cast<uint64_t>(tag) | static_cast<uint64_t>(a) << 8 | static_cast<uint64_t>(b) << 16 | static_cast<uint64_t>(c) << 24 |
         static_cast<uint64_t>(d) << 32;
}
constexpr size_t kManyDims = 255;  // in the byte: the next word says how many
inline uint8_t dims_byte(size_t dims) { return static_cast<uint8_t>(dims < kManyDims ? dims : kManyDims); }

inline Tag tag_of(uint64_t word) { return static_cast<Tag>(word & 0xff); }
inline uint8_t a_of(uint64_t word) { return word >> 8 & 0xff; }
inline uint8_t b_of(uint64_t word) { return word >> 16 & 0xff; }
inline uint8_t c_of(uint64_t word) { return word >> 24 & 0xff; }
inline uint32_t d_of(uint64_t word) { return static_cast<uint32_t>(word >> 32); }

}  // namespace openreg::engine
