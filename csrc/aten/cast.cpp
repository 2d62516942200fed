// Choosing the conversion kernel.
#include "aten/cast.h"

#include "aten/kernels/copy.h"
#include "aten/native_op.h"
#include "runtime/stream.h"

namespace openreg {

bool cast_on_device(const at::Tensor& dst, const at::Tensor& src) {
  static KernelSlot slots[kernels::kDTypes][kernels::kDTypes];
  kernels::DType to, from;
  if (!is_plain(dst) || !is_plain(src) || dst.device() != src.device() || dst.sizes() != src.sizes() || !dst.is_contiguous() ||
      !src.is_contiguous() || !kernel_dtype(dst.scalar_type(), &to) || !kernel_dtype(src.scalar_type(), &from) ||
      !is_small(dst.numel())) {
    return false;
  }
  const bool in_place = dst.const_data_ptr() == src.const_data_ptr() && dst.element_size() == src.element_size();
  if (!in_place && share_bytes(dst, src)) return false;
  KernelSlot& slot = slots[int(to)][int(from)];
  Kernel* kernel = slot.get();
  if (kernel == nullptr) {
    kernel = slot.make(std::string("copy_") + dtype_name(to) + "_" + dtype_name(from), kernels::copy_kernel(to, from));
  }
  const auto count = static_cast<uint64_t>(dst.numel());
  if (count == 0) return true;
  const kernels::CopyArgs args{kernel_output(dst), kernel_input(src), count};
  kernel->launch(current_stream(dst.device().index()), "aten::copy_", count, args);
  return true;
}

}  // namespace openreg
