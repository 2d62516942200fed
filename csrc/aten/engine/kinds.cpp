// Arguments and results that are more than strided memory: sparse, quantized and nested tensors, class objects.
#include <ATen/NestedTensorImpl.h>
#include <ATen/ops/_sparse_compressed_tensor_unsafe.h>
#include <ATen/ops/_sparse_coo_tensor_unsafe.h>
#include <ATen/ops/empty.h>
#include <ATen/quantized/QTensorImpl.h>
#include <ATen/quantized/Quantizer.h>

#include <bit>
#include <cstring>

#include "aten/engine/argument_words.h"
#include "aten/engine/arguments.h"
#include "aten/engine/result.h"
#include "aten/tensor.h"

namespace openreg::engine {

namespace {

// What stands in the head of a quantized tensor. The names of c10::QScheme, and one for a tensor whose quantizer is not known yet.
enum class Scheme : uint8_t { unknown, per_tensor, per_channel };

Scheme scheme_of(const at::Quantizer& quantizer) {
  if (dynamic_cast<const at::PerTensorAffineQuantizer*>(&quantizer)) return Scheme::per_tensor;
  if (dynamic_cast<const at::PerChannelAffineQuantizer*>(&quantizer)) return Scheme::per_channel;
  return Scheme::unknown;
}

const at::PerChannelAffineQuantizer& per_channel(const at::Quantizer& quantizer) {
  return static_cast<const at::PerChannelAffineQuantizer&>(quantizer);
}

at::Tensor quantized_over(const at::Tensor& ints, c10::DispatchKey key, at::QuantizerPtr quantizer) {
  at::Tensor tensor = at::detail::make_tensor<at::QTensorImpl>(c10::Storage(ints.storage()), c10::DispatchKeySet(key), ints.dtype(),
                                                               std::move(quantizer));
  tensor.unsafeGetTensorImpl()->set_sizes_and_strides(ints.sizes(), ints.strides(), ints.storage_offset());
  return tensor;
}

}  // namespace

c10::SmallVector<at::Tensor, 3> members_of(const at::Tensor& sparse) {
  const auto layout = sparse.layout();
  if (layout == at::kSparse) return {sparse._indices(), sparse._values()};
  if (layout == at::kSparseCsr || layout == at::kSparseBsr) return {sparse.crow_indices(), sparse.col_indices(), sparse.values()};
  return {sparse.ccol_indices(), sparse.row_indices(), sparse.values()};
}

bool Encoder::add_sparse(const at::Tensor& tensor) {
  const auto layout = tensor.layout();
  full_dispatch_ = true;
  if (add_again(tensor.unsafeGetTensorImpl())) return true;
  const size_t dims = tensor.sizes().size();
  if (layout == at::kSparse) {
    push_shape_head(head(Tag::sparse_coo, static_cast<uint8_t>(tensor.scalar_type()), tensor.is_coalesced() ? kCoalesced : 0, dims_byte(dims)), dims);
  } else {
    push_shape_head(head(Tag::sparse_compressed, static_cast<uint8_t>(tensor.scalar_type()), static_cast<uint8_t>(layout), dims_byte(dims)), dims);
  }
  for (const int64_t size : tensor.sizes()) push_both(static_cast<uint64_t>(size));
  for (at::Tensor& member : members_of(tensor)) {
    if (!add_part(std::move(member))) return false;
  }
  tensors_.push_back(tensor.unsafeGetTensorImpl());
  return true;
}

bool Encoder::add_quantized(const at::Tensor& tensor) {
  full_dispatch_ = true;
  const at::QuantizerPtr quantizer = at::get_qtensorimpl(tensor)->quantizer();
  const Scheme scheme = scheme_of(*quantizer);
  push_both(head(Tag::quantized, static_cast<uint8_t>(scheme)));
  if (scheme == Scheme::per_tensor) {
    const auto& affine = static_cast<const at::PerTensorAffineQuantizer&>(*quantizer);
    push_both(std::bit_cast<uint64_t>(affine.scale()));
    push_both(static_cast<uint64_t>(affine.zero_point()));
  } else if (scheme == Scheme::per_channel) {
    push_both(static_cast<uint64_t>(per_channel(*quantizer).axis()));
    if (!add_part(per_channel(*quantizer).scales()) || !add_part(per_channel(*quantizer).zero_points())) return false;
  }
  add_tensor(tensor);
  return true;
}

// Sizes, strides and offsets are CPU tensors, whatever the device of the elements.
bool Encoder::add_nested(const at::Tensor& tensor) {
  full_dispatch_ = true;
  const auto* impl = at::native::get_nested_tensor_impl(tensor);
  push_both(head(Tag::nested));
  add_inline(impl->get_nested_sizes());
  add_inline(impl->get_nested_strides());
  add_inline(impl->get_storage_offsets());
  return add_part(impl->get_unsafe_storage_as_tensor());
}

void Encoder::add_object(const c10::IValue& value) {
  full_dispatch_ = true;
  push(head(Tag::object, 0, 0, 0, static_cast<uint32_t>(objects_.size())));
  objects_.push_back(value);
}

at::Tensor Decoder::read_sparse(uint64_t word) {
  const size_t dims = pop_dims(word);
  const at::IntArrayRef sizes(reinterpret_cast<const int64_t*>(next_), dims);
  next_ += dims;
  const auto options = at::TensorOptions().dtype(static_cast<c10::ScalarType>(a_of(word)));
  const at::Tensor first = read_tensor();
  const at::Tensor second = read_tensor();
  if (tag_of(word) == Tag::sparse_coo) {
    tensors_.push_back(at::_sparse_coo_tensor_unsafe(first, second, sizes, options.layout(at::kSparse), (b_of(word) & kCoalesced) != 0));
  } else {
    const at::Tensor values = read_tensor();
    tensors_.push_back(at::_sparse_compressed_tensor_unsafe(first, second, values, sizes, options.layout(static_cast<at::Layout>(b_of(word)))));
  }
  return tensors_.back();
}

at::Tensor Decoder::read_quantized(uint64_t word) {
  const auto scheme = static_cast<Scheme>(a_of(word));
  double scale = 0;
  int64_t zero_point_or_axis = 0;
  at::Tensor scales, zero_points;
  if (scheme == Scheme::per_tensor) scale = std::bit_cast<double>(pop());
  if (scheme != Scheme::unknown) zero_point_or_axis = static_cast<int64_t>(pop());
  if (scheme == Scheme::per_channel) {
    scales = read_tensor();
    zero_points = read_tensor();
  }
  const at::Tensor ints = read_tensor();
  const c10::ScalarType dtype = ints.scalar_type();
  at::QuantizerPtr quantizer = scheme == Scheme::per_tensor    ? at::make_per_tensor_affine_quantizer(scale, zero_point_or_axis, dtype)
                               : scheme == Scheme::per_channel ? at::make_per_channel_affine_quantizer(scales, zero_points, zero_point_or_axis, dtype)
                                                               : at::make_unknown_quantizer(dtype);
  return quantized_over(ints, c10::DispatchKey::QuantizedCPU, std::move(quantizer));
}

at::Tensor Decoder::read_nested() {
  const at::Tensor sizes = read_tensor(), strides = read_tensor(), offsets = read_tensor();
  return at::detail::make_tensor<at::native::NestedTensorImpl>(read_tensor(), sizes, strides, offsets);
}

at::QuantizerPtr ResultAdopter::adopt_quantizer(const at::Tensor& result) {
  at::QuantizerPtr quantizer = at::get_qtensorimpl(result)->quantizer();
  if (scheme_of(*quantizer) != Scheme::per_channel) return quantizer;
  const auto& channels = per_channel(*quantizer);
  return at::make_per_channel_affine_quantizer(adopt_strided(channels.scales()), adopt_strided(channels.zero_points()), channels.axis(),
                                               result.scalar_type());
}

at::Tensor ResultAdopter::adopt_quantized(const at::Tensor& result) {
  return quantized_over(adopt_strided(result), c10::DispatchKey::QuantizedPrivateUse1, adopt_quantizer(result));
}

at::Tensor ResultAdopter::adopt_nested(const at::Tensor& result) {
  const auto* impl = at::native::get_nested_tensor_impl(result);
  return at::detail::make_tensor<at::native::NestedTensorImpl>(adopt_strided(impl->get_unsafe_storage_as_tensor()), impl->get_nested_sizes(),
                                                               impl->get_nested_strides(), impl->get_storage_offsets());
}

}  // namespace openreg::engine
