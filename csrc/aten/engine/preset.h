// Preset outputs: result blocks that a CPU kernel without an out= overload is offered when it allocates its results.
//
// Note [Preset outputs]
// Such a kernel makes its results by at::empty. While a PresetOutputs lives, that allocation is answered on its thread with the memory of the
// first block of the same dtype and number of bytes that was not given away yet. A kernel may put such memory to another use, or allocate
// its result by other means: then the result is not where it belongs, and place() copies it there. A right answer never depends on the offer.
// The offer is seen through DeferredInit, a dispatch key that core gives to out-of-tree code and registers nothing for.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/util/SmallVector.h>

namespace openreg::engine {

class PresetOutputs {
 public:
  // `blocks`: dense CPU tensors over the results' memory; undefined where a result is not wanted. `scratch_first`: how many requests that
  // the first block would fit are not for it.
  PresetOutputs(c10::SmallVector<at::Tensor, 4> blocks, int scratch_first);
  ~PresetOutputs();
  PresetOutputs(const PresetOutputs&) = delete;
  PresetOutputs& operator=(const PresetOutputs&) = delete;

  // Memory for a tensor of these sizes and strides, or an undefined tensor. Only while this is the thread's current offer.
  at::Tensor take(at::IntArrayRef sizes, at::IntArrayRef strides, caffe2::TypeMeta dtype);
  // Brings result i into block i, for all i that have a block. Returns whether something had to be copied.
  bool place(at::ArrayRef<at::Tensor> results);

 private:
  bool in_some_block(const at::Tensor& tensor) const;

  c10::SmallVector<at::Tensor, 4> blocks_;
  c10::SmallVector<bool, 4> taken_;
  int scratch_first_;
  PresetOutputs* outer_;
  c10::impl::IncludeDispatchKeyGuard key_;
};

}  // namespace openreg::engine
