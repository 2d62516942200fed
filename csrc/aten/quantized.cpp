// Quantized tensors: construction, quantizers, views and copies. Every other operator reaches the engine's fallback.
//
// A tensor that is quantized per channel keeps its scales and zero points on its device.
#include <ATen/NativeFunctions.h>
#include <ATen/EmptyTensor.h>
#include <ATen/Functions.h>
#include <ATen/quantized/QTensorImpl.h>
#include <ATen/quantized/Quantizer.h>
#include <torch/library.h>

#include <limits>
#include <utility>

#include "aten/copy.h"
#include "aten/engine/engine.h"
#include "aten/guarded.h"
#include "aten/tensor.h"
#include "runtime/device.h"

namespace openreg {

namespace native = at::native;

namespace {

using at::Tensor;

using c10::MemoryFormat;
using c10::ScalarType;

bool is_per_tensor(const Tensor& tensor) { return tensor.qscheme() == c10::kPerTensorAffine; }

int64_t elements_per_byte(ScalarType dtype) { return dtype == ScalarType::QUInt4x2 ? 2 : dtype == ScalarType::QUInt2x4 ? 4 : 1; }

// Rows of packed elements begin at a byte.
size_t bytes_of(at::IntArrayRef sizes, ScalarType dtype) {
  const int64_t row = sizes.empty() ? 1 : sizes.back();
  const int64_t rows = sizes.empty() ? 1 : c10::multiply_integers(sizes.slice(0, sizes.size() - 1));
  const auto item = static_cast<int64_t>(c10::elementSize(dtype));
  return static_cast<size_t>(rows * ((row * item + elements_per_byte(dtype) - 1) / elements_per_byte(dtype)));
}

// Core's constructor of quantized tensors allocates host memory for some engines of torch.backends.quantized.
Tensor make_quantized(c10::Device device, at::IntArrayRef sizes, ScalarType dtype, MemoryFormat format, at::QuantizerPtr quantizer) {
  at::detail::check_size_nonnegative(sizes);
  const c10::DeviceIndex index = device.has_index() ? device.index() : current_device();
  check_device(index);
  const Tensor memory = make_contiguous(index, {static_cast<int64_t>(bytes_of(sizes, dtype))}, caffe2::TypeMeta::Make<uint8_t>());
  const c10::DispatchKeySet key(c10::DispatchKey::QuantizedPrivateUse1);
  Tensor tensor = at::detail::make_tensor<at::QTensorImpl>(c10::Storage(memory.storage()), key, c10::scalarTypeToTypeMeta(dtype),
                                                           std::move(quantizer));
  tensor.unsafeGetTensorImpl()->set_sizes_contiguous(sizes);
  tensor.unsafeGetTensorImpl()->empty_tensor_restride(format);
  return tensor;
}

using MaybeDtype = std::optional<ScalarType>;
using MaybeLayout = std::optional<c10::Layout>;
using MaybeDevice = std::optional<c10::Device>;
using MaybeFormat = std::optional<MemoryFormat>;

ScalarType quantized_dtype(MaybeDtype dtype) {
  const ScalarType given = c10::dtype_or_default(dtype);
  TORCH_CHECK(c10::isQIntType(given), "Creation of quantized tensor requires quantized dtype like torch.quint8");
  return given;
}

c10::Device device_or_current(MaybeDevice device) { return device.value_or(c10::Device(kDeviceType, current_device())); }

Tensor empty(at::IntArrayRef sizes, MaybeDtype dtype, MaybeLayout, MaybeDevice device, std::optional<bool>, MaybeFormat format) {
  const ScalarType type = quantized_dtype(dtype);
  return make_quantized(device_or_current(device), sizes, type, format.value_or(MemoryFormat::Contiguous), at::make_unknown_quantizer(type));
}

Tensor empty_affine(at::IntArrayRef sizes, MaybeDtype dtype, MaybeLayout, MaybeDevice device, std::optional<bool>, double scale, int64_t zero_point,
                    MaybeFormat format) {
  const ScalarType type = quantized_dtype(dtype);
  return make_quantized(device_or_current(device), sizes, type, format.value_or(MemoryFormat::Contiguous),
                        at::make_per_tensor_affine_quantizer(scale, zero_point, type));
}

Tensor empty_per_channel(at::IntArrayRef sizes, const Tensor& scales, const Tensor& zero_points, int64_t axis, MaybeDtype dtype, MaybeLayout layout,
                         MaybeDevice device, std::optional<bool> pin_memory, MaybeFormat format) {
  const ScalarType type = quantized_dtype(dtype);
  const c10::Device place = device_or_current(device);
  // Scales on this device bring a call for another one here.
  if (place.type() != kDeviceType) {
    return native::empty_per_channel_affine_quantized(sizes, scales.to(place), zero_points.to(place), axis, dtype, layout, device, pin_memory, format);
  }
  return make_quantized(place, sizes, type, format.value_or(MemoryFormat::Contiguous),
                        at::make_per_channel_affine_quantizer(scales.to(place), zero_points.to(place), axis, type));
}

Tensor strided_over(const Tensor& base, ScalarType dtype, at::IntArrayRef sizes, at::IntArrayRef strides, int64_t offset) {
  const c10::DispatchKey key = base.is_cpu() ? c10::DispatchKey::CPU : c10::DispatchKey::PrivateUse1;
  Tensor tensor = at::detail::make_tensor<c10::TensorImpl>(c10::Storage(base.storage()), c10::DispatchKeySet(key), c10::scalarTypeToTypeMeta(dtype));
  tensor.unsafeGetTensorImpl()->set_sizes_and_strides(sizes, strides, offset);
  return tensor;
}

// The integers of a quantized tensor, as a tensor over the same memory. Packed elements are their bytes.
Tensor ints_of(const Tensor& tensor) {
  if (elements_per_byte(tensor.scalar_type()) > 1) {
    TORCH_CHECK_NOT_IMPLEMENTED(tensor.is_contiguous() && tensor.storage_offset() == 0,
                                "openreg cannot copy a part of a tensor of ", tensor.scalar_type(), ", whose elements share bytes.");
    const auto bytes = static_cast<int64_t>(tensor.storage().nbytes());
    return strided_over(tensor, at::kByte, {bytes}, {1}, 0);
  }
  return strided_over(tensor, c10::toUnderlying(tensor.scalar_type()), tensor.sizes(), tensor.strides(), tensor.storage_offset());
}

// The quantizer of `src` for a tensor on `device`.
at::QuantizerPtr quantizer_on(c10::Device device, const Tensor& src) {
  if (is_per_tensor(src) || src.device() == device) return src.quantizer();
  return at::make_per_channel_affine_quantizer(src.q_per_channel_scales().to(device), src.q_per_channel_zero_points().to(device),
                                               src.q_per_channel_axis(), src.scalar_type());
}

Tensor& copy_(Tensor& self, const Tensor& src, bool non_blocking) {
  if (self.is_same(src)) return self;
  TORCH_CHECK(self.is_quantized(), "Copying from quantized Tensor to non-quantized Tensor is not allowed, please use dequantize to get a float "
                                   "Tensor from a quantized Tensor");
  if (!src.is_quantized()) {
    // The CPU's copy quantizes. It may raise for what it is given, so it runs as the CPU runs it.
    if (self.is_cpu()) return self.copy_(src.cpu(), non_blocking);
    static const auto op = engine::find_op("aten::copy_", "");
    engine::call(op, self, src.to(self.device()), non_blocking);
    return self;
  }
  TORCH_CHECK(self.qscheme() == src.qscheme(), "Quantized Copy only works with same qscheme");
  TORCH_CHECK(self.scalar_type() == src.scalar_type());
  at::set_quantizer_(self, quantizer_on(self.device(), src));
  copy_tensor(ints_of(self), ints_of(src), non_blocking);
  return self;
}

// Core leaves a tensor whose memory has gaps where it is.
Tensor to_copy(const Tensor& self, MaybeDtype dtype, MaybeLayout layout, MaybeDevice device, std::optional<bool> pin_memory, bool non_blocking,
               MaybeFormat format) {
  const bool dense = self.is_non_overlapping_and_dense();
  return native::_to_copy(dense ? self : self.contiguous(), dtype, layout, device, pin_memory, non_blocking, format);
}

Tensor copy_from(const Tensor& self, const Tensor& dst, bool non_blocking) {
  Tensor target = dst;
  copy_(target, self, non_blocking);
  return dst;
}

Tensor copy_from_and_resize(const Tensor& self, const Tensor& dst) {
  dst.resize_(self.sizes());
  return copy_from(self, dst, false);
}

const Tensor& resize_(const Tensor& self, at::IntArrayRef sizes, std::optional<MemoryFormat> format) {
  TORCH_CHECK(!format || *format == MemoryFormat::Contiguous, "Unsupported memory format for quantized tensor resize ", *format);
  TORCH_CHECK(is_per_tensor(self), "Can only resize quantized tensors with per-tensor schemes!");
  return at::_ops::resize_::redispatch(c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), self, c10::fromIntArrayRefSlow(sizes), std::nullopt);
}

// Conversions whose errors can be told from metadata and numbers alone run without a wait when there are none: `fits` says so.
// All others go through the engine, which waits and raises what the CPU raises.

bool is_plain_float(const Tensor& self) {
  return self.scalar_type() == at::kFloat && self.layout() == at::kStrided && !self.is_conj() && !self.is_neg() && !self._is_zerotensor();
}

bool fits(int64_t zero_point, ScalarType dtype) {
  const auto within = [&](auto limits) { return zero_point >= limits.min() && zero_point <= limits.max(); };
  switch (dtype) {
    case at::kQUInt8: return within(std::numeric_limits<uint8_t>());
    case at::kQInt8: return within(std::numeric_limits<int8_t>());
    case at::kQInt32: return within(std::numeric_limits<int32_t>());
    default: return false;
  }
}

Tensor quantize_per_tensor(const Tensor& self, double scale, int64_t zero_point, ScalarType dtype) {
  if (!is_plain_float(self) || !fits(zero_point, dtype)) {
    static const auto op = engine::find_op("aten::quantize_per_tensor", "");
    return engine::call(op, self, scale, zero_point, dtype)[0].toTensor();
  }
  Tensor result = at::_empty_affine_quantized(self.sizes(), self.options().dtype(dtype), scale, zero_point, self.suggest_memory_format());
  static const auto op = engine::find_op("aten::quantize_per_tensor", "out");
  engine::launch(op, {self, scale, zero_point, dtype, result});
  return result;
}

Tensor quantize_per_channel(const Tensor& self, const Tensor& scales, const Tensor& zero_points, int64_t axis, ScalarType dtype) {
  const bool valid = scales.device() == self.device() && zero_points.device() == self.device() && scales.dim() == 1 &&
                     zero_points.dim() == 1 && axis >= 0 && axis < self.dim() && self.size(axis) == scales.numel() &&
                     scales.numel() == zero_points.numel() && at::isFloatingType(scales.scalar_type());
  if (!is_plain_float(self) || !valid || !fits(0, dtype)) {
    static const auto op = engine::find_op("aten::quantize_per_channel", "");
    return engine::call(op, self, scales, zero_points, axis, dtype)[0].toTensor();
  }
  const auto format = at::isFloatingType(zero_points.scalar_type()) ? MemoryFormat::Contiguous : self.suggest_memory_format();
  Tensor result = at::_empty_per_channel_affine_quantized(self.sizes(), scales, zero_points, axis, self.options().dtype(dtype), format);
  static const auto op = engine::find_op("aten::quantize_per_channel", "out");
  engine::launch(op, {self, scales, zero_points, axis, dtype, result});
  return result;
}

// Whether there is a scale for every channel: views keep the quantizer of the whole.
bool channels_fit(const Tensor& self) {
  if (is_per_tensor(self)) return true;
  const int64_t axis = self.q_per_channel_axis();
  return axis < self.dim() && self.size(axis) == self.q_per_channel_scales().numel();
}

Tensor dequantize(const Tensor& self) {
  if (!channels_fit(self)) {
    static const auto op = engine::find_op("aten::dequantize", "self");
    return engine::call(op, self)[0].toTensor();
  }
  const auto format = self.qscheme() == c10::kPerChannelAffineFloatQParams ? MemoryFormat::Contiguous : self.suggest_memory_format();
  Tensor result = at::empty(self.sizes(), self.options().dtype(at::kFloat), format);
  static const auto op = engine::find_op("aten::dequantize", "self_out");
  engine::launch(op, {self, result});
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, QuantizedPrivateUse1, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", Guarded<native::empty_strided_unknown_quantized>::call);
  m.impl("empty_quantized", Guarded<native::empty_quantized>::call);
  m.impl("empty_like", Guarded<native::empty_like_quantized>::call);
  m.impl("_empty_affine_quantized", empty_affine);
  m.impl("_empty_per_channel_affine_quantized", empty_per_channel);
  m.impl("qscheme", native::qscheme_quant);
  m.impl("q_scale", native::q_scale_quant);
  m.impl("q_zero_point", native::q_zero_point_quant);
  m.impl("q_per_channel_scales", native::q_per_channel_scales);
  m.impl("q_per_channel_zero_points", native::q_per_channel_zero_points);
  m.impl("q_per_channel_axis", native::q_per_channel_axis);
  m.impl("as_strided", native::as_strided_qtensorimpl);
  m.impl("view", native::view);
  m.impl("_reshape_alias", native::_reshape_alias);
  m.impl("unfold", native::unfold);
  m.impl("unsqueeze", native::unsqueeze_quantized);
  m.impl("squeeze", static_cast<Tensor (*)(const Tensor&)>(native::squeeze_quantized));
  m.impl("squeeze.dim", static_cast<Tensor (*)(const Tensor&, int64_t)>(native::squeeze_quantized));
  m.impl("squeeze.dims", static_cast<Tensor (*)(const Tensor&, at::IntArrayRef)>(native::squeeze_quantized));
  m.impl("set_.source_Storage_storage_offset", native::set_storage_quantized_);
  m.impl("resize_", resize_);
  m.impl("clone", Guarded<native::quantized_clone>::call);
  m.impl("_to_copy", to_copy);
  m.impl("copy_", copy_);
  m.impl("_copy_from", copy_from);
  m.impl("_copy_from_and_resize", copy_from_and_resize);
  m.impl("dequantize.self", dequantize);
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("_empty_affine_quantized", native::empty_affine_quantized_other_backends_stub);
  m.impl("_empty_per_channel_affine_quantized", native::empty_per_channel_affine_quantized_other_backends_stub);
  // Core's composites of these read the memory themselves.
  for (const char* name : {"choose_qparams_optimized", "fbgemm_linear_quantize_weight"}) {
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&engine::boxed>());
  }
  m.impl("quantize_per_tensor", quantize_per_tensor);
  m.impl("quantize_per_channel", quantize_per_channel);
}

}  // namespace openreg
