// The operators over tensor lists that optimizers use, on device kernels: one launch for up to 64 tensors. Lists that a kernel does not
// cover (other dtypes, layouts that differ, overlaps, numbers that are no real ones) go to the engine.
#include <torch/library.h>

#include <ATen/ops/sqrt.h>

#include <cmath>
#include <limits>

#include "aten/engine/lists.h"
#include "aten/kernels/foreach.h"
#include "aten/native_op.h"
#include "aten/tensor.h"
#include "runtime/stream.h"

namespace openreg {
namespace {

using kernels::DType;
using kernels::ForeachEntry;
using kernels::ForeachOp;

constexpr size_t kMaxEntries = 64;

Kernel* find_kernel(ForeachOp op, c10::ScalarType type) {
  static KernelSlot slots[kernels::kForeachOps][kernels::kDTypes];
  static const char* const names[kernels::kForeachOps] = {
      "foreach_add_scalar", "foreach_mul_scalar", "foreach_div_scalar", "foreach_sqrt",    "foreach_add_scaled",
      "foreach_mul",        "foreach_div",        "foreach_lerp",       "foreach_addcmul", "foreach_addcdiv"};
  return openreg::find_kernel(slots[int(op)], type, names[int(op)], [op](DType dtype) { return kernels::foreach_kernel(op, dtype); });
}

// A call that a kernel covers. The entries get their addresses at the launch.
struct ListCall {
  Kernel* kernel = nullptr;
  c10::DeviceIndex device = -1;
  at::TensorList self, a, b, out;
  c10::SmallVector<ForeachEntry, 16> entries;
};

// Whether `operand` lies beside `self` element by element.
bool matches(const at::Tensor& self, const at::Tensor& operand) {
  if (&self == &operand) return true;
  return is_plain(operand) && operand.scalar_type() == self.scalar_type() && operand.device() == self.device() &&
         operand.sizes() == self.sizes() && operand.strides() == self.strides() &&
         (operand.const_data_ptr() == self.const_data_ptr() || !share_bytes(self, operand));
}

bool real_number(const c10::Scalar& scalar, c10::ScalarType type, double* value) {
  if (!scalar.isFloatingPoint() && !scalar.isIntegral(/*includeBool=*/false)) return false;
  *value = scalar.toDouble();
  return type == c10::ScalarType::Double || !std::isfinite(*value) || std::fabs(*value) <= std::numeric_limits<float>::max();
}

// Fills `call` for op over the lists; false when the engine must take it. `scalars` has one number or one each.
bool plan(ForeachOp op, at::TensorList self, at::TensorList a, at::TensorList b, at::ArrayRef<c10::Scalar> scalars, ListCall* call) {
  const int operands = kernels::foreach_operands(op);
  if (self.empty() || a.size() != (operands > 0 ? self.size() : 0) || b.size() != (operands > 1 ? self.size() : 0)) return false;
  if (scalars.size() > 1 && scalars.size() != self.size()) return false;
  const at::Tensor& first = self[0];
  if (!is_device_tensor(first)) return false;
  const c10::ScalarType type = first.scalar_type();
  call->kernel = find_kernel(op, type);
  call->device = first.device().index();
  if (call->kernel == nullptr) return false;
  for (size_t i = 0; i < self.size(); ++i) {
    const at::Tensor& tensor = self[i];
    if (!is_plain(tensor) || tensor.scalar_type() != type || tensor.device() != first.device() || !tensor.is_non_overlapping_and_dense() ||
        !is_small(tensor.numel())) {
      return false;
    }
    ForeachEntry entry = {};
    if (!scalars.empty() && !real_number(scalars[scalars.size() == 1 ? 0 : i], type, &entry.scalar)) return false;
    if ((!a.empty() && !matches(tensor, a[i])) || (!b.empty() && !matches(tensor, b[i]))) return false;
    entry.count = static_cast<uint64_t>(tensor.numel());
    call->entries.push_back(entry);
  }
  call->self = self;
  call->a = a;
  call->b = b;
  return true;
}

template <int capacity>
void launch_part(const NativeOp& native, const ListCall& call, size_t begin, size_t end) {
  kernels::ForeachArgs<capacity> args;
  args.entries = end - begin;
  uint64_t elements = 0;
  for (size_t i = begin; i < end; ++i) {
    ForeachEntry& entry = args.entry[i - begin] = call.entries[i];
    if (entry.count == 0) continue;
    elements += entry.count;
    entry.self = kernel_input(call.self[i]);
    if (!call.a.empty()) entry.a = kernel_input(call.a[i]);
    if (!call.b.empty()) entry.b = kernel_input(call.b[i]);
    entry.out = kernel_output(call.out[i]);
  }
  if (elements != 0) call.kernel->launch(current_stream(call.device), native.name(), elements, args);
}

void launch(NativeOp& native, const ListCall& call) {
  native.count_native();
  for (size_t begin = 0; begin < call.entries.size(); begin += kMaxEntries) {
    const size_t end = std::min(call.entries.size(), begin + kMaxEntries);
    if (end - begin <= 4) {
      launch_part<4>(native, call, begin, end);
    } else if (end - begin <= 16) {
      launch_part<16>(native, call, begin, end);
    } else {
      launch_part<kMaxEntries>(native, call, begin, end);
    }
  }
}

// Runs a planned call in place; false when the engine must take it.
bool run_in_place(NativeOp& native, ForeachOp op, at::TensorList self, at::TensorList a, at::TensorList b,
                  at::ArrayRef<c10::Scalar> scalars) {
  ListCall call;
  if (!plan(op, self, a, b, scalars, &call)) return false;
  call.out = self;
  engine::bump_versions(self);
  launch(native, call);
  return true;
}

void add_scalar_(at::TensorList self, const c10::Scalar& scalar) {
  static NativeOp native("aten::_foreach_add_", "Scalar");
  if (!run_in_place(native, ForeachOp::add_scalar, self, {}, {}, scalar)) native.on_engine<void>(self, scalar);
}

void mul_scalar_(at::TensorList self, const c10::Scalar& scalar) {
  static NativeOp native("aten::_foreach_mul_", "Scalar");
  if (!run_in_place(native, ForeachOp::mul_scalar, self, {}, {}, scalar)) native.on_engine<void>(self, scalar);
}

void div_scalar_(at::TensorList self, const c10::Scalar& scalar) {
  static NativeOp native("aten::_foreach_div_", "Scalar");
  if (!run_in_place(native, ForeachOp::div_scalar, self, {}, {}, scalar)) native.on_engine<void>(self, scalar);
}

void mul_scalars_(at::TensorList self, at::ArrayRef<c10::Scalar> scalars) {
  static NativeOp native("aten::_foreach_mul_", "ScalarList");
  const bool fits = scalars.size() == self.size();
  if (!fits || !run_in_place(native, ForeachOp::mul_scalar, self, {}, {}, scalars)) native.on_engine<void>(self, scalars);
}

void div_scalars_(at::TensorList self, at::ArrayRef<c10::Scalar> scalars) {
  static NativeOp native("aten::_foreach_div_", "ScalarList");
  const bool fits = scalars.size() == self.size();
  if (!fits || !run_in_place(native, ForeachOp::div_scalar, self, {}, {}, scalars)) native.on_engine<void>(self, scalars);
}

void add_list_(at::TensorList self, at::TensorList other, const c10::Scalar& alpha) {
  static NativeOp native("aten::_foreach_add_", "List");
  if (!run_in_place(native, ForeachOp::add_scaled, self, other, {}, alpha)) native.on_engine<void>(self, other, alpha);
}

void mul_list_(at::TensorList self, at::TensorList other) {
  static NativeOp native("aten::_foreach_mul_", "List");
  if (!run_in_place(native, ForeachOp::mul, self, other, {}, {})) native.on_engine<void>(self, other);
}

void div_list_(at::TensorList self, at::TensorList other) {
  static NativeOp native("aten::_foreach_div_", "List");
  if (!run_in_place(native, ForeachOp::div, self, other, {}, {})) native.on_engine<void>(self, other);
}

void lerp_scalar_(at::TensorList self, at::TensorList ends, const c10::Scalar& weight) {
  static NativeOp native("aten::_foreach_lerp_", "Scalar");
  if (!run_in_place(native, ForeachOp::lerp, self, ends, {}, weight)) native.on_engine<void>(self, ends, weight);
}

void addcmul_scalar_(at::TensorList self, at::TensorList a, at::TensorList b, const c10::Scalar& value) {
  static NativeOp native("aten::_foreach_addcmul_", "Scalar");
  if (!run_in_place(native, ForeachOp::addcmul, self, a, b, value)) native.on_engine<void>(self, a, b, value);
}

void addcdiv_scalar_(at::TensorList self, at::TensorList a, at::TensorList b, const c10::Scalar& value) {
  static NativeOp native("aten::_foreach_addcdiv_", "Scalar");
  if (!run_in_place(native, ForeachOp::addcdiv, self, a, b, value)) native.on_engine<void>(self, a, b, value);
}

void addcdiv_scalars_(at::TensorList self, at::TensorList a, at::TensorList b, at::ArrayRef<c10::Scalar> values) {
  static NativeOp native("aten::_foreach_addcdiv_", "ScalarList");
  const bool fits = values.size() == self.size();
  if (!fits || !run_in_place(native, ForeachOp::addcdiv, self, a, b, values)) native.on_engine<void>(self, a, b, values);
}

void sqrt_(at::TensorList self) {
  static NativeOp native("aten::_foreach_sqrt_", "");
  if (!run_in_place(native, ForeachOp::sqrt, self, {}, {}, {})) native.on_engine<void>(self);
}

std::vector<at::Tensor> sqrt(at::TensorList self) {
  static NativeOp native("aten::_foreach_sqrt", "");
  std::vector<at::Tensor> results;
  results.reserve(self.size());
  ListCall call;
  const bool planned = plan(ForeachOp::sqrt, self, {}, {}, {}, &call);
  for (size_t i = 0; i < self.size(); ++i) {
    if (!planned) {
      results.push_back(at::sqrt(self[i]));  // as core composes it
      continue;
    }
    results.push_back(make_strided(call.device, self[i].sizes(), self[i].strides(), self[i].dtype(), self[i].nbytes()));
  }
  call.out = results;
  if (planned) launch(native, call);
  return results;
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("_foreach_add_.Scalar", TORCH_FN(add_scalar_));
  m.impl("_foreach_add_.List", TORCH_FN(add_list_));
  m.impl("_foreach_mul_.Scalar", TORCH_FN(mul_scalar_));
  m.impl("_foreach_mul_.ScalarList", TORCH_FN(mul_scalars_));
  m.impl("_foreach_mul_.List", TORCH_FN(mul_list_));
  m.impl("_foreach_div_.Scalar", TORCH_FN(div_scalar_));
  m.impl("_foreach_div_.ScalarList", TORCH_FN(div_scalars_));
  m.impl("_foreach_div_.List", TORCH_FN(div_list_));
  m.impl("_foreach_lerp_.Scalar", TORCH_FN(lerp_scalar_));
  m.impl("_foreach_addcmul_.Scalar", TORCH_FN(addcmul_scalar_));
  m.impl("_foreach_addcdiv_.Scalar", TORCH_FN(addcdiv_scalar_));
  m.impl("_foreach_addcdiv_.ScalarList", TORCH_FN(addcdiv_scalars_));
  m.impl("_foreach_sqrt_", TORCH_FN(sqrt_));
  m.impl("_foreach_sqrt", TORCH_FN(sqrt));
}

}  // namespace
}  // namespace openreg
