// Operators over lists of tensors, in place: foreach and fused optimizers. Every list has tensors of the first list's sizes.
#include "aten/engine/shapes/shape.h"

namespace openreg::engine::shapes {

namespace {

// Lists whose tensors are numbers of their own: the step counts of fused optimizers, and scalars.
bool one_number(const std::vector<at::Tensor>& list) {
  for (const at::Tensor& tensor : list) {
    if (tensor.numel() != 1) return false;
  }
  return true;
}

bool same_sizes(const Arguments& in, MemoEntry& entry) {
  const std::vector<at::Tensor> first = in.tensors(0);
  for (size_t i = 0; i < in.size(); ++i) {
    if (in[i].isTensor() && in.given(i) && in.tensor(i).numel() != 1) return false;
    if (in[i].isList() && !in[i].isTensorList() && in[i].toListRef().size() != first.size()) return false;
    if (!in[i].isTensorList()) continue;
    const std::vector<at::Tensor> list = in.tensors(i);
    if (list.empty() || (list.size() == first.size() && one_number(list))) continue;
    if (list.size() != first.size()) return false;
    for (size_t k = 0; k < list.size(); ++k) {
      if (list[k].sizes() != first[k].sizes()) return false;
    }
  }
  return true;
}

}  // namespace

at::ArrayRef<Rule> list_rules() {
  static constexpr Rule rules[] = {
#define OPENREG_LIST(name) {"_foreach_" name, same_sizes}
      OPENREG_LIST("add_.List"), OPENREG_LIST("add_.Scalar"), OPENREG_LIST("add_.ScalarList"), OPENREG_LIST("add_.Tensor"),
      OPENREG_LIST("sub_.List"), OPENREG_LIST("sub_.Scalar"), OPENREG_LIST("sub_.ScalarList"), OPENREG_LIST("mul_.List"),
      OPENREG_LIST("mul_.Scalar"), OPENREG_LIST("mul_.ScalarList"), OPENREG_LIST("mul_.Tensor"), OPENREG_LIST("div_.List"),
      OPENREG_LIST("div_.Scalar"), OPENREG_LIST("div_.ScalarList"), OPENREG_LIST("div_.Tensor"), OPENREG_LIST("addcmul_.Scalar"),
      OPENREG_LIST("addcmul_.ScalarList"), OPENREG_LIST("addcmul_.Tensor"), OPENREG_LIST("addcdiv_.Scalar"),
      OPENREG_LIST("addcdiv_.ScalarList"), OPENREG_LIST("addcdiv_.Tensor"), OPENREG_LIST("lerp_.List"), OPENREG_LIST("lerp_.Scalar"),
      OPENREG_LIST("lerp_.ScalarList"), OPENREG_LIST("maximum_.List"), OPENREG_LIST("clamp_min_.Scalar"), OPENREG_LIST("clamp_max_.Scalar"),
      OPENREG_LIST("pow_.Scalar"), OPENREG_LIST("copy_"), OPENREG_LIST("zero_"), OPENREG_LIST("exp_"), OPENREG_LIST("neg_"),
      OPENREG_LIST("sqrt_"), OPENREG_LIST("rsqrt_"), OPENREG_LIST("reciprocal_"), OPENREG_LIST("sign_"),
#undef OPENREG_LIST
      {"_fused_adam_", same_sizes},
      {"_fused_adam_.tensor_lr", same_sizes},
      {"_fused_adamw_", same_sizes},
      {"_fused_adamw_.tensor_lr", same_sizes},
      {"_fused_sgd_", same_sizes},
      {"_fused_sgd_.tensor_lr", same_sizes},
      {"_fused_adagrad_", same_sizes},
      {"_fused_adagrad_.tensor_lr", same_sizes},
      {"_amp_foreach_non_finite_check_and_unscale_", same_sizes},
  };
  return rules;
}

}  // namespace openreg::engine::shapes
