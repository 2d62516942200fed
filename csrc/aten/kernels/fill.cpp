// Fills by element size.
#include "aten/kernels/fill.h"

#include <cstring>

namespace openreg::kernels {
namespace {

struct Pair {
  uint64_t low, high;
};

template <class T>
OPENREG_VECTOR void fill(const openreg_geometry*, const void* raw) {
  const auto& args = *static_cast<const FillArgs*>(raw);
  T value;
  std::memcpy(&value, args.pattern, sizeof(T));
  T* out = static_cast<T*>(args.out);
  for (uint64_t i = 0; i < args.count; ++i) out[i] = value;
}

}  // namespace

Function fill_kernel(unsigned element_bytes) {
  switch (element_bytes) {
    case 1: return fill<uint8_t>;
    case 2: return fill<uint16_t>;
    case 4: return fill<uint32_t>;
    case 8: return fill<uint64_t>;
    case 16: return fill<Pair>;
    default: return nullptr;
  }
}

}  // namespace openreg::kernels
