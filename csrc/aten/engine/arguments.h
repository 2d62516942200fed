// Arguments as flat words: what a launch copies into the stream's queue, and how the worker turns it back into a boxed call
// on CPU tensors over the kernel view.
//
// Every argument is one tag word and its payload; tensors name their storage by its number in the call, so that arguments that share a
// storage share it on the worker too (CPU kernels look for overlaps). A tensor that comes twice is one tensor there too (kernels ask
// whether the result is an operand).
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <ATen/core/jit_type.h>
#include <ATen/core/stack.h>
#include <c10/util/SmallVector.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "aten/engine/argument_words.h"
#include "aten/engine/staging.h"
#include "runtime/generator.h"

namespace openreg::engine {

using Words = c10::SmallVector<uint64_t, 256>;

// Whether the argument is a Tensor?[]. isOptionalTensorList() asks for one object as the element type; TorchScript's lists have their own.
inline bool is_optional_tensor_list(const c10::IValue& value) {
  if (value.isOptionalTensorList()) return true;
  return value.isList() && !value.isIntList() && *value.toList().elementType() == *c10::getTypePtr<std::optional<at::Tensor>>();
}

// Calls visit(tensor) for the tensors of an argument: of a tensor, a list, a list of optional ones.
template <class Visit>
void for_each_tensor(const c10::IValue& value, Visit&& visit) {
  if (value.isTensor()) {
    visit(value.toTensor());
  } else if (value.isTensorList()) {
    for (const at::Tensor& tensor : value.toTensorVector()) visit(tensor);
  } else if (is_optional_tensor_list(value)) {
    for (const auto& element : value.toListRef()) {
      if (element.isTensor()) visit(element.toTensor());
    }
  }
}

// The strided tensors that a sparse tensor is made of: its indices, then its values.
c10::SmallVector<at::Tensor, 3> members_of(const at::Tensor& sparse);

// Calls visit(tensor) for the strided tensors of an argument, a sparse one's members instead of itself.
template <class Visit>
void for_each_member(const c10::IValue& value, Visit&& visit) {
  for_each_tensor(value, [&](const at::Tensor& tensor) {
    if (!tensor.defined()) return;
    if (tensor.layout() == at::kStrided) return visit(tensor);
    for (const at::Tensor& member : members_of(tensor)) visit(member);
  });
}

// What of a number's value may decide whether a kernel takes it, but not which number it is: its sign, not finite, outside the range of
// `dtype`.
uint64_t value_class(const c10::Scalar& value, c10::ScalarType dtype);

// Encodes a call's arguments. With a key, also writes what the result metadata depend on: see memo.h.
class Encoder {
 public:
  // `staging`: null where the device has a kernel view.
  Encoder(c10::DeviceIndex device, Words& words, c10::SmallVectorImpl<uint64_t>* key, Staging* staging)
      : device_(device), words_(words), key_(key), staging_(staging) {}

  // Appends one argument. `by_value`: a number's value belongs into the key. Returns false for a kind that cannot travel
  // (a stream, a Python object, a large CPU tensor); then the words are of no use.
  bool add(const c10::IValue& value, bool by_value);

  // Appends a device tensor.
  void add_tensor(const at::Tensor& tensor);

  // Appends a generator: on the worker, a CPU generator seeded with these.
  void add_generator(const PhiloxLaunch& random);

  // From now on tensors keep their requires_grad on the worker: for the few kernels that look at it below autograd.
  void keep_requires_grad() { keep_requires_grad_ = true; }

  // Whether two tensors of the call share a storage.
  bool shares_storage() const { return shares_storage_; }

  // Whether an argument is not plain: a tensor of another kind or a class object. The call must be dispatched by its arguments' keys.
  bool full_dispatch() const { return full_dispatch_; }

  // Objects of C++ classes among the arguments (packed parameters) and lists of them. They do not fit into words: the Decoder needs them.
  const std::vector<c10::IValue>& objects() const { return objects_; }

 private:
  bool add_any_tensor(const at::Tensor& tensor);
  // Whether the tensor came before; then its words name its place.
  bool add_again(const c10::TensorImpl* tensor);
  // A tensor made for this call: kept, because its address must not come again.
  bool add_part(at::Tensor part) {
    parts_.push_back(std::move(part));
    return add_any_tensor(parts_.back());
  }
  uint8_t flags_of(const at::Tensor& tensor) const;
  void add_inline(const at::Tensor& tensor);
  bool add_cpu_tensor(const at::Tensor& tensor);
  bool add_sparse(const at::Tensor& tensor);
  bool add_quantized(const at::Tensor& tensor);
  bool add_nested(const at::Tensor& tensor);
  bool add_list(const c10::IValue& value, bool by_value);
  void add_object(const c10::IValue& value);
  void push(uint64_t word) { words_.push_back(word); }
  // A first word that tells the dimensions, of which there may be many.
  void push_shape_head(uint64_t word, size_t dims) {
    push_both(word);
    if (C10_UNLIKELY(dims >= kManyDims)) push_both(dims);
  }
  void push_number(uint64_t word, const c10::Scalar& value, bool by_value);
  void push_both(uint64_t word) {
    words_.push_back(word);
    if (key_) key_->push_back(word);
  }

  c10::DeviceIndex device_;
  Words& words_;
  c10::SmallVectorImpl<uint64_t>* key_;
  Staging* staging_;
  struct Storage {
    const c10::StorageImpl* impl;
    int64_t first_offset_bytes;
  };
  c10::SmallVector<Storage, 8> storages_;
  c10::SmallVector<const c10::TensorImpl*, 8> tensors_;  // dense and sparse ones, in the order in which their words end
  std::vector<at::Tensor> parts_;
  c10::ScalarType first_dtype_ = c10::ScalarType::Undefined;
  std::vector<c10::IValue> objects_;
  bool full_dispatch_ = false, keep_requires_grad_ = false, shares_storage_ = false;
};

// Reads what an Encoder wrote. The tensors it makes own nothing on the device: their storages point into the kernel view.
class Decoder {
 public:
  // `objects`: what Encoder::objects() gave, or null when there was none.
  explicit Decoder(const uint64_t* words, const std::vector<c10::IValue>* objects = nullptr) : next_(words), objects_(objects) {}
  c10::IValue read();
  at::Tensor read_tensor() { return read().toTensor(); }

 private:
  uint64_t pop() { return *next_++; }
  size_t pop_dims(uint64_t head) { return c_of(head) < kManyDims ? c_of(head) : pop(); }
  at::Tensor read_strided(uint64_t head);
  at::Tensor read_inline(uint64_t head);
  at::Tensor read_sparse(uint64_t head);
  at::Tensor read_quantized(uint64_t head);
  at::Tensor read_nested();
  c10::IValue read_list(uint64_t head);

  const uint64_t* next_;
  const std::vector<c10::IValue>* objects_;
  c10::SmallVector<c10::Storage, 8> storages_;
  c10::SmallVector<at::Tensor, 8> tensors_;  // as the Encoder's
};

}  // namespace openreg::engine
