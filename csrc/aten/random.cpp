// Random operators on Philox kernels. The numbers of a call are reserved on the host, so they do not depend on when, where or with how
// many threads the call runs: element i in logical order gets the same bits on every device, stream and schedule.
//
// Argument checks are core's own templates (ATen/native/DistributionTemplates.h), hence the CPU's conditions and messages. Their
// RNG parameter is only handed through; here it names the operator that counts the call.
#include <ATen/MemoryOverlap.h>
#include <ATen/ExpandUtils.h>
#include <ATen/native/DistributionTemplates.h>
#include <ATen/ops/dropout_native.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/ones_like.h>
#include <torch/headeronly/version.h>
#include <torch/library.h>

#include <cstdio>

#include "aten/kernels/random.h"
#include "aten/native_op.h"
#include "aten/tensor.h"
#include "runtime/error.h"
#include "runtime/generator.h"
#include "runtime/stream.h"

namespace openreg {
namespace {

using kernels::Distribution;
using kernels::DType;
using OptionalGenerator = std::optional<at::Generator>;

constexpr openreg_geometry kOneThread = {{1, 1, 1}, {1, 1, 1}};

#define OPENREG_NATIVE_OP(Tag, name, overload)          \
  struct Tag {                                          \
    static NativeOp& op() {                             \
      static NativeOp native("aten::" name, overload);  \
      return native;                                    \
    }                                                   \
  };
OPENREG_NATIVE_OP(Random, "random_", "")
OPENREG_NATIVE_OP(RandomFrom, "random_", "from")
OPENREG_NATIVE_OP(RandomTo, "random_", "to")
OPENREG_NATIVE_OP(Uniform, "uniform_", "")
OPENREG_NATIVE_OP(Normal, "normal_", "")
OPENREG_NATIVE_OP(NormalTensorFloat, "normal", "Tensor_float")
OPENREG_NATIVE_OP(NormalFloatTensor, "normal", "float_Tensor")
OPENREG_NATIVE_OP(NormalTensorTensor, "normal", "Tensor_Tensor")
OPENREG_NATIVE_OP(LogNormal, "log_normal_", "")
OPENREG_NATIVE_OP(Exponential, "exponential_", "")
OPENREG_NATIVE_OP(Cauchy, "cauchy_", "")
OPENREG_NATIVE_OP(Geometric, "geometric_", "")
OPENREG_NATIVE_OP(Bernoulli, "bernoulli_", "float")
OPENREG_NATIVE_OP(BernoulliTensor, "bernoulli_", "Tensor")
OPENREG_NATIVE_OP(BernoulliOut, "bernoulli", "out")
OPENREG_NATIVE_OP(Dropout, "native_dropout", "")
OPENREG_NATIVE_OP(DropoutBackward, "native_dropout_backward", "")
#undef OPENREG_NATIVE_OP

// ---- From a distribution to a launch ----------------------------------------

bool draws_integers(Distribution distribution) {
  return distribution == Distribution::integer || distribution == Distribution::wide_integer || distribution == Distribution::bits;
}

// The kernels' type of the tensor's elements; for integers, unsigned types without kernels have the bits of the signed ones.
bool random_dtype(Distribution distribution, c10::ScalarType type, DType* dtype) {
  if (!draws_integers(distribution)) return kernel_dtype(type, dtype);
  switch (type) {
    case c10::ScalarType::UInt16: *dtype = DType::i16; return true;
    case c10::ScalarType::UInt32: *dtype = DType::i32; return true;
    case c10::ScalarType::UInt64: *dtype = DType::i64; return true;
    default: return kernel_dtype(type, dtype);
  }
}

// Fills `self` with numbers of the distribution. `unsupported` is the name that the CPU's error for a wrong dtype gives.
void generate(NativeOp& native, const at::Tensor& self, Distribution distribution, kernels::RandomArgs args,
              const OptionalGenerator& generator, const char* unsupported) {
  static KernelSlot slots[kernels::kDistributions][kernels::kDTypes];
  DType dtype;
  kernels::Function function = nullptr;
  if (random_dtype(distribution, self.scalar_type(), &dtype)) function = kernels::random_kernel(distribution, dtype);
  TORCH_CHECK_NOT_IMPLEMENTED(function != nullptr, '"', unsupported, "\" not implemented for '", c10::toString(self.scalar_type()), "'");

  const c10::DeviceIndex device = self.device().index();
  args.count = static_cast<uint64_t>(self.numel());
  const PhiloxLaunch state = reserve_philox(generator, device, args.count * kernels::words_per_element(distribution, dtype));
  args.random = {state.seed, state.offset, state.base};
  if (!has_kernel_view(device)) {
    const at::Tensor host = at::empty(self.sizes(), self.options().device(c10::kCPU));
    args.out = host.mutable_data_ptr();
    function(&kOneThread, &args);
    self.copy_(host);
    native.count_staged();
    return;
  }
  const bool direct = is_plain(self) && self.is_contiguous();
  const at::Tensor target = direct ? self : make_contiguous(device, self.sizes(), self.dtype());
  args.out = kernel_output(target);
  KernelSlot& slot = slots[int(distribution)][int(dtype)];
  Kernel* kernel = slot.get();
  if (kernel == nullptr) kernel = slot.make(std::string(native.name()) + "_" + dtype_name(dtype), function);
  kernel->launch(current_stream(device), native.name(), args.count, args);
  if (!direct) self.copy_(target);
  native.count_native();
}

kernels::RandomArgs two_numbers(double first, double second = 0) {
  kernels::RandomArgs args = {};
  args.first = first;
  args.second = second;
  return args;
}

kernels::RandomArgs integers(int64_t base, uint64_t range) {
  kernels::RandomArgs args = {};
  args.base = base;
  args.range = range;
  return args;
}

// With 32-bit numbers the odds of two values differ by at most range / 2^32; above this range 64-bit numbers are drawn.
constexpr uint64_t kNarrowRange = uint64_t(1) << 20;

void generate_integers(NativeOp& native, const at::Tensor& self, int64_t base, uint64_t range, const OptionalGenerator& generator) {
  generate(native, self, range <= kNarrowRange ? Distribution::integer : Distribution::wide_integer, integers(base, range), generator,
           "random_from_to_kernel_cpu");
}

// The largest integer of the type's default range, [0, largest].
uint64_t largest_random(c10::ScalarType type) {
  switch (type) {
    case c10::ScalarType::Bool: return 1;
    case c10::ScalarType::Byte: return std::numeric_limits<uint8_t>::max();
    case c10::ScalarType::Char: return std::numeric_limits<int8_t>::max();
    case c10::ScalarType::Short: return std::numeric_limits<int16_t>::max();
    case c10::ScalarType::Int: return std::numeric_limits<int32_t>::max();
    case c10::ScalarType::Long: return std::numeric_limits<int64_t>::max();
    case c10::ScalarType::Half: return uint64_t(1) << 11;
    case c10::ScalarType::BFloat16: return uint64_t(1) << 8;
    case c10::ScalarType::Float: return uint64_t(1) << 24;
    case c10::ScalarType::Double: return uint64_t(1) << 53;
    default:
      TORCH_CHECK_NOT_IMPLEMENTED(false, "\"random_kernel_cpu\" not implemented for '", c10::toString(type), "'");
  }
}

template <class Op>
struct RandomKernel {
  void operator()(at::TensorIteratorBase& iter, const OptionalGenerator& generator) const {
    const at::Tensor& self = iter.tensor(0);
    generate_integers(Op::op(), self, 0, largest_random(self.scalar_type()) + 1, generator);
  }
};

template <class Op>
struct RandomFromToKernel {
  void operator()(at::TensorIteratorBase& iter, uint64_t range, int64_t base, const OptionalGenerator& generator) const {
    generate_integers(Op::op(), iter.tensor(0), base, range, generator);
  }
  // All numbers of 64 bits: for the types to which the CPU gives them.
  void operator()(at::TensorIteratorBase& iter, const OptionalGenerator& generator) const {
    constexpr const char* name = "random_full_64_bits_range_kernel_cpu";
    const c10::ScalarType type = iter.tensor(0).scalar_type();
    const bool given = type == at::kLong || type == at::kDouble || type == at::kFloat || type == at::kBFloat16;
    const bool short_integer = type == at::kInt || type == at::kShort || type == at::kChar || type == at::kByte;
    TORCH_CHECK(!short_integer, name, " handles only int64, double, float and bfloat16");
    TORCH_CHECK_NOT_IMPLEMENTED(given, '"', name, "\" not implemented for '", c10::toString(type), "'");
    generate(Op::op(), iter.tensor(0), Distribution::bits, {}, generator, name);
  }
};

template <class Op>
struct UniformKernel {
  void operator()(at::TensorIteratorBase& iter, double from, double to, const OptionalGenerator& generator) const {
    generate(Op::op(), iter.tensor(0), Distribution::uniform, two_numbers(from, to), generator, "uniform_kernel_cpu");
  }
};

template <class Op>
struct NormalKernel {
  void operator()(const at::Tensor& self, double mean, double std, const OptionalGenerator& generator) const {
    at::assert_no_internal_overlap(self);
    generate(Op::op(), self, Distribution::normal, two_numbers(mean, std), generator, "normal_kernel_cpu");
  }
};

template <class Op>
struct LogNormalKernel {
  void operator()(at::TensorIteratorBase& iter, double mean, double std, const OptionalGenerator& generator) const {
    generate(Op::op(), iter.tensor(0), Distribution::log_normal, two_numbers(mean, std), generator, "log_normal_cpu");
  }
};

template <class Op>
struct ExponentialKernel {
  void operator()(at::TensorIteratorBase& iter, double rate, const OptionalGenerator& generator) const {
    TORCH_CHECK(c10::isFloatingType(iter.dtype()),
                "Exponential distribution is a continuous probability distribution. dtype must be a floating point but you specified ",
                iter.dtype());
    generate(Op::op(), iter.tensor(0), Distribution::exponential, two_numbers(rate), generator, "exponential_cpu");
  }
};

template <class Op>
struct CauchyKernel {
  void operator()(at::TensorIteratorBase& iter, double median, double sigma, const OptionalGenerator& generator) const {
    generate(Op::op(), iter.tensor(0), Distribution::cauchy, two_numbers(median, sigma), generator, "cauchy_cpu");
  }
};

template <class Op>
struct GeometricKernel {
  void operator()(at::TensorIteratorBase& iter, double p, const OptionalGenerator& generator) const {
    generate(Op::op(), iter.tensor(0), Distribution::geometric, two_numbers(p), generator, "geometric_cpu");
  }
};

template <class Op>
struct BernoulliKernel {
  void operator()(const at::Tensor& self, double p, const OptionalGenerator& generator) const {
    generate(Op::op(), self, Distribution::bernoulli, two_numbers(p), generator, "bernoulli_scalar_cpu_");
  }
};

// ---- Bernoulli with a tensor of probabilities -------------------------------

// Host code in stream order rather than a device kernel, because it can fail: a probability outside [0, 1] is a late error.
struct BernoulliTask {
  kernels::BernoulliArgs args;
  kernels::Function kernel;
};

openreg_status run_bernoulli(void* raw, openreg_error* error) {
  const auto& task = *static_cast<const BernoulliTask*>(raw);
  if (!kernels::are_probabilities(task.args.p_dtype, task.args.p, task.args.count)) {
    error->kind = static_cast<int32_t>(ErrorKind::runtime);
    std::snprintf(error->message, sizeof(error->message), "Expected p_in >= 0 && p_in <= 1 to be true, but got false.");
    return OPENREG_LAUNCH_FAILED;
  }
  task.kernel(&kOneThread, &task.args);
  return OPENREG_OK;
}

template <class Op>
struct BernoulliTensorKernel {
  void operator()(const at::Tensor& self, const at::Tensor& p, const OptionalGenerator& generator) const {
    BernoulliTask task = {};
    DType dtype;
    if (kernel_dtype(self.scalar_type(), &dtype)) task.kernel = kernels::bernoulli_kernel(dtype);
    TORCH_CHECK_NOT_IMPLEMENTED(task.kernel != nullptr, "\"bernoulli_tensor_cpu_self_\" not implemented for '",
                                c10::toString(self.scalar_type()), "'");
    TORCH_CHECK_NOT_IMPLEMENTED(c10::isFloatingType(p.scalar_type()) && kernel_dtype(p.scalar_type(), &task.args.p_dtype),
                                "\"bernoulli_tensor_cpu_p_\" not implemented for '", c10::toString(p.scalar_type()), "'");
    TORCH_CHECK(is_device_tensor(self) || is_device_tensor(p), "Expected a 'cpu' device type for generator but found 'openreg'");
    TORCH_CHECK(is_device_tensor(self) && (p.device() == self.device() || p.is_cpu()),
                "Expected all tensors to be on the same device, but found at least two devices, ", self.device(), " and ", p.device(),
                "! (when running ", Op::op().name(), ")");
    at::assert_no_internal_overlap(self);
    if (p.device() == self.device()) at::assert_no_partial_overlap(self, p);
    for (const at::Tensor* tensor : {&self, &p}) {
      if (is_device_tensor(*tensor)) check_memory(*tensor);
    }
    const c10::DeviceIndex device = self.device().index();
    const bool staged = !has_kernel_view(device);
    const c10::Device where = staged ? c10::Device(c10::kCPU) : self.device();
    const at::Tensor moved = p.to(where);
    const at::Tensor expanded = at::expand_inplace(self, moved)->contiguous().resolve_neg();
    const bool direct = !staged && is_plain(self) && self.is_contiguous();
    const at::Tensor target = direct ? self : at::empty(self.sizes(), self.options().device(where));

    task.args.count = static_cast<uint64_t>(self.numel());
    const PhiloxLaunch state = reserve_philox(generator, device, task.args.count);
    task.args.random = {state.seed, state.offset, state.base};
    if (staged) {
      task.args.p = expanded.const_data_ptr();
      task.args.out = target.mutable_data_ptr();
      openreg_error error = {};
      TORCH_CHECK(run_bernoulli(&task, &error) == OPENREG_OK, error.message);
      Op::op().count_staged();
    } else {
      task.args.p = kernel_input(expanded);
      task.args.out = kernel_output(target);
      launch_host_func(current_stream(device), Op::op().name(), run_bernoulli, &task, sizeof(task));
      Op::op().count_native();
    }
    if (!direct) self.copy_(target);
  }
};

// ---- Operators --------------------------------------------------------------

namespace templates = at::native::templates;

at::Tensor& random_(at::Tensor& self, OptionalGenerator generator) {
  return templates::random_impl<RandomKernel, Random>(self, std::move(generator));
}

at::Tensor& random_from(at::Tensor& self, int64_t from, std::optional<int64_t> to, OptionalGenerator generator) {
  return templates::random_from_to_impl<RandomFromToKernel, RandomFrom>(self, from, to, std::move(generator));
}

at::Tensor& random_to(at::Tensor& self, int64_t to, OptionalGenerator generator) {
  return templates::random_from_to_impl<RandomFromToKernel, RandomTo>(self, 0, to, std::move(generator));
}

at::Tensor& uniform_(at::Tensor& self, double from, double to, OptionalGenerator generator) {
  return templates::uniform_impl_<UniformKernel, Uniform>(self, from, to, std::move(generator));
}

at::Tensor& normal_(at::Tensor& self, double mean, double std, OptionalGenerator generator) {
  return templates::normal_impl_<NormalKernel, Normal>(self, mean, std, std::move(generator));
}

at::Tensor normal_tensor_float(const at::Tensor& mean, double std, OptionalGenerator generator) {
  return templates::normal_impl<NormalKernel, NormalTensorFloat>(mean, std, std::move(generator));
}

at::Tensor normal_float_tensor(double mean, const at::Tensor& std, OptionalGenerator generator) {
  return templates::normal_impl<NormalKernel, NormalFloatTensor>(mean, std, std::move(generator));
}

at::Tensor normal_tensor_tensor(const at::Tensor& mean, const at::Tensor& std, OptionalGenerator generator) {
  return templates::normal_impl<NormalKernel, NormalTensorTensor>(mean, std, std::move(generator));
}

at::Tensor& normal_tensor_float_out(const at::Tensor& mean, double std, OptionalGenerator generator, at::Tensor& out) {
  return templates::normal_out_impl<NormalKernel, NormalTensorFloat>(out, mean, std, std::move(generator));
}

at::Tensor& normal_float_tensor_out(double mean, const at::Tensor& std, OptionalGenerator generator, at::Tensor& out) {
  return templates::normal_out_impl<NormalKernel, NormalFloatTensor>(out, mean, std, std::move(generator));
}

at::Tensor& normal_tensor_tensor_out(const at::Tensor& mean, const at::Tensor& std, OptionalGenerator generator, at::Tensor& out) {
  return templates::normal_out_impl<NormalKernel, NormalTensorTensor>(out, mean, std, std::move(generator));
}

at::Tensor& log_normal_(at::Tensor& self, double mean, double std, OptionalGenerator generator) {
  return templates::log_normal_impl_<LogNormalKernel, LogNormal>(self, mean, std, std::move(generator));
}

at::Tensor& exponential_(at::Tensor& self, double rate, OptionalGenerator generator) {
  return templates::exponential_impl_<ExponentialKernel, Exponential>(self, rate, std::move(generator));
}

at::Tensor& cauchy_(at::Tensor& self, double median, double sigma, OptionalGenerator generator) {
  return templates::cauchy_impl_<CauchyKernel, Cauchy>(self, median, sigma, std::move(generator));
}

at::Tensor& geometric_(at::Tensor& self, double p, OptionalGenerator generator) {
  return templates::geometric_impl_<GeometricKernel, Geometric>(self, p, std::move(generator));
}

at::Tensor& bernoulli_float(at::Tensor& self, double p, OptionalGenerator generator) {
  return templates::bernoulli_impl_<BernoulliKernel, Bernoulli>(self, p, std::move(generator));
}

at::Tensor& bernoulli_tensor(at::Tensor& self, const at::Tensor& p, OptionalGenerator generator) {
  return templates::bernoulli_impl_<BernoulliTensorKernel, BernoulliTensor>(self, p, std::move(generator));
}

at::Tensor& bernoulli_out(const at::Tensor& self, OptionalGenerator generator, at::Tensor& out) {
  return templates::bernoulli_out_impl<BernoulliTensorKernel, BernoulliOut>(out, self, std::move(generator));
}

// ---- Dropout ----------------------------------------------------------------

bool has_dropout_kernel(const at::Tensor& tensor, DType* dtype) {
  return is_plain(tensor) && kernel_dtype(tensor.scalar_type(), dtype) && kernels::dropout_kernel(*dtype) != nullptr;
}

constexpr bool kRefusesComplex = TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR < 15;  // later the CPU's mask of complex numbers is one of real ones

// Core takes native_dropout for this device and a formula for the CPU, where a mask of the input's own type refuses some types.
at::Tensor dropout(const at::Tensor& input, double p, bool train) {
  const c10::ScalarType type = input.scalar_type();
  const bool refused = (kRefusesComplex && input.is_complex()) || c10::isBarebonesUnsignedType(type) || c10::isFloat8Type(type);
  if (refused && train && p > 0 && p < 1 && input.numel() != 0) at::empty_like(input).bernoulli_(1 - p);
  return at::native::dropout(input, p, train);
}

std::tuple<at::Tensor, at::Tensor> native_dropout(const at::Tensor& input, double p, std::optional<bool> train) {
  NativeOp& native = Dropout::op();
  static KernelSlot slots[kernels::kDTypes];
  DType dtype;
  if (train.has_value() && !*train) return {input.clone(), at::ones_like(input, input.options().dtype(at::kBool))};
  TORCH_CHECK(0 <= p && p <= 1, "dropout probability has to be between 0 and 1, but got ", p);
  if (!has_dropout_kernel(input, &dtype)) {
    const at::Tensor mask = at::empty_like(input, input.options().dtype(at::kBool)).bernoulli_(1 - p);
    return {input.mul(mask).mul_(p == 1 ? 0.0 : 1 / (1 - p)), mask};
  }
  // In memory order when the elements lie side by side, so that a permuted input keeps its strides.
  const at::Tensor dense = input.is_non_overlapping_and_dense() ? input : input.contiguous();
  at::Tensor out = at::empty_like(dense);
  at::Tensor mask = at::empty_like(dense, dense.options().dtype(at::kBool));
  native.count_native();
  kernels::DropoutArgs args = {};
  args.count = static_cast<uint64_t>(dense.numel());
  if (args.count == 0) return {std::move(out), std::move(mask)};
  const c10::DeviceIndex device = dense.device().index();
  const PhiloxLaunch state = reserve_philox(std::nullopt, device, args.count);
  args.out = kernel_output(out);
  args.mask = static_cast<bool*>(kernel_output(mask));
  args.in = kernel_input(dense);
  args.random = {state.seed, state.offset, state.base};
  args.keep = 1 - p;
  args.scale = p == 1 ? 0 : 1 / (1 - p);
  Kernel* kernel = find_kernel(slots, dense.scalar_type(), "dropout", kernels::dropout_kernel);
  kernel->launch(current_stream(device), native.name(), args.count, args);
  return {std::move(out), std::move(mask)};
}

at::Tensor native_dropout_backward(const at::Tensor& grad, const at::Tensor& mask, double scale) {
  NativeOp& native = DropoutBackward::op();
  static KernelSlot slots[kernels::kDTypes];
  DType dtype;
  if (!has_dropout_kernel(grad, &dtype) || !is_plain(mask) || mask.scalar_type() != at::kBool || mask.device() != grad.device() ||
      mask.sizes() != grad.sizes() || mask.strides() != grad.strides() || !grad.is_non_overlapping_and_dense()) {
    return native.on_engine<at::Tensor>(grad, mask, scale);
  }
  at::Tensor out = at::empty_like(grad);
  native.count_native();
  const auto count = static_cast<uint64_t>(grad.numel());
  if (count == 0) return out;
  const kernels::DropoutBackwardArgs args{kernel_output(out), kernel_input(grad), static_cast<const bool*>(kernel_input(mask)), count,
                                          scale};
  Kernel* kernel = find_kernel(slots, grad.scalar_type(), "dropout_backward", kernels::dropout_backward_kernel);
  kernel->launch(current_stream(grad.device().index()), native.name(), count, args);
  return out;
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("random_", TORCH_FN(random_));
  m.impl("random_.from", TORCH_FN(random_from));
  m.impl("random_.to", TORCH_FN(random_to));
  m.impl("uniform_", TORCH_FN(uniform_));
  m.impl("normal_", TORCH_FN(normal_));
  m.impl("normal.Tensor_float", TORCH_FN(normal_tensor_float));
  m.impl("normal.Tensor_float_out", TORCH_FN(normal_tensor_float_out));
  m.impl("normal.float_Tensor", TORCH_FN(normal_float_tensor));
  m.impl("normal.float_Tensor_out", TORCH_FN(normal_float_tensor_out));
  m.impl("normal.Tensor_Tensor", TORCH_FN(normal_tensor_tensor));
  m.impl("normal.Tensor_Tensor_out", TORCH_FN(normal_tensor_tensor_out));
  m.impl("log_normal_", TORCH_FN(log_normal_));
  m.impl("exponential_", TORCH_FN(exponential_));
  m.impl("cauchy_", TORCH_FN(cauchy_));
  m.impl("geometric_", TORCH_FN(geometric_));
  m.impl("bernoulli_.float", TORCH_FN(bernoulli_float));
  m.impl("bernoulli_.Tensor", TORCH_FN(bernoulli_tensor));
  m.impl("bernoulli.out", TORCH_FN(bernoulli_out));
  m.impl("dropout", TORCH_FN(dropout));
  m.impl("native_dropout", TORCH_FN(native_dropout));
  m.impl("native_dropout_backward", TORCH_FN(native_dropout_backward));
}

// At the autograd key too: it is made of differentiable operators.
TORCH_LIBRARY_IMPL(aten, AutogradPrivateUse1, m) { m.impl("dropout", TORCH_FN(dropout)); }

}  // namespace
}  // namespace openreg
