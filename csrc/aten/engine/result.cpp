// Adopting results of waited calls.
#include "aten/engine/result.h"

#include <ATen/DeviceGuard.h>
#include <ATen/EmptyTensor.h>
#include <ATen/SparseCsrTensorUtils.h>
#include <ATen/native/SparseTensorUtils.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/_efficientzerotensor.h>
#include <ATen/ops/_sparse_compressed_tensor_unsafe.h>
#include <ATen/ops/_sparse_coo_tensor_unsafe.h>

#include <ATen/quantized/Quantizer.h>

#include <algorithm>
#include <cstring>

#include "aten/tensor.h"
#include "runtime/driver.h"
#include "runtime/launch.h"
#include "runtime/operands.h"
#include "runtime/storage.h"
#include "runtime/stream.h"

namespace openreg::engine {

namespace {

// A copy from CPU memory that the task owns.
struct AdoptTask {
  void* destination;  // kernel view; null when the copy is a task of its own
  const void* source;
  size_t bytes;
  c10::StorageImpl* owner;  // released into the task
};

openreg_status run_adopt(void* args, openreg_error*) {
  const auto& task = *static_cast<AdoptTask*>(args);
  if (task.destination != nullptr) std::memcpy(task.destination, task.source, task.bytes);
  return OPENREG_OK;
}

// The storage is CPU memory: freeing it on a worker re-enters no device allocator.
void release_adopted(void* args) {
  c10::intrusive_ptr<c10::StorageImpl>::reclaim(static_cast<AdoptTask*>(args)->owner);
}

void copy_owned(c10::DeviceIndex device, void* destination, const at::Tensor& source, size_t bytes) {
  if (bytes == 0) return;
  auto owner = c10::intrusive_ptr<c10::StorageImpl>::reclaim_copy(source.storage().unsafeGetStorageImpl());
  const bool mapped = has_kernel_view(device);
  if (!mapped) {
    const c10::Stream stream = current_stream(device);
    launch_copy(stream, "openreg::adopt_result", destination, stream.device(), source.const_data_ptr(), source.device(), bytes);
  }
  if (wants_ranges()) {
    forget_operands();
    note_operand(destination, at::kByte, static_cast<int64_t>(bytes), int64_t{1}, Touch::writes);
  }
  AdoptTask task = {mapped ? kernel_ptr(static_cast<char*>(destination), device) : nullptr, source.const_data_ptr(), bytes, owner.get()};
  launch_host_func(current_stream(device), "openreg::adopt_result", run_adopt, &task, sizeof(task), release_adopted);
  owner.release();
}

size_t span_bytes(const at::Tensor& tensor) {
  return at::detail::computeStorageNbytes(tensor.sizes(), tensor.strides(), tensor.dtype().itemsize());
}

std::vector<at::Tensor> tensors_of(at::ArrayRef<c10::IValue> values) {
  std::vector<at::Tensor> tensors;
  for (const auto& value : values) for_each_tensor(value, [&](const at::Tensor& tensor) { tensors.push_back(tensor); });
  return tensors;
}

// Where the CPU's kernel sees a device storage.
const void* lent_memory(const c10::Storage& storage, c10::DeviceIndex device, Staging* staging) {
  return staging ? staging->host_of(storage.unsafeGetStorageImpl()) : kernel_ptr(static_cast<const char*>(storage.data()), device);
}

}  // namespace

at::Tensor ResultAdopter::find_alias(const at::Tensor& result) const {
  const auto originals = tensors_of(originals_);
  const auto twins = tensors_of(call_.arguments);
  for (size_t i = 0; i < originals.size() && i < twins.size(); ++i) {
    if (is_device_tensor(originals[i]) && originals[i].has_storage() && twins[i].defined() && twins[i].has_storage() &&
        twins[i].storage().is_alias_of(result.storage())) {
      return originals[i];
    }
  }
  // A kernel may put other members into the sparse twin; those that it kept still lie in the memory that the call lent it.
  const void* data = result.storage().data();
  at::Tensor found;
  for (const auto& original : originals) {
    if (!is_device_tensor(original) || original.layout() == at::kStrided || data == nullptr) continue;
    for (const at::Tensor& member : members_of(original)) {
      if (lent_memory(member.storage(), device_, staging_) == data) found = member;
    }
  }
  return found;
}

at::Tensor ResultAdopter::adopt_strided(const at::Tensor& result) {
  if (result._is_zerotensor()) {
    return at::_efficientzerotensor(result.sizes(), result.options().device(c10::Device(kDeviceType, device_)));
  }
  at::Tensor adopted;
  if (const at::Tensor base = find_alias(result); base.defined()) {
    aliased_ = true;
    adopted = make_alias(base, result.sizes(), result.strides(), result.storage_offset(), result.dtype());
  } else {
    const size_t bytes = std::min(span_bytes(result), result.storage().nbytes());  // elements smaller than a byte
    adopted = make_strided(device_, result.sizes(), result.strides(), result.dtype(), bytes);
    copy_owned(device_, adopted.mutable_data_ptr(), result, bytes);
    copied_ = true;
  }
  if (result.is_conj()) adopted._set_conj(true);
  if (result.is_neg()) adopted._set_neg(true);
  return adopted;
}

at::Tensor ResultAdopter::adopt_tensor(const at::Tensor& result) {
  if (!result.defined()) return result;
  if (result.is_nested()) return adopt_nested(result);
  if (result.is_quantized()) return adopt_quantized(result);
  const c10::Device device(kDeviceType, device_);
  const auto options = result.options().device(device);
  // Core's sparse constructors take the current device for granted.
  const c10::OptionalDeviceGuard guard(result.layout() == at::kStrided ? std::nullopt : std::optional<c10::Device>(device));
  switch (result.layout()) {
    case at::kStrided: return adopt_strided(result);
    case at::kSparse:
      return at::_sparse_coo_tensor_unsafe(adopt_strided(result._indices()), adopt_strided(result._values()), result.sizes(), options,
                                           result.is_coalesced());
    case at::kSparseCsr:
    case at::kSparseBsr:
      return at::_sparse_compressed_tensor_unsafe(adopt_strided(result.crow_indices()), adopt_strided(result.col_indices()),
                                                  adopt_strided(result.values()), result.sizes(), options);
    case at::kSparseCsc:
    case at::kSparseBsc:
      return at::_sparse_compressed_tensor_unsafe(adopt_strided(result.ccol_indices()), adopt_strided(result.row_indices()),
                                                  adopt_strided(result.values()), result.sizes(), options);
    default: TORCH_CHECK_NOT_IMPLEMENTED(false, "openreg cannot hold a result with layout ", result.layout(), ".");
  }
}

c10::IValue ResultAdopter::adopt(const c10::IValue& result) {
  if (result.isTensor()) return adopt_tensor(result.toTensor());
  if (result.isTensorList()) {
    c10::List<at::Tensor> adopted;
    for (const at::Tensor& tensor : result.toTensorVector()) adopted.push_back(adopt_tensor(tensor));
    return adopted;
  }
  return result;
}

bool write_back(const at::Tensor& original, const at::Tensor& twin, c10::DeviceIndex device, Staging* staging, ResultAdopter& adopter) {
  if (!is_device_tensor(original)) return false;
  if (original.layout() == at::kSparse) {
    auto* sparse = at::sparse::get_sparse_impl(original);
    sparse->raw_resize_(twin.sparse_dim(), twin.dense_dim(), twin.sizes());
    sparse->set_indices_and_values_unsafe(adopter.adopt_tensor(twin._indices()), adopter.adopt_tensor(twin._values()));
    sparse->set_coalesced(twin.is_coalesced());
    return true;
  }
  if (original.layout() != at::kStrided) {
    const bool rows = original.layout() == at::kSparseCsr || original.layout() == at::kSparseBsr;
    at::sparse_csr::get_sparse_csr_impl(original)->set_member_tensors(adopter.adopt_tensor(rows ? twin.crow_indices() : twin.ccol_indices()),
                                                                      adopter.adopt_tensor(rows ? twin.col_indices() : twin.row_indices()),
                                                                      adopter.adopt_tensor(twin.values()), twin.sizes());
    return true;
  }
  if (original.is_nested()) return false;  // its sizes never change
  if (original.is_quantized()) at::set_quantizer_(original, adopter.adopt_quantizer(twin));
  c10::TensorImpl* impl = original.unsafeGetTensorImpl();
  const c10::Storage& storage = original.storage();
  // A kernel that grew the twin moved it into CPU memory of its own.
  const bool moved = twin.storage().data() != lent_memory(storage, device, staging);
  const bool reshaped = twin.sizes() != original.sizes() || twin.strides() != original.strides() ||
                        twin.storage_offset() != original.storage_offset();
  if (moved) {
    const size_t bytes = twin.storage().nbytes();
    if (storage.nbytes() < bytes) resize_storage(storage.unsafeGetStorageImpl(), bytes);
    copy_owned(device, static_cast<char*>(storage.mutable_data()) + twin.storage_offset() * twin.dtype().itemsize(), twin, span_bytes(twin));
  }
  if (reshaped) impl->set_sizes_and_strides(twin.sizes(), twin.strides(), twin.storage_offset());
  return moved || reshaped;
}

}  // namespace openreg::engine
