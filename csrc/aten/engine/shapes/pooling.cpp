// Pooling, padding, sampling and sliding windows over images and volumes.
#include <ATen/native/Pool.h>

#include "aten/engine/shapes/shape.h"

namespace openreg::engine::shapes {

namespace {

using c10::ScalarType;

// The last `spatial` sizes replaced.
Sizes with_spatial(const at::Tensor& input, at::IntArrayRef spatial) {
  Sizes sizes = input.sizes().vec();
  std::copy(spatial.begin(), spatial.end(), sizes.end() - static_cast<int64_t>(spatial.size()));
  return sizes;
}

// Contiguous, and not to be taken for channels-last either.
bool is_plain(const at::Tensor& input) { return input.is_contiguous() && input.suggest_memory_format() == c10::MemoryFormat::Contiguous; }

bool batched_or_not(const at::Tensor& input, int64_t spatial) {
  return (input.dim() == spatial + 1 || input.dim() == spatial + 2) && input.numel() != 0;
}

template <int64_t spatial>
bool adaptive_pool(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& input = in.tensor(0);
  const Sizes size = in.integers(1);
  if (!batched_or_not(input, spatial) || size.size() != spatial || !input.is_contiguous()) return false;
  for (const int64_t n : size) {
    if (n < 1) return false;
  }
  return give(entry, {contiguous(with_spatial(input, size), input.scalar_type(), input.dim() == 4 ? input.suggest_memory_format() : c10::MemoryFormat::Contiguous)});
}

// (gradient, input): the gradient of a contiguous input
template <int64_t spatial>
bool adaptive_pool_backward(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& input = in.tensor(1);
  if (!batched_or_not(input, spatial) || in.tensor(0).dim() != input.dim() || in.tensor(0).numel() == 0 || !is_plain(input)) return false;
  return give(entry, {contiguous(input.sizes(), input.scalar_type())});
}

bool positive(const Sizes& values) {
  for (const int64_t value : values) {
    if (value < 1) return false;
  }
  return !values.empty();
}

// The sizes that (kernel, stride, padding, dilation, ceil mode), from argument `first` on, leave of a volume; empty where the kernel refuses
// them.
Sizes pooled3d(const Arguments& in, size_t first, const at::Tensor& input) {
  const auto three = [](Sizes values) { return values.size() == 1 ? Sizes(3, values[0]) : values; };
  const Sizes kernel = three(in.integers(first)), padding = three(in.integers(first + 2)), dilation = three(in.integers(first + 3));
  const Sizes stride = in.integers(first + 1).empty() ? kernel : three(in.integers(first + 1));
  if (!batched_or_not(input, 3) || !is_plain(input)) return {};
  if (!positive(kernel) || !positive(stride) || !positive(dilation) || kernel.size() != 3 || stride.size() != 3 || padding.size() != 3 || dilation.size() != 3) return {};
  Sizes spatial(3);
  for (size_t i = 0; i < 3; ++i) {
    if (padding[i] < 0 || padding[i] > kernel[i] / 2) return {};
    spatial[i] =
        at::native::pooling_output_shape<int64_t>(input.size(static_cast<int64_t>(i) - 3), kernel[i], padding[i], stride[i], dilation[i], in.flag(first + 4));
  }
  return positive(spatial) ? with_spatial(input, spatial) : Sizes{};
}

// (input, kernel, stride, padding, dilation, ceil mode)
bool max_pool3d(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& input = in.tensor(0);
  const Sizes sizes = pooled3d(in, 1, input);
  return !sizes.empty() && give(entry, {contiguous(sizes, input.scalar_type()), contiguous(sizes, ScalarType::Long)});
}

// (input, kernel, stride, padding, dilation, ceil mode), without indices: contiguous whatever the input is
bool max_pool1d(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& input = in.tensor(0);
  const int64_t kernel = in.integers(1).at(0), padding = in.integers(3).at(0), dilation = in.integers(4).at(0);
  const int64_t stride = in.integers(2).empty() ? kernel : in.integers(2)[0];
  if (!batched_or_not(input, 1) || !positive({kernel, stride, dilation}) || padding < 0 || padding > kernel / 2) return false;
  const int64_t size = at::native::pooling_output_shape<int64_t>(input.size(-1), kernel, padding, stride, dilation, in.flag(5));
  return size > 0 && give(entry, {contiguous(with_spatial(input, {size}), input.scalar_type())});
}

// (gradient, input, kernel, stride, padding, dilation, ceil mode, indices): the gradient of a contiguous input
bool max_pool3d_backward(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& input = in.tensor(1);
  const Sizes sizes = pooled3d(in, 2, input);
  if (sizes.empty() || in.tensor(0).sizes() != at::IntArrayRef(sizes) || in.tensor(7).sizes() != in.tensor(0).sizes()) return false;
  return give(entry, {contiguous(input.sizes(), input.scalar_type())});
}

// (input, indices, output size, ...)
bool max_unpool2d(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& input = in.tensor(0);
  const Sizes size = in.integers(2);
  if (!batched_or_not(input, 2) || in.tensor(1).sizes() != input.sizes() || size.size() != 2 || !positive(size)) return false;
  if (!is_plain(input)) return false;
  return give(entry, {contiguous(with_spatial(input, size), input.scalar_type())});
}

bool grid_fits(const at::Tensor& input, const at::Tensor& grid) {
  if (input.dim() < 4 || input.dim() != grid.dim() || input.size(0) != grid.size(0) || grid.size(-1) != input.dim() - 2) return false;
  return input.numel() != 0 && grid.numel() != 0 && input.scalar_type() == grid.scalar_type();
}

// (..., interpolation, padding, aligned corners) from argument `first` on: modes that the kernels know
bool grid_modes(const Arguments& in, size_t first, const at::Tensor& input) {
  return in.integer(first) >= 0 && in.integer(first) <= (input.dim() == 4 ? 2 : 1) && in.integer(first + 1) >= 0 && in.integer(first + 1) <= 2;
}

bool grid_sample(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& input = in.tensor(0);
  const at::Tensor& grid = in.tensor(1);
  if (!grid_fits(input, grid) || !grid_modes(in, 2, input)) return false;
  const Sizes sizes = with_spatial(input, grid.sizes().slice(1, input.dim() - 2));
  if (input.dim() == 4 && !input.is_contiguous()) return false;
  return give(entry, {contiguous(sizes, input.scalar_type())});
}

bool grid_sample_backward(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& input = in.tensor(1);
  const at::Tensor& grid = in.tensor(2);
  if (!grid_fits(input, grid) || !grid_modes(in, 3, input) || !input.is_contiguous() || !grid.is_contiguous()) return false;
  if (in.tensor(0).sizes() != at::IntArrayRef(with_spatial(input, grid.sizes().slice(1, input.dim() - 2)))) return false;
  return give(entry, {contiguous_if(in.mask(6, 0), input.sizes(), input.scalar_type()), contiguous(grid.sizes(), grid.scalar_type())});
}

// (input, padding): one pair of numbers per padded dimension, from the last. A reflection stays inside the input.
template <size_t spatial, bool reflects>
bool pad(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& input = in.tensor(0);
  const Sizes pad = in.integers(1);
  if (!batched_or_not(input, spatial) || pad.size() != 2 * spatial || !is_plain(input)) return false;
  Sizes sizes = input.sizes().vec();
  for (size_t i = 0; i < 2 * spatial; ++i) {
    int64_t& size = sizes[sizes.size() - 1 - i / 2];
    if (pad[i] < 0 || (reflects && pad[i] >= input.size(-1 - static_cast<int64_t>(i / 2)))) return false;
    size += pad[i];
  }
  return give(entry, {contiguous(sizes, input.scalar_type())});
}

// (gradient, input, padding)
template <size_t spatial>
bool pad_backward(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& input = in.tensor(1);
  const Sizes pad = in.integers(2);
  if (!batched_or_not(input, spatial) || pad.size() != 2 * spatial || !is_plain(input)) return false;
  Sizes sizes = input.sizes().vec();
  for (size_t i = 0; i < spatial; ++i) sizes[sizes.size() - 1 - i] += pad[2 * i] + pad[2 * i + 1];
  return in.tensor(0).sizes() == at::IntArrayRef(sizes) && give(entry, {contiguous(input.sizes(), input.scalar_type())});
}

// How many windows fit into an image; nothing where the kernel refuses the numbers.
std::optional<int64_t> count_windows(at::IntArrayRef image, const Sizes& kernel, const Sizes& dilation, const Sizes& padding, const Sizes& stride) {
  if (!positive(kernel) || !positive(dilation) || !positive(stride)) return std::nullopt;
  int64_t windows = 1;
  for (size_t i = 0; i < 2; ++i) {
    const int64_t room = image[i] + 2 * padding[i] - (dilation[i] * (kernel[i] - 1) + 1);
    if (room < 0 || padding[i] < 0) return std::nullopt;
    windows *= room / stride[i] + 1;
  }
  return windows;
}

// (input, kernel, dilation, padding, stride): windows as columns
bool im2col(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& input = in.tensor(0);
  if (!batched_or_not(input, 2)) return false;
  const Sizes kernel = in.integers(1);
  const auto windows = count_windows(input.sizes().slice(input.dim() - 2), kernel, in.integers(2), in.integers(3), in.integers(4));
  if (!windows) return false;
  Sizes sizes = {input.size(-3) * kernel[0] * kernel[1], *windows};
  if (input.dim() == 4) sizes.insert(sizes.begin(), input.size(0));
  return give(entry, {contiguous(sizes, input.scalar_type())});
}

// (columns, output size, kernel, dilation, padding, stride)
bool col2im(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& columns = in.tensor(0);
  const Sizes size = in.integers(1), kernel = in.integers(2);
  if ((columns.dim() != 2 && columns.dim() != 3) || columns.numel() == 0 || !positive(size)) return false;
  const auto windows = count_windows(size, kernel, in.integers(3), in.integers(4), in.integers(5));
  if (!windows || columns.size(-1) != *windows || columns.size(-2) % (kernel[0] * kernel[1]) != 0) return false;
  Sizes sizes = {columns.size(-2) / (kernel[0] * kernel[1]), size[0], size[1]};
  if (columns.dim() == 3) sizes.insert(sizes.begin(), columns.size(0));
  return give(entry, {contiguous(sizes, columns.scalar_type())});
}

// A class for every place of the images, and a weight for every class.
bool target_fits(const at::Tensor& input, const at::Tensor& target, const at::Tensor* weight) {
  if (input.dim() != 4 || target.dim() != 3 || input.size(0) != target.size(0) || input.size(2) != target.size(1) || input.size(3) != target.size(2)) return false;
  return weight == nullptr || weight->numel() == input.size(1);
}

// (input, target, weight, reduction, ignored class) over images: loss and total weight
bool nll_loss2d(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& input = in.tensor(0);
  const at::Tensor& target = in.tensor(1);
  const auto dtype = input.scalar_type();
  if (input.numel() == 0 || !is_reduction(in, 3) || !target_fits(input, target, in.given(2) ? &in.tensor(2) : nullptr)) return false;
  return give(entry, {in.integer(3) == 0 ? contiguous(target.sizes(), dtype) : contiguous({}, dtype), contiguous({}, dtype)});
}

bool nll_loss2d_backward(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& input = in.tensor(1);
  const at::Tensor& target = in.tensor(2);
  if (!input.is_contiguous() || !target_fits(input, target, in.given(3) ? &in.tensor(3) : nullptr)) return false;
  if (in.tensor(0).sizes() != (in.integer(4) == 0 ? target.sizes() : at::IntArrayRef())) return false;
  return give(entry, {contiguous(input.sizes(), input.scalar_type())});
}

}  // namespace

at::ArrayRef<Rule> pooling_rules() {
  static constexpr Rule rules[] = {
      {"_adaptive_avg_pool2d", adaptive_pool<2>},
      {"_adaptive_avg_pool3d", adaptive_pool<3>},
      {"_adaptive_avg_pool2d_backward", adaptive_pool_backward<2>},
      {"_adaptive_avg_pool3d_backward", adaptive_pool_backward<3>},
      {"max_pool1d", max_pool1d},
      {"max_pool3d_with_indices", max_pool3d},
      {"max_pool3d_with_indices_backward", max_pool3d_backward},
      {"max_unpool2d", max_unpool2d},
      {"grid_sampler_2d", grid_sample},
      {"grid_sampler_3d", grid_sample},
      {"grid_sampler_2d_backward", grid_sample_backward},
      {"grid_sampler_3d_backward", grid_sample_backward},
      {"reflection_pad1d", pad<1, true>},
      {"reflection_pad2d", pad<2, true>},
      {"reflection_pad3d", pad<3, true>},
      {"replication_pad1d", pad<1, false>},
      {"replication_pad2d", pad<2, false>},
      {"replication_pad3d", pad<3, false>},
      {"reflection_pad1d_backward", pad_backward<1>},
      {"reflection_pad2d_backward", pad_backward<2>},
      {"reflection_pad3d_backward", pad_backward<3>},
      {"replication_pad1d_backward", pad_backward<1>},
      {"replication_pad2d_backward", pad_backward<2>},
      {"replication_pad3d_backward", pad_backward<3>},
      {"im2col", im2col},
      {"col2im", col2im},
      {"nll_loss2d_forward", nll_loss2d},
      {"nll_loss2d_backward", nll_loss2d_backward},
  };
  return rules;
}

}  // namespace openreg::engine::shapes
