// Results of waited calls: from CPU tensors to device tensors.
#pragma once

#include <ATen/core/QuantizerBase.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/stack.h>

#include "aten/engine/op_record.h"
#include "aten/engine/task.h"

namespace openreg::engine {

// A device tensor with the value and metadata of a CPU kernel's result. A result that shares the storage of an argument becomes a view of
// that argument, also one that shares the storage of a sparse argument's indices or values. `copied` is set when data was copied into a new block (in stream order; the CPU memory lives until then).
class ResultAdopter {
 public:
  // `staging`: as for the Encoder.
  ResultAdopter(c10::DeviceIndex device, at::ArrayRef<c10::IValue> originals, const WaitedCall& call, Staging* staging)
      : device_(device), originals_(originals), call_(call), staging_(staging) {}
  c10::IValue adopt(const c10::IValue& result);
  at::Tensor adopt_tensor(const at::Tensor& result);
  // The quantizer of a quantized result, with scales and zero points on the device.
  at::QuantizerPtr adopt_quantizer(const at::Tensor& result);
  bool copied() const { return copied_; }
  bool aliased() const { return aliased_; }

 private:
  at::Tensor adopt_strided(const at::Tensor& result);
  at::Tensor adopt_quantized(const at::Tensor& result);
  at::Tensor adopt_nested(const at::Tensor& result);
  at::Tensor find_alias(const at::Tensor& result) const;

  c10::DeviceIndex device_;
  at::ArrayRef<c10::IValue> originals_;
  const WaitedCall& call_;
  Staging* staging_;
  bool copied_ = false, aliased_ = false;
};

// Gives a written argument the size, strides and data that the kernel left in its CPU twin. `staging` as for the Encoder. Returns whether
// anything had changed.
bool write_back(const at::Tensor& original, const at::Tensor& twin, c10::DeviceIndex device, Staging* staging, ResultAdopter& adopter);

}  // namespace openreg::engine
