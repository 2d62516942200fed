// Fourier transforms. The CPU's library leaves results in the order of the dimensions for contiguous inputs.
#include <ATen/WrapDimUtils.h>

#include "aten/engine/shapes/shape.h"

namespace openreg::engine::shapes {

namespace {

bool plain(const at::Tensor& self, const Sizes& dims) {
  return self.is_contiguous() && self.numel() != 0 && dims.size() == 1 && dims[0] == self.dim() - 1;
}

bool real_to_complex(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& self = in.tensor(0);
  if (!plain(self, in.integers(1))) return false;
  Sizes sizes = self.sizes().vec();
  if (in.flag(3)) sizes.back() = sizes.back() / 2 + 1;
  return give(entry, {contiguous(sizes, c10::toComplexType(self.scalar_type()))});
}

bool complex_to_real(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& self = in.tensor(0);
  if (!plain(self, in.integers(1)) || in.integer(3) < 1) return false;
  Sizes sizes = self.sizes().vec();
  sizes.back() = in.integer(3);
  return give(entry, {contiguous(sizes, c10::toRealValueType(self.scalar_type()))});
}

bool complex_to_complex(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& self = in.tensor(0);
  return plain(self, in.integers(1)) && give(entry, {contiguous(self.sizes(), self.scalar_type())});
}

}  // namespace

at::ArrayRef<Rule> fft_rules() {
  static constexpr Rule rules[] = {
      {"_fft_r2c", real_to_complex},
      {"_fft_c2r", complex_to_real},
      {"_fft_c2c", complex_to_complex},
  };
  return rules;
}

}  // namespace openreg::engine::shapes
