// Nested tensors of the strided layout. Sizes, strides and offsets of the components are CPU tensors, as on every device, so core's
// functions over the buffer and the components are kernels of this device: they call its dense operators and know all metadata.
// Those whose CPU kernel reads the buffer itself run on the engine.
#include <ATen/NativeFunctions.h>
#include <ATen/NestedTensorImpl.h>
#include <ATen/native/nested/NestedTensorUtils.h>
#include <torch/library.h>

#include <array>
#include <tuple>

#include "aten/engine/engine.h"
#include "aten/guarded.h"

namespace openreg {

namespace native = at::native;

namespace {

using at::Tensor;
using Three = std::tuple<Tensor, Tensor, Tensor>;
using MaybeTensor = std::optional<Tensor>;

// How many elements one normalised group has; 0 where only the CPU knows what to say.
int64_t group_elements(const Tensor& input, at::IntArrayRef shape, const MaybeTensor& weight, const MaybeTensor& bias) {
  const auto given = [&](const MaybeTensor& tensor) { return tensor && tensor->defined() && !tensor->is_nested() && tensor->sizes() == shape; };
  const auto* impl = native::get_nested_tensor_impl(input);
  const auto dims = static_cast<int64_t>(shape.size());
  if (!given(weight) || !given(bias) || dims == 0 || dims >= input.dim() || !native::nested_tensor_impl_is_contiguous(impl)) return 0;
  int64_t elements = 1;
  for (int64_t i = 0; i < dims; ++i) {
    const auto size = impl->opt_size(input.dim() - dims + i);
    if (!size || *size != shape[i]) return 0;
    elements *= *size;
  }
  return elements;
}

Three layer_norm(const Tensor& input, at::IntArrayRef shape, const MaybeTensor& weight, const MaybeTensor& bias, double eps) {
  const int64_t elements = input.is_nested() ? group_elements(input, shape, weight, bias) : 0;
  if (elements == 0) {
    static const auto op = engine::find_op("aten::native_layer_norm", "");
    const auto results = engine::call(op, input, shape, weight, bias, eps);
    return {results[0].toTensor(), results[1].toTensor(), results[2].toTensor()};
  }
  const auto [output, mean, rstd] =
      at::native_layer_norm(native::get_buffer(input).view({-1, elements}), {elements}, weight->reshape({elements}), bias->reshape({elements}), eps);
  return {native::wrap_buffer(output.reshape({-1}), native::get_nested_sizes(input)), mean.reshape({-1}), rstd.reshape({-1})};
}

Three layer_norm_backward(const Tensor& grad, const Tensor& input, at::IntArrayRef shape, const Tensor& mean, const Tensor& rstd,
                          const MaybeTensor& weight, const MaybeTensor& bias, std::array<bool, 3> mask) {
  const int64_t elements = input.is_nested() && grad.is_nested() && native::nested_tensor_impl_is_contiguous(native::get_nested_tensor_impl(grad))
                               ? group_elements(input, shape, weight, bias)
                               : 0;
  if (elements == 0) {
    static const auto op = engine::find_op("aten::native_layer_norm_backward", "");
    const auto results = engine::call(op, grad, input, shape, mean, rstd, weight, bias, c10::List<bool>({mask[0], mask[1], mask[2]}));
    return {results[0].toTensor(), results[1].toTensor(), results[2].toTensor()};
  }
  const auto rows = [&](const Tensor& nested) { return native::get_buffer(nested).view({-1, elements}); };
  auto [grad_input, grad_weight, grad_bias] =
      at::native_layer_norm_backward(rows(grad), rows(input), {elements}, mean.reshape({-1, 1}), rstd.reshape({-1, 1}),
                                     weight->reshape({elements}), bias->reshape({elements}), mask);
  if (grad_input.defined()) grad_input = native::wrap_buffer(grad_input.reshape({-1}), native::get_nested_sizes(input));
  if (grad_weight.defined()) grad_weight = grad_weight.reshape(shape);
  if (grad_bias.defined()) grad_bias = grad_bias.reshape(shape);
  return {grad_input, grad_weight, grad_bias};
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, NestedTensorPrivateUse1, m) {
  m.impl("native_dropout", Guarded<native::native_dropout_nested>::call);
  m.impl("native_dropout_backward", Guarded<native::native_dropout_backward>::call);
  m.impl("abs", Guarded<native::NestedTensor_abs>::call);
  m.impl("abs_", Guarded<native::NestedTensor_abs_>::call);
  m.impl("sgn", Guarded<native::NestedTensor_sgn>::call);
  m.impl("sgn_", Guarded<native::NestedTensor_sgn_>::call);
  m.impl("add.Tensor", Guarded<native::NestedTensor_add_Tensor>::call);
  m.impl("add_.Tensor", Guarded<native::NestedTensor_add__Tensor>::call);
  m.impl("all.dim", Guarded<native::NestedTensor_all>::call);
  m.impl("logical_not", Guarded<native::NestedTensor_logical_not>::call);
  m.impl("logical_not_", Guarded<native::NestedTensor_logical_not_>::call);
  m.impl("bmm", Guarded<native::bmm_nested>::call);
  m.impl("cat", Guarded<native::cat_nested>::call);
  m.impl("chunk", Guarded<native::chunk_nested_tensor>::call);
  m.impl("copy_", Guarded<native::copy_nested_>::call);
  m.impl("cos", Guarded<native::NestedTensor_cos>::call);
  m.impl("div.Tensor", Guarded<native::NestedTensor_div_Tensor>::call);
  m.impl("div.Scalar", Guarded<native::NestedTensor_div_Scalar>::call);
  m.impl("embedding", Guarded<native::NestedTensor_embedding>::call);
  m.impl("empty_like", Guarded<native::empty_like_nested>::call);
  m.impl("fill_.Scalar", Guarded<static_cast<Tensor& (*)(Tensor&, const at::Scalar&)>(native::fill_nested_)>::call);
  m.impl("fill_.Tensor", Guarded<static_cast<Tensor& (*)(Tensor&, const Tensor&)>(native::fill_nested_)>::call);
  m.impl("isnan", Guarded<native::NestedTensor_isnan>::call);
  m.impl("is_same_size", Guarded<native::nested_is_same_size>::call);
  m.impl("linear", Guarded<native::nested_linear>::call);
  m.impl("linear_backward", Guarded<native::nested_linear_backward>::call);
  m.impl("matmul", Guarded<native::matmul_nested>::call);
  m.impl("matmul_backward", Guarded<native::matmul_backward_nested>::call);
  m.impl("matmul.out", Guarded<native::matmul_out_nested>::call);
  m.impl("value_selecting_reduction_backward", Guarded<native::value_selecting_reduction_backward_nested_symint>::call);
  m.impl("mul.Tensor", Guarded<native::NestedTensor_mul_Tensor>::call);
  m.impl("mul_.Tensor", Guarded<native::NestedTensor_mul__Tensor>::call);
  m.impl("mul.Scalar", Guarded<native::NestedTensor_mul_Scalar>::call);
  m.impl("mul_.Scalar", Guarded<native::NestedTensor_mul__Scalar>::call);
  m.impl("narrow", Guarded<native::narrow_nested_symint>::call);
  m.impl("ones_like", Guarded<native::ones_like>::call);
  m.impl("neg", Guarded<native::NestedTensor_neg>::call);
  m.impl("neg_", Guarded<native::NestedTensor_neg_>::call);
  m.impl("relu", Guarded<native::NestedTensor_relu>::call);
  m.impl("relu_", Guarded<native::NestedTensor_relu_>::call);
  m.impl("gelu_", Guarded<native::NestedTensor_gelu_>::call);
  m.impl("gelu", Guarded<native::NestedTensor_gelu>::call);
  m.impl("gelu_backward", Guarded<native::gelu_backwards_nested>::call);
  m.impl("select.int", Guarded<native::select_nested>::call);
  m.impl("_nested_select_backward", Guarded<native::_nested_select_backward_symint>::call);
  m.impl("silu", Guarded<native::NestedTensor_silu>::call);
  m.impl("silu_", Guarded<native::NestedTensor_silu_>::call);
  m.impl("silu_backward", Guarded<native::silu_backward_nested>::call);
  m.impl("sin", Guarded<native::NestedTensor_sin>::call);
  m.impl("detach", Guarded<native::detach>::call);
  m.impl("_softmax", Guarded<native::softmax_nested>::call);
  m.impl("_softmax_backward_data", Guarded<native::nested_softmax_backward>::call);
  m.impl("split_with_sizes", Guarded<native::split_with_sizes_nested>::call);
  m.impl("squeeze", Guarded<native::squeeze_nested>::call);
  m.impl("squeeze.dim", Guarded<static_cast<Tensor (*)(const Tensor&, int64_t)>(native::squeeze_dim_nested)>::call);
  m.impl("squeeze.dims", Guarded<static_cast<Tensor (*)(const Tensor&, at::IntArrayRef)>(native::squeeze_dim_nested)>::call);
  m.impl("sqrt", Guarded<native::NestedTensor_sqrt>::call);
  m.impl("tanh", Guarded<native::NestedTensor_tanh>::call);
  m.impl("tanh_", Guarded<native::NestedTensor_tanh_>::call);
  m.impl("threshold_backward", Guarded<native::threshold_backwards_nested>::call);
  m.impl("transpose.int", Guarded<native::transpose_nested>::call);
  m.impl("_nested_tensor_size", Guarded<native::_nested_tensor_size>::call);
  m.impl("_nested_tensor_strides", Guarded<native::_nested_tensor_strides>::call);
  m.impl("_nested_tensor_storage_offsets", Guarded<native::_nested_tensor_storage_offsets>::call);
  m.impl("_nested_from_padded_and_nested_example", Guarded<native::NestedTensor_from_padded_and_nested_example>::call);
  m.impl("unsqueeze", Guarded<native::unsqueeze_nested>::call);
  m.impl("where.self", Guarded<native::NestedTensor_where>::call);
  m.impl("where.self_out", Guarded<native::NestedTensor_where_out>::call);
  m.impl("clone", Guarded<native::clone_nested>::call);
  m.impl("zero_", Guarded<native::zero_nested_>::call);
  m.impl("sub.Tensor", Guarded<native::NestedTensor_sub_Tensor>::call);
  m.impl("values", Guarded<native::values_nested>::call);
  m.impl("unbind.int", Guarded<native::NestedTensor_unbind>::call);
  m.impl("_to_copy", Guarded<native::_to_copy_nested>::call);
  m.impl("masked_fill.Scalar", Guarded<native::NestedTensor_masked_fill>::call);
  m.impl("view", Guarded<native::view_nested>::call);
  m.impl("eq.Scalar", Guarded<native::eq_scalar_nested>::call);
  m.impl("eq.Tensor", Guarded<native::eq_tensor_nested>::call);
  m.impl("ge.Scalar", Guarded<native::ge_scalar_nested>::call);
  m.impl("gt.Scalar", Guarded<native::gt_scalar_nested>::call);
  m.impl("normal_", Guarded<native::normal_nested_>::call);
  m.impl("alias", Guarded<native::alias_nested>::call);
  m.impl("isinf", Guarded<native::NestedTensor_isinf>::call);
  m.impl("isposinf", Guarded<native::NestedTensor_isposinf>::call);
  m.impl("isneginf", Guarded<native::NestedTensor_isneginf>::call);
  m.impl("to_padded_tensor", Guarded<native::NestedTensor_to_padded_tensor_generic>::call);
  m.impl("_nested_tensor_softmax_with_shape", Guarded<native::NestedTensor_softmax_dropout>::call);
  m.impl("_safe_softmax", Guarded<native::_safe_softmax>::call);
  m.impl("_transformer_encoder_layer_fwd", Guarded<native::transformer_encoder_layer_forward>::call);
  m.impl("_native_multi_head_attention", Guarded<native::native_multi_head_attention_cpu>::call);
  m.impl("native_layer_norm", layer_norm);
  m.impl("native_layer_norm_backward", layer_norm_backward);
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("_nested_from_padded", Guarded<native::nested_from_padded_generic>::call);
  m.impl("_nested_tensor_from_mask", Guarded<native::NestedTensor_nested_tensor_from_mask>::call);
  m.impl("_nested_tensor_from_mask_left_aligned", Guarded<native::NestedTensor_nested_tensor_from_mask_left_aligned>::call);
  m.impl("_nested_view_from_buffer", Guarded<native::_nested_view_from_buffer>::call);
  m.impl("_transformer_encoder_layer_fwd", Guarded<native::transformer_encoder_layer_forward>::call);
  m.impl("_native_multi_head_attention", Guarded<native::native_multi_head_attention_cpu>::call);
}

}  // namespace openreg
