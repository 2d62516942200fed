// Elementwise operators and losses: the iterator that the CPU's kernels use, built over tensors without memory.
#include <ATen/ExpandUtils.h>
#include <ATen/TensorIterator.h>
#include <ATen/WrapDimUtils.h>
#include <ATen/core/Reduction.h>
#include <ATen/ops/result_type.h>

#include "aten/engine/infer.h"
#include "aten/engine/shapes/shape.h"

namespace openreg::engine::shapes {

namespace {

using c10::ScalarType;

// The result of an elementwise kernel over these operands, in the order that the CPU adds them.
ResultMeta iterate(std::initializer_list<const at::Tensor*> operands, ScalarType dtype) {
  at::TensorIteratorConfig config;
  config.set_check_mem_overlap(false).check_all_same_dtype(false).add_owned_output(at::Tensor());
  for (const at::Tensor* operand : operands) config.add_owned_const_input(operand->device().is_cpu() ? *operand : meta_twin(*operand));
  config.declare_static_dtype_and_device(dtype, at::kMeta);
  const at::TensorIterator iterator = config.build();
  return strided(iterator.output().sizes(), iterator.output().strides(), dtype);
}

ScalarType promoted(const Arguments& in, size_t a, size_t b) { return at::result_type(in.tensor(a), in.tensor(b)); }

bool all_same_size(const Arguments& in, size_t first, size_t count) {
  for (size_t i = first + 1; i < first + count; ++i) {
    if (in.tensor(i).sizes() != in.tensor(first).sizes()) return false;
  }
  return true;
}

bool where(const Arguments& in, MemoEntry& entry) {
  return give(entry, {iterate({&in.tensor(0), &in.tensor(1), &in.tensor(2)}, promoted(in, 1, 2))});
}
bool where_out(const Arguments& in, MemoEntry& entry) {
  return give_out(in, 3, iterate({&in.tensor(0), &in.tensor(1), &in.tensor(2)}, promoted(in, 1, 2)), entry);
}
bool binary(const Arguments& in, MemoEntry& entry) { return give(entry, {iterate({&in.tensor(0), &in.tensor(1)}, promoted(in, 0, 1))}); }
bool reversed(const Arguments& in, MemoEntry& entry) { return give(entry, {iterate({&in.tensor(1), &in.tensor(0)}, promoted(in, 0, 1))}); }
bool binary_out(const Arguments& in, MemoEntry& entry) {
  return give_out(in, 2, iterate({&in.tensor(0), &in.tensor(1)}, promoted(in, 0, 1)), entry);
}
// A whole exponent keeps the type of a floating point number.
bool scaled_by_power(const Arguments& in) { return in.tensor(0).is_floating_point() && c10::isIntegralType(in.tensor(1).scalar_type(), /*includeBool=*/false); }
bool ldexp(const Arguments& in, MemoEntry& entry) { return scaled_by_power(in) && binary(in, entry); }
bool ldexp_out(const Arguments& in, MemoEntry& entry) { return scaled_by_power(in) && binary_out(in, entry); }
bool unary(const Arguments& in, MemoEntry& entry) { return give(entry, {iterate({&in.tensor(0)}, in.tensor(0).scalar_type())}); }
bool unary_floating(const Arguments& in, MemoEntry& entry) { return give(entry, {iterate({&in.tensor(0)}, floating(in.tensor(0).scalar_type()))}); }
bool unary_predicate(const Arguments& in, MemoEntry& entry) { return give(entry, {iterate({&in.tensor(0)}, ScalarType::Bool)}); }
bool last_is_out(const Arguments& in, MemoEntry& entry) {
  return give_out(in, in.size() - 1, iterate({&in.tensor(0)}, in.tensor(0).scalar_type()), entry);
}

// The real result of a complex tensor has strides of its own where the tensor's are not the plain ones.
bool odd_complex(const at::Tensor& self) {
  return self.is_complex() && self.strides() != at::IntArrayRef(contiguous(self.sizes(), self.scalar_type()).strides);
}
// The type of a complex tensor's parts, or the given one.
bool real_part(const Arguments& in, ScalarType otherwise, MemoEntry& entry) {
  const at::Tensor& self = in.tensor(0);
  return !odd_complex(self) && give(entry, {iterate({&self}, self.is_complex() ? c10::toRealValueType(self.scalar_type()) : otherwise)});
}
bool absolute(const Arguments& in, MemoEntry& entry) { return real_part(in, in.tensor(0).scalar_type(), entry); }
bool angle(const Arguments& in, MemoEntry& entry) { return real_part(in, floating(in.tensor(0).scalar_type()), entry); }

// gradient and input of one size, no broadcasting
bool backward(const Arguments& in, MemoEntry& entry) {
  return all_same_size(in, 0, 2) && give(entry, {iterate({&in.tensor(0), &in.tensor(1)}, promoted(in, 0, 1))});
}

bool dropout_backward(const Arguments& in, MemoEntry& entry) { return in.tensor(0).is_floating_point() && backward(in, entry); }

// (gradient, input): the result has the input's type
bool mish_backward(const Arguments& in, MemoEntry& entry) {
  return all_same_size(in, 0, 2) && give(entry, {iterate({&in.tensor(0), &in.tensor(1)}, in.tensor(1).scalar_type())});
}

bool log_sigmoid(const Arguments& in, MemoEntry& entry) {
  const auto result = contiguous(in.tensor(0).sizes(), in.tensor(0).scalar_type());
  return in.tensor(0).is_contiguous() && give(entry, {result, result});
}
bool log_sigmoid_backward(const Arguments& in, MemoEntry& entry) {
  if (in.tensor(1).numel() == 0 || !all_same_size(in, 0, 3) || !plain_gradient(in.tensor(0)) || !in.tensor(1).is_contiguous()) return false;
  return give(entry, {contiguous(in.tensor(0).sizes(), in.tensor(0).scalar_type())});
}

bool prelu_backward(const Arguments& in, MemoEntry& entry) {
  const ResultMeta result = iterate({&in.tensor(1), &in.tensor(2), &in.tensor(0)}, in.tensor(1).scalar_type());
  return give(entry, {result, result});
}

// (input, target, reduction, delta)
bool huber_loss(const Arguments& in, MemoEntry& entry) {
  if (!all_same_size(in, 0, 2) || !is_reduction(in, 2) || !(in[3].toDouble() > 0)) return false;
  if (in.integer(2) != at::Reduction::None) return give(entry, {contiguous({}, in.tensor(0).scalar_type())});
  return give(entry, {iterate({&in.tensor(0), &in.tensor(1)}, in.tensor(0).scalar_type())});
}

bool weight_fits(const Arguments& in, size_t weight, const at::Tensor& input) {
  return !in.given(weight) || at::is_expandable_to(in.tensor(weight).sizes(), input.sizes());
}
bool binary_cross_entropy(const Arguments& in, MemoEntry& entry) {
  if (!weight_fits(in, 2, in.tensor(0)) || !all_same_size(in, 0, 2) || !is_reduction(in, 3)) return false;
  return give(entry, {in.integer(3) == at::Reduction::None ? like(in.tensor(0)) : contiguous({}, in.tensor(0).scalar_type())});
}
bool binary_cross_entropy_backward(const Arguments& in, MemoEntry& entry) {
  if (!weight_fits(in, 3, in.tensor(1)) || !all_same_size(in, 1, 2)) return false;
  return at::is_expandable_to(in.tensor(0).sizes(), in.tensor(1).sizes()) && give(entry, {like(in.tensor(1))});
}
bool mse_loss_backward(const Arguments& in, MemoEntry& entry) {
  if (!all_same_size(in, 1, 2) || !at::is_expandable_to(in.tensor(0).sizes(), in.tensor(1).sizes())) return false;
  return give(entry, {contiguous(in.tensor(1).sizes(), in.tensor(1).scalar_type())});
}

// (grad_output, input, target, reduction, number, grad_input): the gradient has its size already
bool loss_backward_out(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& out = in.tensor(in.size() - 1);
  if (!all_same_size(in, 1, 2) || !at::is_expandable_to(in.tensor(0).sizes(), in.tensor(1).sizes())) return false;
  entry.results.emplace_back();
  return out.sizes() == in.tensor(1).sizes() && in[4].toDouble() > 0;
}

// (gradient, input, dimension that was halved)
bool glu_backward(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& input = in.tensor(1);
  if (input.dim() == 0) return false;
  Sizes halved = input.sizes().vec();
  int64_t& size = halved[c10::maybe_wrap_dim(in.integer(2), input.dim())];
  if (size % 2 != 0) return false;
  size /= 2;
  return in.tensor(0).sizes() == at::IntArrayRef(halved) && give(entry, {contiguous(input.sizes(), input.scalar_type())});
}

// In place, with operands that must fit into the first.
bool fits_first(const Arguments& in, MemoEntry& entry) {
  for (size_t i = 1; i < in.size(); ++i) {
    if (in.given(i) && !at::is_expandable_to(in.tensor(i).sizes(), in.tensor(0).sizes())) return false;
  }
  entry.results.emplace_back();
  return true;
}

}  // namespace

at::ArrayRef<Rule> pointwise_rules() {
  static constexpr Rule rules[] = {
      {"where.self", where},
      {"where.self_out", where_out},
      {"floor_divide", binary},
      {"rsub.Tensor", reversed},
      {"ldexp.Tensor", ldexp},
      {"ldexp.out", ldexp_out},
      {"_prelu_kernel", binary},
      {"_prelu_kernel_backward", prelu_backward},
      {"complex.out", binary_out},
      {"polar.out", binary_out},
      {"logical_and.out", binary_out},
      {"logical_or.out", binary_out},
      {"logical_xor.out", binary_out},
      {"logical_not.out", last_is_out},
      {"nan_to_num.out", last_is_out},
      {"conj_physical.out", last_is_out},
      {"relu", unary},
      {"hardswish", unary},
      {"hardtanh", unary},
      {"logit", unary_floating},
      {"isnan", unary_predicate},
      {"abs", absolute},
      {"angle", angle},
      {"hardswish_backward", backward},
      {"hardtanh_backward", backward},
      {"mish_backward", mish_backward},
      {"log_sigmoid_forward", log_sigmoid},
      {"log_sigmoid_backward", log_sigmoid_backward},
      {"glu_backward", glu_backward},
      {"huber_loss", huber_loss},
      {"mse_loss_backward", mse_loss_backward},
      {"huber_loss_backward.out", loss_backward_out},
      {"smooth_l1_loss_backward.grad_input", loss_backward_out},
      {"binary_cross_entropy", binary_cross_entropy},
      {"binary_cross_entropy_backward", binary_cross_entropy_backward},
      {"masked_fill_.Scalar", fits_first},
      {"masked_fill_.Tensor", fits_first},
      {"native_dropout_backward", dropout_backward},
  };
  return rules;
}

}  // namespace openreg::engine::shapes
