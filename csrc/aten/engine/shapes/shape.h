// Shape functions: result metadata of operators for which core has no C++ meta function. See Note [Shape functions].
//
// Note [Shape functions]
// A shape function answers for a call whose signature has run before with other sizes. It answers only where it is certain that the CPU's
// kernel accepts the sizes: for anything else it returns false, the call is waited, and the CPU's kernel raises its own error. It reads
// metadata of tensors, never data. OPENREG_CHECK_METADATA=1 compares every answer with what the kernel returned.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

#include <optional>
#include <string_view>
#include <vector>

#include "aten/engine/memo.h"

namespace openreg::engine::shapes {

// The arguments of one call.
class Arguments {
 public:
  explicit Arguments(at::ArrayRef<c10::IValue> values) : values_(values) {}
  const at::Tensor& tensor(size_t i) const { return values_[i].toTensor(); }
  bool given(size_t i) const { return values_[i].isTensor() && values_[i].toTensor().defined(); }
  int64_t integer(size_t i) const { return values_[i].toInt(); }
  bool flag(size_t i) const { return values_[i].toBool(); }
  bool none(size_t i) const { return values_[i].isNone(); }
  std::vector<int64_t> integers(size_t i) const { return values_[i].toIntVector(); }
  bool mask(size_t i, size_t bit) const { return values_[i].toBoolList().get(bit); }
  std::vector<at::Tensor> tensors(size_t i) const { return values_[i].toTensorVector(); }
  const c10::IValue& operator[](size_t i) const { return values_[i]; }
  size_t size() const { return values_.size(); }

 private:
  at::ArrayRef<c10::IValue> values_;
};

// Fills entry.results, one per return (those that are written arguments stay empty), and entry.resized. False: unknown. An exception counts
// as unknown.
using Function = bool (*)(const Arguments&, MemoEntry& entry);

// The function for "aten::name.overload", or null.
Function find(std::string_view name);

// One operator and its function.
struct Rule {
  const char* name;  // without "aten::"
  Function function;
};

// The rules of each file of this folder.
at::ArrayRef<Rule> attention_rules();
at::ArrayRef<Rule> convolution_rules();
at::ArrayRef<Rule> fft_rules();
at::ArrayRef<Rule> indexing_rules();
at::ArrayRef<Rule> linalg_rules();
at::ArrayRef<Rule> list_rules();
at::ArrayRef<Rule> normalization_rules();
at::ArrayRef<Rule> pointwise_rules();
at::ArrayRef<Rule> pooling_rules();
at::ArrayRef<Rule> reduction_rules();

using Sizes = std::vector<int64_t>;

// A result that is dense in the order of its dimensions, or in a channels-last order.
ResultMeta contiguous(at::IntArrayRef sizes, c10::ScalarType dtype, c10::MemoryFormat format = c10::MemoryFormat::Contiguous);
ResultMeta strided(at::IntArrayRef sizes, at::IntArrayRef strides, c10::ScalarType dtype);
// What empty_like(tensor) makes: the order of its dimensions kept when it is dense.
ResultMeta like(const at::Tensor& tensor);
inline ResultMeta undefined() { return {}; }
// contiguous() when `given`, else an undefined tensor.
ResultMeta contiguous_if(bool given, at::IntArrayRef sizes, c10::ScalarType dtype);

// Whether a gradient lies in memory like a dense result, or is one number expanded, as the gradient of a sum is.
bool plain_gradient(const at::Tensor& grad, c10::MemoryFormat format = c10::MemoryFormat::Contiguous);

// Whether the argument is one of at::Reduction's numbers: kernels take others each in a way of its own.
bool is_reduction(const Arguments& in, size_t place);

// Sets the results, and returns true.
bool give(MemoEntry& entry, std::initializer_list<ResultMeta> results);

// An out= call: the written argument `index` becomes what `result` says. False when a tensor with elements would change its size, because
// that warns.
bool give_out(const Arguments& in, size_t index, const ResultMeta& result, MemoEntry& entry);

// The type that floating point kernels give for an integral input: the default one.
c10::ScalarType floating(c10::ScalarType dtype);

}  // namespace openreg::engine::shapes
