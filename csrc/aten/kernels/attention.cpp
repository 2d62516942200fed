// Splitting projections into heads: one pass, which reads each row once and writes runs of `width` elements.
#include "aten/kernels/attention.h"

#include <cmath>

namespace openreg::kernels {
namespace {

template <class T>
OPENREG_VECTOR void split_heads(const openreg_geometry*, const void* raw) {
  const auto& args = *static_cast<const SplitHeadsArgs*>(raw);
  const T* in = static_cast<const T*>(args.in);
  const uint64_t width = args.width, heads = args.heads;
  const T scale = T(1) / std::sqrt(static_cast<T>(width));
  for (uint64_t batch = 0; batch < args.batch; ++batch) {
    for (uint64_t place = 0; place < args.length; ++place) {
      const T* bias = static_cast<const T*>(args.bias);
      for (uint64_t part = 0; part < 3; ++part) {
        for (uint64_t head = 0; head < heads; ++head, in += width, bias += width) {
          T* out = static_cast<T*>(args.out[part]) + ((batch * heads + head) * args.length + place) * width;
          const T factor = part == 0 ? scale : T(1);
          OPENREG_LOOP
          for (uint64_t i = 0; i < width; ++i) out[i] = (in[i] + bias[i]) * factor;
        }
      }
    }
  }
}

}  // namespace

Function split_heads_kernel(DType dtype) {
  return dtype == DType::f32 ? split_heads<float> : dtype == DType::f64 ? split_heads<double> : nullptr;
}

}  // namespace openreg::kernels
