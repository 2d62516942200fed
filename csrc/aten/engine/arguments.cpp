// Encoding and decoding arguments.
#include "aten/engine/arguments.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>

#include <c10/core/CPUAllocator.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "aten/engine/argument_words.h"
#include "aten/tensor.h"
#include "runtime/driver.h"

namespace openreg::engine {

namespace {

constexpr size_t kMaxInlineBytes = 1024;  // larger CPU operands are copied to the device by whoever calls

void apply_flags(at::Tensor& tensor, uint8_t flags) {
  if (flags & kWrappedNumber) tensor.unsafeGetTensorImpl()->set_wrapped_number(true);
  if (flags & kConjugate) tensor._set_conj(true);
  if (flags & kNegative) tensor._set_neg(true);
  if (flags & kRequiresGrad) tensor.set_requires_grad(true);
}

at::Generator seeded_generator(uint64_t seed, uint64_t offset, const uint64_t* base) {
  if (base != nullptr) {
    seed = base[0];
    offset += base[1];
  }
  // One per thread: building the engine's state is most of its cost. The multiplier spreads offsets over seeds (splitmix64's constant).
  static thread_local at::Generator generator = at::make_generator<at::CPUGeneratorImpl>();
  generator.set_current_seed(seed ^ (offset + 1) * 0x9E3779B97F4A7C15ull);
  return generator;
}

}  // namespace

uint64_t value_class(const c10::Scalar& scalar, c10::ScalarType dtype) {
  if (scalar.isBoolean()) return 1;
  if (scalar.isComplex()) {
    // The classes of both parts; of the imaginary one not its sign, but whether there is any.
    const c10::complex<double> value = scalar.toComplexDouble();
    const c10::ScalarType part = c10::toRealValueType(dtype);
    return value_class(value.real(), part) | (value_class(value.imag(), part) & ~uint64_t{3}) << 5 | (value.imag() != 0) << 12;
  }
  const double value = scalar.to<double>();
  double low = -std::numeric_limits<double>::infinity(), high = -low;
  switch (dtype) {
    case c10::ScalarType::Byte: low = 0, high = 255; break;
    case c10::ScalarType::Char: low = -128, high = 127; break;
    case c10::ScalarType::Short: low = -32768, high = 32767; break;
    case c10::ScalarType::Int: low = -2147483648.0, high = 2147483647; break;
    case c10::ScalarType::Long: low = -0x1p63, high = 0x1p63; break;
    case c10::ScalarType::UInt16: low = 0, high = 65535; break;
    case c10::ScalarType::UInt32: low = 0, high = 4294967295.0; break;
    case c10::ScalarType::UInt64: low = 0, high = 0x1p64; break;
    case c10::ScalarType::Half: low = -65504, high = 65504; break;
    case c10::ScalarType::Float:
    case c10::ScalarType::ComplexFloat:
    case c10::ScalarType::BFloat16: low = -0x1p128, high = 0x1p128; break;
    default: break;
  }
  // A step size that falls to zero keeps its sign, and its class.
  return 1 | std::signbit(value) << 1 | (value < low) << 2 | (value > high) << 3 | !std::isfinite(value) << 4;
}

uint8_t Encoder::flags_of(const at::Tensor& tensor) const {
  return static_cast<uint8_t>((tensor.unsafeGetTensorImpl()->is_wrapped_number() ? kWrappedNumber : 0) |
                              (tensor.is_conj() ? kConjugate : 0) | (tensor.is_neg() ? kNegative : 0) |
                              (tensor._is_zerotensor() ? kZero : 0) | (keep_requires_grad_ && tensor.requires_grad() ? kRequiresGrad : 0));
}

bool Encoder::add_again(const c10::TensorImpl* tensor) {
  const auto found = std::find(tensors_.begin(), tensors_.end(), tensor);
  if (found == tensors_.end()) return false;
  push_both(head(Tag::again, 0, 0, 0, static_cast<uint32_t>(found - tensors_.begin())));
  return true;
}

void Encoder::add_tensor(const at::Tensor& tensor) {
  const c10::TensorImpl* impl = tensor.unsafeGetTensorImpl();
  if (first_dtype_ == c10::ScalarType::Undefined) first_dtype_ = impl->dtype().toScalarType();
  const uint8_t flags = flags_of(tensor);
  const auto sizes = impl->sizes();
  const auto strides = impl->strides();
  const c10::StorageImpl* storage = impl->unsafe_storage().unsafeGetStorageImpl();
  uint32_t number = 0;
  while (number < storages_.size() && storages_[number].impl != storage) ++number;
  const bool first = number == storages_.size();
  if (!first && add_again(impl)) {
    shares_storage_ = true;
    return;
  }
  tensors_.push_back(impl);
  push_shape_head(head(Tag::tensor, static_cast<uint8_t>(impl->dtype().toScalarType()), flags, dims_byte(sizes.size()), number), sizes.size());
  if (first) {
    check_memory(tensor);
    storages_.push_back({storage, impl->storage_offset() * static_cast<int64_t>(impl->dtype().itemsize())});
    push(reinterpret_cast<uint64_t>(staging_ ? staging_->host_of(storage) : kernel_ptr(static_cast<const char*>(storage->data()), device_)));
    push(storage->nbytes());
  } else {
    // How the tensors lie to each other decides whether they overlap.
    shares_storage_ = true;
    const int64_t offset_bytes = impl->storage_offset() * static_cast<int64_t>(impl->dtype().itemsize());
    if (key_) key_->push_back(static_cast<uint64_t>(offset_bytes - storages_[number].first_offset_bytes));
  }
  push(static_cast<uint64_t>(impl->storage_offset()));
  for (const int64_t size : sizes) push_both(static_cast<uint64_t>(size));
  for (const int64_t stride : strides) push_both(static_cast<uint64_t>(stride));
}

void Encoder::add_inline(const at::Tensor& tensor) {
  const at::Tensor dense = tensor.is_contiguous() && !tensor.is_conj() && !tensor.is_neg() ? tensor : tensor.resolve_conj().resolve_neg().contiguous();
  const uint8_t flags = flags_of(tensor) & kWrappedNumber;
  push_shape_head(head(Tag::cpu_tensor, static_cast<uint8_t>(dense.scalar_type()), flags, dims_byte(dense.sizes().size())), dense.sizes().size());
  for (const int64_t size : dense.sizes()) push_both(static_cast<uint64_t>(size));
  const size_t begin = words_.size();
  words_.resize(begin + (dense.nbytes() + 7) / 8);
  if (dense.nbytes() != 0) std::memcpy(words_.data() + begin, dense.const_data_ptr(), dense.nbytes());
}

bool Encoder::add_cpu_tensor(const at::Tensor& tensor) {
  if (tensor.layout() != at::kStrided || tensor.is_quantized() || tensor.is_nested() || tensor.nbytes() > kMaxInlineBytes) return false;
  add_inline(tensor);
  return true;
}

bool Encoder::add_any_tensor(const at::Tensor& tensor) {
  if (!tensor.defined()) {
    push_both(head(Tag::undefined));
    return true;
  }
  if (tensor.is_cpu() && tensor.layout() == at::kStrided) return add_cpu_tensor(tensor);
  if (tensor.device().type() != kDeviceType) return false;
  if (tensor.layout() != at::kStrided) return tensor.layout() == at::kJagged ? false : add_sparse(tensor);
  if (C10_UNLIKELY(tensor.is_quantized())) return add_quantized(tensor);
  if (C10_UNLIKELY(tensor.is_nested())) return add_nested(tensor);
  if (!tensor.has_storage()) return false;
  add_tensor(tensor);
  return true;
}

void Encoder::push_number(uint64_t word, const c10::Scalar& value, bool by_value) {
  push(word);
  if (key_) key_->push_back(by_value ? word : value_class(value, first_dtype_));
}

bool Encoder::add_list(const c10::IValue& value, bool by_value) {
  if (value.isTensorList()) {
    const auto list = value.toTensorList();
    push_both(head(Tag::tensors, 0, 0, 0, static_cast<uint32_t>(list.size())));
    for (size_t i = 0; i < list.size(); ++i) {
      if (!add_any_tensor(list.get(i))) return false;
    }
    return true;
  }
  if (value.isIntList()) {
    const auto list = value.toIntList();
    push_both(head(Tag::integers, 0, 0, 0, static_cast<uint32_t>(list.size())));
    for (size_t i = 0; i < list.size(); ++i) push_both(static_cast<uint64_t>(list.get(i)));
    return true;
  }
  if (value.isBoolList()) {
    const auto list = value.toBoolList();
    push_both(head(Tag::booleans, 0, 0, 0, static_cast<uint32_t>(list.size())));
    for (size_t i = 0; i < list.size(); ++i) push_both(list.get(i));
    return true;
  }
  if (value.isDoubleList()) {
    const auto list = value.toDoubleList();
    push_both(head(Tag::reals, 0, 0, 0, static_cast<uint32_t>(list.size())));
    for (size_t i = 0; i < list.size(); ++i) push_number(std::bit_cast<uint64_t>(list.get(i)), list.get(i), by_value);
    return true;
  }
  const auto list = value.toListRef();
  if (!list.empty() && list[0].isObject()) {
    add_object(value);
    return true;
  }
  const bool optional_tensors = is_optional_tensor_list(value);
  push_both(head(optional_tensors ? Tag::optional_tensors : Tag::scalars, 0, 0, 0, static_cast<uint32_t>(list.size())));
  for (const auto& element : list) {
    if (!optional_tensors && !element.isScalar() && !element.isUnsigned()) return false;
    if (!add(element, by_value)) return false;
  }
  return true;
}

bool Encoder::add(const c10::IValue& value, bool by_value) {
  if (value.isTensor()) return add_any_tensor(value.toTensor());
  if (value.isNone()) {
    push_both(head(Tag::none));
  } else if (value.isInt()) {
    push_both(head(Tag::integer));
    push_number(static_cast<uint64_t>(value.toInt()), value.toInt(), by_value);
  } else if (value.isUnsigned()) {  // more than an int64_t holds
    push_both(head(Tag::unsigned_integer));
    push_number(value.toUInt(), value.toUInt(), by_value);
  } else if (value.isDouble()) {
    push_both(head(Tag::real));
    push_number(std::bit_cast<uint64_t>(value.toDouble()), value.toDouble(), by_value);
  } else if (value.isBool()) {
    push_both(head(Tag::boolean, value.toBool()));
  } else if (value.isComplexDouble()) {
    push_both(head(Tag::complex));
    push_number(std::bit_cast<uint64_t>(value.toComplexDouble().real()), value.toComplexDouble(), by_value);
    push_number(std::bit_cast<uint64_t>(value.toComplexDouble().imag()), value.toComplexDouble(), by_value);
  } else if (value.isList()) {
    return add_list(value, by_value);
  } else if (value.isString()) {
    const std::string& text = value.toStringRef();
    push_both(head(Tag::string, 0, 0, 0, static_cast<uint32_t>(text.size())));
    for (size_t i = 0; i < text.size(); i += 8) {
      uint64_t word = 0;
      std::memcpy(&word, text.data() + i, std::min<size_t>(8, text.size() - i));
      push_both(word);
    }
  } else if (value.isDevice()) {
    push_both(head(Tag::device));
  } else if (value.isObject()) {
    add_object(value);
  } else {
    return false;
  }
  return true;
}

void Encoder::add_generator(const PhiloxLaunch& random) {
  push_both(head(Tag::generator));
  push(random.seed);
  push(random.offset);
  push(reinterpret_cast<uint64_t>(random.base));
}

at::Tensor Decoder::read_strided(uint64_t word) {
  const auto dtype = c10::scalarTypeToTypeMeta(static_cast<c10::ScalarType>(a_of(word)));
  const size_t dims = pop_dims(word);
  if (d_of(word) == storages_.size()) {
    void* data = reinterpret_cast<void*>(pop());
    const auto bytes = static_cast<int64_t>(pop());
    storages_.emplace_back(c10::make_intrusive<c10::StorageImpl>(c10::StorageImpl::use_byte_size_t(), c10::SymInt(bytes),
                                                                 c10::DataPtr(data, c10::Device(c10::DeviceType::CPU)),
                                                                 c10::GetDefaultCPUAllocator(), true));
  }
  const auto offset = static_cast<int64_t>(pop());
  const auto* sizes = reinterpret_cast<const int64_t*>(next_);
  next_ += 2 * dims;
  const c10::DispatchKeySet keys(b_of(word) & kZero ? c10::DispatchKeySet({c10::DispatchKey::CPU, c10::DispatchKey::ZeroTensor})
                                                    : c10::DispatchKeySet(c10::DispatchKey::CPU));
  at::Tensor tensor = at::detail::make_tensor<c10::TensorImpl>(c10::Storage(storages_[d_of(word)]), keys, dtype);
  tensor.unsafeGetTensorImpl()->set_sizes_and_strides({sizes, dims}, {sizes + dims, dims}, offset);
  if (b_of(word) != 0) apply_flags(tensor, b_of(word));
  tensors_.push_back(tensor);
  return tensor;
}

at::Tensor Decoder::read_inline(uint64_t word) {
  const size_t dims = pop_dims(word);
  const auto* sizes = reinterpret_cast<const int64_t*>(next_);
  next_ += dims;
  at::Tensor tensor = at::empty({sizes, dims}, at::TensorOptions().dtype(static_cast<c10::ScalarType>(a_of(word))));
  if (tensor.nbytes() != 0) std::memcpy(tensor.mutable_data_ptr(), next_, tensor.nbytes());
  next_ += (tensor.nbytes() + 7) / 8;
  apply_flags(tensor, b_of(word));
  return tensor;
}

c10::IValue Decoder::read_list(uint64_t word) {
  const uint32_t size = d_of(word);
  const auto fill = [&](auto list, auto&& next) {
    list.reserve(size);
    for (uint32_t i = 0; i < size; ++i) list.push_back(next());
    return c10::IValue(std::move(list));
  };
  switch (tag_of(word)) {
    case Tag::tensors: return fill(c10::List<at::Tensor>(), [&] { return read_tensor(); });
    case Tag::integers: return fill(c10::List<int64_t>(), [&] { return static_cast<int64_t>(pop()); });
    case Tag::reals: return fill(c10::List<double>(), [&] { return std::bit_cast<double>(pop()); });
    case Tag::booleans: return fill(c10::List<bool>(), [&] { return pop() != 0; });
    case Tag::optional_tensors:
      return fill(c10::List<std::optional<at::Tensor>>(), [&]() -> std::optional<at::Tensor> {
        c10::IValue value = read();
        return value.isNone() ? std::nullopt : std::optional<at::Tensor>(value.toTensor());
      });
    default: return fill(c10::List<at::Scalar>(), [&] { return read().toScalar(); });
  }
}

c10::IValue Decoder::read() {
  const uint64_t word = pop();
  switch (tag_of(word)) {
    case Tag::none: return {};
    case Tag::undefined: return at::Tensor();
    case Tag::tensor: return read_strided(word);
    case Tag::again: return tensors_[d_of(word)];
    case Tag::cpu_tensor: return read_inline(word);
    case Tag::sparse_coo:
    case Tag::sparse_compressed: return read_sparse(word);
    case Tag::quantized: return read_quantized(word);
    case Tag::nested: return read_nested();
    case Tag::integer: return static_cast<int64_t>(pop());
    case Tag::unsigned_integer: return pop();
    case Tag::real: return std::bit_cast<double>(pop());
    case Tag::boolean: return a_of(word) != 0;
    case Tag::complex: {
      const double real = std::bit_cast<double>(pop());
      return c10::complex<double>(real, std::bit_cast<double>(pop()));
    }
    case Tag::string: {
      std::string text(reinterpret_cast<const char*>(next_), d_of(word));
      next_ += (text.size() + 7) / 8;
      return text;
    }
    case Tag::device: return c10::Device(c10::DeviceType::CPU);
    case Tag::generator: {
      const uint64_t seed = pop(), offset = pop();
      return seeded_generator(seed, offset, reinterpret_cast<const uint64_t*>(pop()));
    }
    case Tag::object: return objects_->at(d_of(word));
    default: return read_list(word);
  }
}

}  // namespace openreg::engine
