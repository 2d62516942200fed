// The common elementwise operators on device kernels: contiguous operands of one type, or a tensor and a scalar that keeps its type.
// Every other call goes to the engine, which also gives the errors: a wrong dtype, an overlap, two devices.
#include <ATen/ExpandUtils.h>
#include <ATen/ops/result_type.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "aten/kernels/binary.h"
#include "aten/kernels/fill.h"
#include "aten/kernels/unary.h"
#include "aten/native_op.h"
#include "aten/tensor.h"
#include "runtime/stream.h"

namespace openreg {
namespace {

using kernels::BinaryForm;
using kernels::BinaryOp;
using kernels::DType;
using kernels::UnaryOp;
using kernels::Value;

bool fits(const at::Tensor& tensor) { return is_plain(tensor) && tensor.is_contiguous() && is_small(tensor.numel()); }

// Whether the strides are those of a new tensor, in dimensions of one element too: beside a scalar, the CPU's result keeps those.
bool has_new_strides(const at::Tensor& tensor) {
  const auto sizes = tensor.sizes(), strides = tensor.strides();
  int64_t next = 1;
  for (size_t i = sizes.size(); i-- > 0;) {
    if (strides[i] != next) return false;
    next *= std::max<int64_t>(sizes[i], 1);
  }
  return true;
}

bool fits_beside_scalar(const at::Tensor& tensor) { return fits(tensor) && has_new_strides(tensor); }

// ---- Scalars ----------------------------------------------------------------

constexpr double kExactIntegers = 9007199254740992.0;  // 2^53: up to here a double holds an integer exactly

double largest(c10::ScalarType type) {
  switch (type) {
    case c10::ScalarType::Half: return 65504;
    case c10::ScalarType::BFloat16:
    case c10::ScalarType::Float: return std::numeric_limits<float>::max();
    default: return std::numeric_limits<double>::max();
  }
}

bool floating_value(double number, c10::ScalarType type, Value* value) {
  value->f = number;
  return !std::isfinite(number) || std::fabs(number) <= largest(type);
}

bool integral_value(int64_t number, c10::ScalarType type, Value* value) {
  if (c10::isFloatingType(type)) {
    value->f = static_cast<double>(number);
    return std::fabs(value->f) <= std::min(kExactIntegers, largest(type));
  }
  value->i = number;
  return type == c10::ScalarType::Long || number == static_cast<int32_t>(number);
}

// The number as an operand beside a tensor of `type`, one of the kernels' arithmetic types; false when it would change the result
// type or does not fit.
bool as_operand(const c10::Scalar& scalar, c10::ScalarType type, Value* value) {
  if (scalar.type() == c10::ScalarType::UInt64) return false;  // more than an int64_t holds
  if (scalar.isIntegral(/*includeBool=*/false)) return integral_value(scalar.toLong(), type, value);
  return scalar.isFloatingPoint() && c10::isFloatingType(type) && floating_value(scalar.toDouble(), type, value);
}

// On the left of an operator, the CPU rounds a scalar to 16 bits before it computes.
void round_left_operand(c10::ScalarType type, Value* value) {
  if (type == c10::ScalarType::Half) value->f = static_cast<c10::Half>(static_cast<float>(value->f));
  if (type == c10::ScalarType::BFloat16) value->f = static_cast<c10::BFloat16>(static_cast<float>(value->f));
}

// as_operand() for a CPU tensor without dimensions, read now.
bool as_operand(const at::Tensor& scalar, const at::Tensor& beside, Value* value) {
  if (!scalar.is_cpu() || scalar.dim() != 0 || scalar.is_sparse() || scalar._is_zerotensor() || scalar.is_neg()) return false;
  const c10::ScalarType type = beside.scalar_type();
  // Between two tensors without dimensions the larger type wins, except that a Python number never does.
  if (beside.dim() == 0 && scalar.scalar_type() != type && !scalar.unsafeGetTensorImpl()->is_wrapped_number()) return false;
  switch (scalar.scalar_type()) {
    case c10::ScalarType::Double:
      return c10::isFloatingType(type) && floating_value(*scalar.const_data_ptr<double>(), type, value);
    case c10::ScalarType::Float:
      return c10::isFloatingType(type) && floating_value(*scalar.const_data_ptr<float>(), type, value);
    case c10::ScalarType::Long: return integral_value(*scalar.const_data_ptr<int64_t>(), type, value);
    case c10::ScalarType::Int: return integral_value(*scalar.const_data_ptr<int32_t>(), type, value);
    default: return false;
  }
}

// ---- Binary -----------------------------------------------------------------

Kernel* find_kernel(const char* name, BinaryOp op, BinaryForm form, c10::ScalarType type) {
  static KernelSlot slots[kernels::kBinaryOps][kernels::kBinaryForms][kernels::kDTypes];
  DType dtype;
  if (!kernel_dtype(type, &dtype)) return nullptr;
  KernelSlot& slot = slots[int(op)][int(form)][int(dtype)];
  if (Kernel* kernel = slot.get()) return kernel;
  const kernels::Function function = kernels::binary_kernel(op, form, dtype);
  if (function == nullptr) return nullptr;
  static const char* const suffixes[] = {"", "_scalar", "_left_scalar"};
  return slot.make(std::string(name) + suffixes[int(form)] + "_" + dtype_name(dtype), function);
}

// A call that a kernel covers: which, on what (null: the scalar in `args`), and the tensor that gives the output its sizes. The tensors are
// those of the caller; launch() takes their addresses.
struct BinaryCall {
  Kernel* kernel = nullptr;
  const at::Tensor* a = nullptr;
  const at::Tensor* b = nullptr;
  const at::Tensor* shape = nullptr;
  kernels::BinaryArgs args;
};

// Fills `call` for op(a, b); false when the engine must take it. `commutes` allows a scalar on the left by a swap.
bool plan(const NativeOp& native, BinaryOp op, bool commutes, const at::Tensor& a, const at::Tensor& b, BinaryCall* call) {
  BinaryForm form;
  const bool a_fits = fits(a);
  if (a_fits && fits(b)) {
    if (a.scalar_type() != b.scalar_type() || a.device() != b.device() || a.sizes() != b.sizes()) return false;
    form = BinaryForm::tensors;
    call->shape = call->a = &a;
    call->b = &b;
  } else if (a_fits) {
    if (!has_new_strides(a) || !as_operand(b, a, &call->args.scalar)) return false;
    form = BinaryForm::right_scalar;
    call->shape = call->a = &a;
  } else {
    if (!fits_beside_scalar(b) || !as_operand(a, b, &call->args.scalar)) return false;
    round_left_operand(b.scalar_type(), &call->args.scalar);
    form = commutes ? BinaryForm::right_scalar : BinaryForm::left_scalar;
    call->shape = (commutes ? call->a : call->b) = &b;
  }
  call->kernel = find_kernel(native.name(), op, form, call->shape->scalar_type());
  call->args.count = static_cast<uint64_t>(call->shape->numel());
  return call->kernel != nullptr;
}

void launch(NativeOp& native, const at::Tensor& out, BinaryCall* call) {
  native.count_native();
  kernels::BinaryArgs& args = call->args;
  if (args.count == 0) return;
  if (call->a != nullptr) args.a = kernel_input(*call->a);
  if (call->b != nullptr) args.b = kernel_input(*call->b);
  args.out = kernel_output(out);
  call->kernel->launch(current_stream(out.device().index()), native.name(), args.count, args);
}

at::Tensor run(NativeOp& native, BinaryCall* call, c10::ScalarType type) {
  at::Tensor out = make_contiguous(call->shape->device().index(), call->shape->sizes(), c10::scalarTypeToTypeMeta(type));
  launch(native, out, call);
  return out;
}

// Whether the planned call may write into `self`, its first operand.
bool may_write(const at::Tensor& self, const at::Tensor& other, const BinaryCall& call) {
  return call.shape == &self && (other.is_cpu() || self.const_data_ptr() == other.const_data_ptr() || !share_bytes(self, other));
}

// Raises here, at the call, what the CPU's kernel would raise about an alpha that the type cannot hold.
void check_alpha(const c10::Scalar& alpha, c10::ScalarType type) {
  if (c10::isIntegralType(type, true) ? !alpha.isIntegral(false) : alpha.isComplex()) return;
  switch (type) {
    case c10::ScalarType::Half: alpha.to<c10::Half>(); break;
    case c10::ScalarType::BFloat16: alpha.to<c10::BFloat16>(); break;
    case c10::ScalarType::Float: alpha.to<float>(); break;
    case c10::ScalarType::Int: alpha.to<int32_t>(); break;
    case c10::ScalarType::Short: alpha.to<int16_t>(); break;
    case c10::ScalarType::Char: alpha.to<int8_t>(); break;
    case c10::ScalarType::Byte: alpha.to<uint8_t>(); break;
    default: break;
  }
}

// add and sub with alpha: chooses the operator that is exact for it.
bool plan_add(const NativeOp& native, bool subtract, const at::Tensor& self, const at::Tensor& other, const c10::Scalar& alpha,
              BinaryCall* call) {
  if (alpha.isBoolean()) return false;
  if (alpha.isIntegral(false) && alpha.equal(1)) {
    return plan(native, subtract ? BinaryOp::sub : BinaryOp::add, !subtract, self, other, call);
  }
  const c10::ScalarType type = is_device_tensor(self) ? self.scalar_type() : other.scalar_type();
  if (as_operand(subtract ? -alpha : alpha, type, &call->args.alpha)) {
    return plan(native, BinaryOp::add_scaled, false, self, other, call);
  }
  if (at::are_expandable(self.sizes(), other.sizes()) && at::result_type(self, other) == type) check_alpha(alpha, type);
  return false;
}

at::Tensor add(const at::Tensor& self, const at::Tensor& other, const c10::Scalar& alpha) {
  static NativeOp native("aten::add", "Tensor");
  BinaryCall call;
  if (!plan_add(native, false, self, other, alpha, &call)) return native.on_engine<at::Tensor>(self, other, alpha);
  return run(native, &call, call.shape->scalar_type());
}

at::Tensor sub(const at::Tensor& self, const at::Tensor& other, const c10::Scalar& alpha) {
  static NativeOp native("aten::sub", "Tensor");
  BinaryCall call;
  if (!plan_add(native, true, self, other, alpha, &call)) return native.on_engine<at::Tensor>(self, other, alpha);
  return run(native, &call, call.shape->scalar_type());
}

at::Tensor& add_(at::Tensor& self, const at::Tensor& other, const c10::Scalar& alpha) {
  static NativeOp native("aten::add_", "Tensor");
  BinaryCall call;
  if (plan_add(native, false, self, other, alpha, &call) && may_write(self, other, call)) {
    launch(native, self, &call);
  } else {
    native.on_engine<void>(self, other, alpha);
  }
  return self;
}

at::Tensor& sub_(at::Tensor& self, const at::Tensor& other, const c10::Scalar& alpha) {
  static NativeOp native("aten::sub_", "Tensor");
  BinaryCall call;
  if (plan_add(native, true, self, other, alpha, &call) && may_write(self, other, call)) {
    launch(native, self, &call);
  } else {
    native.on_engine<void>(self, other, alpha);
  }
  return self;
}

at::Tensor mul(const at::Tensor& self, const at::Tensor& other) {
  static NativeOp native("aten::mul", "Tensor");
  BinaryCall call;
  if (!plan(native, BinaryOp::mul, true, self, other, &call)) return native.on_engine<at::Tensor>(self, other);
  return run(native, &call, call.shape->scalar_type());
}

at::Tensor div(const at::Tensor& self, const at::Tensor& other) {
  static NativeOp native("aten::div", "Tensor");
  BinaryCall call;
  if (!plan(native, BinaryOp::div, false, self, other, &call)) return native.on_engine<at::Tensor>(self, other);
  return run(native, &call, call.shape->scalar_type());
}

at::Tensor& mul_(at::Tensor& self, const at::Tensor& other) {
  static NativeOp native("aten::mul_", "Tensor");
  BinaryCall call;
  if (plan(native, BinaryOp::mul, true, self, other, &call) && may_write(self, other, call)) {
    launch(native, self, &call);
  } else {
    native.on_engine<void>(self, other);
  }
  return self;
}

at::Tensor& div_(at::Tensor& self, const at::Tensor& other) {
  static NativeOp native("aten::div_", "Tensor");
  BinaryCall call;
  if (plan(native, BinaryOp::div, false, self, other, &call) && may_write(self, other, call)) {
    launch(native, self, &call);
  } else {
    native.on_engine<void>(self, other);
  }
  return self;
}

// ---- Comparisons ------------------------------------------------------------

at::Tensor compare(NativeOp& native, BinaryOp op, const at::Tensor& self, const at::Tensor& other) {
  BinaryCall call;
  if (!is_device_tensor(self) || !plan(native, op, false, self, other, &call)) return native.on_engine<at::Tensor>(self, other);
  return run(native, &call, c10::ScalarType::Bool);
}

at::Tensor compare(NativeOp& native, BinaryOp op, const at::Tensor& self, const c10::Scalar& other) {
  BinaryCall call;
  if (fits_beside_scalar(self) && as_operand(other, self.scalar_type(), &call.args.scalar)) {
    call.kernel = find_kernel(native.name(), op, BinaryForm::right_scalar, self.scalar_type());
    call.shape = call.a = &self;
    call.args.count = static_cast<uint64_t>(self.numel());
  }
  if (call.kernel == nullptr) return native.on_engine<at::Tensor>(self, other);
  return run(native, &call, c10::ScalarType::Bool);
}

#define OPENREG_COMPARISON(op)                                              \
  at::Tensor op##_tensor(const at::Tensor& self, const at::Tensor& other) { \
    static NativeOp native("aten::" #op, "Tensor");                         \
    return compare(native, BinaryOp::op, self, other);                      \
  }                                                                         \
  at::Tensor op##_scalar(const at::Tensor& self, const c10::Scalar& other) { \
    static NativeOp native("aten::" #op, "Scalar");                         \
    return compare(native, BinaryOp::op, self, other);                      \
  }
OPENREG_COMPARISON(eq)
OPENREG_COMPARISON(ne)
OPENREG_COMPARISON(lt)
OPENREG_COMPARISON(le)
OPENREG_COMPARISON(gt)
OPENREG_COMPARISON(ge)
#undef OPENREG_COMPARISON

at::Tensor threshold_backward(const at::Tensor& grad, const at::Tensor& self, const c10::Scalar& threshold) {
  static NativeOp native("aten::threshold_backward", "");
  BinaryCall call;
  if (!is_device_tensor(grad) || !is_device_tensor(self) ||
      !plan(native, BinaryOp::threshold_backward, false, grad, self, &call) ||
      !as_operand(threshold, grad.scalar_type(), &call.args.scalar)) {
    return native.on_engine<at::Tensor>(grad, self, threshold);
  }
  return run(native, &call, grad.scalar_type());
}

// ---- Unary ------------------------------------------------------------------

Kernel* find_kernel(const char* name, UnaryOp op, const at::Tensor& self) {
  static KernelSlot slots[kernels::kUnaryOps][kernels::kDTypes];
  if (!fits(self)) return nullptr;
  return openreg::find_kernel(slots[int(op)], self.scalar_type(), name, [op](DType dtype) { return kernels::unary_kernel(op, dtype); });
}

void launch(NativeOp& native, Kernel* kernel, const at::Tensor& out, const at::Tensor& in) {
  native.count_native();
  const auto count = static_cast<uint64_t>(in.numel());
  if (count == 0) return;
  const kernels::UnaryArgs args{kernel_output(out), kernel_input(in), count};
  kernel->launch(current_stream(in.device().index()), native.name(), count, args);
}

at::Tensor unary(NativeOp& native, UnaryOp op, const at::Tensor& self) {
  Kernel* kernel = find_kernel(native.name(), op, self);
  if (kernel == nullptr) return native.on_engine<at::Tensor>(self);
  at::Tensor out = make_contiguous(self.device().index(), self.sizes(), self.dtype());
  launch(native, kernel, out, self);
  return out;
}

at::Tensor& unary_(NativeOp& native, UnaryOp op, at::Tensor& self) {
  if (Kernel* kernel = find_kernel(native.name(), op, self)) {
    launch(native, kernel, self, self);
  } else {
    native.on_engine<void>(self);
  }
  return self;
}

#define OPENREG_UNARY(op)                          \
  at::Tensor op(const at::Tensor& self) {          \
    static NativeOp native("aten::" #op, "");      \
    return unary(native, UnaryOp::op, self);       \
  }                                                \
  at::Tensor& op##_(at::Tensor& self) {            \
    static NativeOp native("aten::" #op "_", "");  \
    return unary_(native, UnaryOp::op, self);      \
  }
OPENREG_UNARY(neg)
OPENREG_UNARY(abs)
OPENREG_UNARY(relu)
OPENREG_UNARY(sqrt)
OPENREG_UNARY(rsqrt)
OPENREG_UNARY(reciprocal)
#undef OPENREG_UNARY

// ---- Fills ------------------------------------------------------------------

template <class T>
void set_pattern(const c10::Scalar& value, kernels::FillArgs* args) {
  const T element = value.to<T>();
  std::memcpy(args->pattern, &element, sizeof(T));
}

// The bytes of `value` as an element; throws as the CPU does when it does not fit. False for a type that kernels do not have.
bool set_pattern(const c10::Scalar& value, c10::ScalarType type, kernels::FillArgs* args) {
  switch (type) {
    case c10::ScalarType::Byte: set_pattern<uint8_t>(value, args); return true;
    case c10::ScalarType::Char: set_pattern<int8_t>(value, args); return true;
    case c10::ScalarType::Short: set_pattern<int16_t>(value, args); return true;
    case c10::ScalarType::Int: set_pattern<int32_t>(value, args); return true;
    case c10::ScalarType::Long: set_pattern<int64_t>(value, args); return true;
    case c10::ScalarType::Half: set_pattern<c10::Half>(value, args); return true;
    case c10::ScalarType::BFloat16: set_pattern<c10::BFloat16>(value, args); return true;
    case c10::ScalarType::Float: set_pattern<float>(value, args); return true;
    case c10::ScalarType::Double: set_pattern<double>(value, args); return true;
    case c10::ScalarType::ComplexFloat: set_pattern<c10::complex<float>>(value, args); return true;
    case c10::ScalarType::ComplexDouble: set_pattern<c10::complex<double>>(value, args); return true;
    case c10::ScalarType::Bool: set_pattern<bool>(value, args); return true;
    default: return false;
  }
}

Kernel* find_fill(size_t element_bytes) {
  static KernelSlot slots[17];
  KernelSlot& slot = slots[element_bytes];
  if (Kernel* kernel = slot.get()) return kernel;
  return slot.make("fill_" + std::to_string(8 * element_bytes), kernels::fill_kernel(static_cast<unsigned>(element_bytes)));
}

// Elements that lie side by side in some order, each once: a fill need not know the order.
bool is_dense(const at::Tensor& self) { return is_plain(self) && self.is_non_overlapping_and_dense(); }

// A value that several elements of 16 bits cannot hold is infinite for the CPU when there is one.
bool becomes_infinite(const at::Tensor& self, const c10::Scalar& value) {
  if (self.numel() != 1 || !c10::isReducedFloatingType(self.scalar_type())) return false;
  const double most = self.scalar_type() == c10::ScalarType::Half ? 65504 : 0x1.fep127;
  return value.isComplex() || (std::isfinite(value.toDouble()) && std::fabs(value.toDouble()) > most);
}

at::Tensor& fill_(at::Tensor& self, const c10::Scalar& value) {
  static NativeOp native("aten::fill_", "Scalar");
  kernels::FillArgs args;
  if (becomes_infinite(self, value) || !set_pattern(value, self.scalar_type(), &args) || !is_dense(self) || !is_small(self.numel())) {
    native.on_engine<void>(self, value);
    return self;
  }
  native.count_native();
  args.count = static_cast<uint64_t>(self.numel());
  if (args.count == 0) return self;
  args.out = kernel_output(self);
  find_fill(self.element_size())->launch(current_stream(self.device().index()), native.name(), args.count, args);
  return self;
}

at::Tensor& zero_(at::Tensor& self) {
  static NativeOp native("aten::zero_", "");
  if (!is_dense(self)) {
    native.on_engine<void>(self);
    return self;
  }
  native.count_native();
  note_tensor(self, Touch::writes);
  launch_fill(current_stream(self.device().index()), native.name(), self.mutable_data_ptr(), 0, self.nbytes());
  return self;
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("add.Tensor", TORCH_FN(add));
  m.impl("add_.Tensor", TORCH_FN(add_));
  m.impl("sub.Tensor", TORCH_FN(sub));
  m.impl("sub_.Tensor", TORCH_FN(sub_));
  m.impl("mul.Tensor", TORCH_FN(mul));
  m.impl("mul_.Tensor", TORCH_FN(mul_));
  m.impl("div.Tensor", TORCH_FN(div));
  m.impl("div_.Tensor", TORCH_FN(div_));
  m.impl("eq.Tensor", TORCH_FN(eq_tensor));
  m.impl("eq.Scalar", TORCH_FN(eq_scalar));
  m.impl("ne.Tensor", TORCH_FN(ne_tensor));
  m.impl("ne.Scalar", TORCH_FN(ne_scalar));
  m.impl("lt.Tensor", TORCH_FN(lt_tensor));
  m.impl("lt.Scalar", TORCH_FN(lt_scalar));
  m.impl("le.Tensor", TORCH_FN(le_tensor));
  m.impl("le.Scalar", TORCH_FN(le_scalar));
  m.impl("gt.Tensor", TORCH_FN(gt_tensor));
  m.impl("gt.Scalar", TORCH_FN(gt_scalar));
  m.impl("ge.Tensor", TORCH_FN(ge_tensor));
  m.impl("ge.Scalar", TORCH_FN(ge_scalar));
  m.impl("threshold_backward", TORCH_FN(threshold_backward));
  m.impl("neg", TORCH_FN(neg));
  m.impl("neg_", TORCH_FN(neg_));
  m.impl("abs", TORCH_FN(abs));
  m.impl("abs_", TORCH_FN(abs_));
  m.impl("relu", TORCH_FN(relu));
  m.impl("relu_", TORCH_FN(relu_));
  m.impl("sqrt", TORCH_FN(sqrt));
  m.impl("sqrt_", TORCH_FN(sqrt_));
  m.impl("rsqrt", TORCH_FN(rsqrt));
  m.impl("rsqrt_", TORCH_FN(rsqrt_));
  m.impl("reciprocal", TORCH_FN(reciprocal));
  m.impl("reciprocal_", TORCH_FN(reciprocal_));
  m.impl("fill_.Scalar", TORCH_FN(fill_));
  m.impl("zero_", TORCH_FN(zero_));
}

}  // namespace
}  // namespace openreg
