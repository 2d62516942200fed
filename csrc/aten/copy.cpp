// Copies: which way a pair of tensors takes.
#include "aten/copy.h"

#include <ATen/ExpandUtils.h>
#include <ATen/MemoryOverlap.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/Scalar.h>
#include <torch/library.h>

#include <atomic>
#include <cstring>
#include <memory>

#include "aten/cast.h"
#include "aten/engine/engine.h"
#include "aten/host_access.h"
#include "aten/op_stats.h"
#include "aten/operands.h"
#include "aten/tensor.h"
#include "runtime/driver.h"
#include "runtime/error.h"
#include "runtime/event.h"
#include "runtime/faults.h"
#include "runtime/host_allocator.h"
#include "runtime/launch.h"
#include "runtime/stream.h"
#include "runtime/sync_debug.h"

namespace openreg {

namespace {

constexpr size_t kInlineBytes = 16384;  // host data up to this size travels inside the launch: no wait, no second buffer

op_stats::Counter& copy_counter() {
  static auto& counter = op_stats::counter("aten::copy_");
  return counter;
}

bool same_bits(const at::Tensor& a, const at::Tensor& b) { return a.is_conj() == b.is_conj() && a.is_neg() == b.is_neg(); }

// Whether copying bytes is copying values: equal dtype, bits, and layout without gaps.
bool raw_copyable(const at::Tensor& dst, const at::Tensor& src) {
  return dst.dtype() == src.dtype() && same_bits(dst, src) && dst.sizes() == src.sizes() && dst.strides() == src.strides() &&
         dst.is_non_overlapping_and_dense();
}

// Whether both are the same elements in the same order, so that nothing is left to copy.
bool is_same_data(const at::Tensor& a, const at::Tensor& b) {
  return a.has_storage() && b.has_storage() && a.is_alias_of(b) && a.storage_offset() == b.storage_offset() && a.dtype() == b.dtype() && same_bits(a, b) &&
         a.sizes() == b.sizes() && a.strides() == b.strides();
}

void note_copy(const at::Tensor& dst, const at::Tensor& src) {
  note_tensor(dst, Touch::writes);
  note_tensor(src, Touch::reads);
}

struct InlineCopy {
  void* destination;  // kernel view
  uint64_t bytes;
};

openreg_status run_inline_copy(void* args, openreg_error*) {
  const auto* copy = static_cast<InlineCopy*>(args);
  std::memcpy(copy->destination, copy + 1, copy->bytes);
  return OPENREG_OK;
}

// Small pageable host data: a snapshot in the stream's queue.
void copy_inline(c10::Stream stream, void* dst, const void* src, size_t bytes) {
  alignas(16) char buffer[sizeof(InlineCopy) + kInlineBytes];
  auto* copy = new (buffer) InlineCopy{kernel_ptr(static_cast<char*>(dst), stream.device_index()), bytes};
  std::memcpy(copy + 1, src, bytes);
  launch_host_func(stream, "openreg::copy_from_host", run_inline_copy, buffer, sizeof(InlineCopy) + bytes);
}

// The host side of a waited copy. The task shares it, because Ctrl-C may end the wait while the copy is still queued.
struct HostSide {
  c10::intrusive_ptr<c10::StorageImpl> storage;  // kept alive; null for a scalar
  alignas(16) char scalar[16];
  std::atomic<bool> ran{false};  // false after the wait: the stream skipped the copy
};

std::shared_ptr<HostSide> hold(const at::Tensor& host) {
  auto side = std::make_shared<HostSide>();
  side->storage = c10::intrusive_ptr<c10::StorageImpl>::reclaim_copy(host.storage().unsafeGetStorageImpl());
  return side;
}

openreg_status mark_ran(void* args, openreg_error*) {
  (**static_cast<std::shared_ptr<HostSide>**>(args))->ran = true;
  return OPENREG_OK;
}

void release_host_side(void* args) { delete *static_cast<std::shared_ptr<HostSide>**>(args); }

// Waits for a copy that was just enqueued with `side`; throws when the stream skipped it.
void finish_host_copy(c10::Stream stream, const char* name, const std::shared_ptr<HostSide>& side) {
  auto* held = new std::shared_ptr<HostSide>(side);  // leaked when the launch throws: the copy may be queued all the same
  launch_host_func(stream, name, mark_ran, &held, sizeof(held), release_host_side);
  synchronize_stream(stream);
  if (!side->ran) throw_skipped(name);
}

void raw_to_device(const at::Tensor& dst, const at::Tensor& src, bool non_blocking) {
  const c10::Stream stream = current_stream(dst.device().index());
  const size_t bytes = dst.nbytes();
  const void* source = src.const_data_ptr();
  const bool pinned = is_pinned(source);
  // A fault plan is to meet every copy.
  if (!pinned && bytes <= kInlineBytes && has_kernel_view(dst.device().index()) && !faults_hold()) {
    note_tensor(dst, Touch::writes);
    return copy_inline(stream, dst.mutable_data_ptr(), source, bytes);
  }
  if (!non_blocking) before_host_wait("openreg::copy_from_host");
  note_copy(dst, src);
  launch_copy(stream, "openreg::copy_from_host", dst.mutable_data_ptr(), dst.device(), source, src.device(), bytes);
  if (pinned) watch_host_operators();
  if (non_blocking && pinned && record_pinned(src.storage().data_ptr(), stream)) return;
  finish_host_copy(stream, "openreg::copy_from_host", hold(src));
  op_stats::count(copy_counter().waited);
}

void raw_to_host(const at::Tensor& dst, const at::Tensor& src, bool non_blocking) {
  const c10::Stream stream = current_stream(src.device().index());
  void* destination = dst.mutable_data_ptr();
  if (!non_blocking) before_host_wait("openreg::copy_to_host");
  note_copy(dst, src);
  launch_copy(stream, "openreg::copy_to_host", destination, dst.device(), src.const_data_ptr(), src.device(), dst.nbytes());
  if (is_pinned(destination)) watch_host_operators();
  if (non_blocking && is_pinned(destination) && record_pinned(dst.storage().data_ptr(), stream)) return;
  finish_host_copy(stream, "openreg::copy_to_host", hold(dst));
  op_stats::count(copy_counter().waited);
}

// The copy runs on the source's current stream; the destination's current stream is ordered before and after it.
void raw_between_devices(const at::Tensor& dst, const at::Tensor& src) {
  const c10::Stream source_stream = current_stream(src.device().index());
  const c10::Stream destination_stream = current_stream(dst.device().index());
  Event ready(false);
  ready.record(destination_stream);
  ready.block(source_stream);
  note_copy(dst, src);
  launch_copy(source_stream, "openreg::copy_between_devices", dst.mutable_data_ptr(), dst.device(), src.const_data_ptr(), src.device(),
              dst.nbytes());
  Event done(false);
  done.record(source_stream);
  done.block(destination_stream);
}

// A stand-in for `tensor` that raw copies can fill or read: dense, in the order of its dimensions.
at::Tensor dense_like(const at::Tensor& tensor, c10::Device device) {
  return at::empty(tensor.sizes(), tensor.options().device(device).memory_format(c10::MemoryFormat::Contiguous));
}

// Whether the CPU negates numbers of the type, as a copy between a tensor with a negative bit and one without it does.
bool has_negation(c10::ScalarType type) { return type != at::kBool && !c10::isBarebonesUnsignedType(type) && !c10::isFloat8Type(type); }

// A cast kernel, or one CPU copy kernel on the stream: conversion, strides, conj and neg bits. The CPU has none that conjugates and
// negates complex32 at once.
void convert_on_device(const at::Tensor& dst, const at::Tensor& src) {
  TORCH_CHECK_NOT_IMPLEMENTED(dst.is_neg() == src.is_neg() || has_negation(dst.scalar_type()), "\"neg_cpu\" not implemented for '",
                              c10::toString(dst.scalar_type()), "'");
  const bool both = src.is_conj() && src.is_neg() && !dst.is_conj() && !dst.is_neg();
  if (both && src.scalar_type() == at::kComplexHalf && dst.scalar_type() == at::kComplexHalf) {
    const at::Tensor conjugated = dense_like(src, src.device());
    convert_on_device(conjugated, src._neg_view());
    return convert_on_device(dst, conjugated._neg_view());
  }
  if (cast_on_device(dst, src)) return op_stats::count(copy_counter().native);
  static const auto op = engine::find_op("aten::copy_", "");
  engine::launch(op, {dst, src, false});
}

void raw_copy(const at::Tensor& dst, const at::Tensor& src, bool non_blocking) {
  op_stats::count(copy_counter().native);
  if (src.is_cpu()) return raw_to_device(dst, src, non_blocking);
  if (dst.is_cpu()) return raw_to_host(dst, src, non_blocking);
  if (dst.device() != src.device()) return raw_between_devices(dst, src);
  note_copy(dst, src);
  launch_copy(current_stream(dst.device().index()), "aten::copy_", dst.mutable_data_ptr(), dst.device(), src.const_data_ptr(), src.device(),
              dst.nbytes());
}

at::Tensor& copy_(at::Tensor& self, const at::Tensor& src, bool non_blocking) {
  if (self.is_same(src)) return self;
  TORCH_CHECK(!self._is_zerotensor(),
              "ZeroTensors are immutable. Please materialize the tensor using `.clone()`, if you want a mutable zero tensor.");
  if (src._is_zerotensor()) return self.zero_();
  copy_tensor(self, src, non_blocking);
  return self;
}

at::Tensor copy_from(const at::Tensor& self, const at::Tensor& dst, bool non_blocking) {
  at::Tensor target = dst;
  copy_(target, self, non_blocking);
  return dst;
}

at::Tensor copy_from_and_resize(const at::Tensor& self, const at::Tensor& dst) {
  dst.resize_(self.sizes());
  return copy_from(self, dst, false);
}

c10::Scalar local_scalar_dense(const at::Tensor& self) {
  static auto& counter = op_stats::counter("aten::_local_scalar_dense");
  check_memory(self);
  before_host_wait("aten::_local_scalar_dense");
  const auto side = std::make_shared<HostSide>();
  char* value = side->scalar;
  TORCH_INTERNAL_ASSERT(self.itemsize() <= sizeof(side->scalar));
  const c10::Stream stream = current_stream(self.device().index());
  note_tensor(self, Touch::reads);
  launch_copy(stream, "aten::_local_scalar_dense", value, c10::Device(c10::DeviceType::CPU), self.const_data_ptr(), self.device(), self.itemsize());
  finish_host_copy(stream, "aten::_local_scalar_dense", side);
  op_stats::count(counter.native);
  op_stats::count(counter.waited);
  at::Tensor host = at::from_blob(value, {}, self.options().device(at::kCPU));
  if (self.is_conj()) host._set_conj(true);
  if (self.is_neg()) host._set_neg(true);
  return host.item();
}

}  // namespace

void copy_tensor(const at::Tensor& dst, const at::Tensor& unexpanded, bool non_blocking) {
  if (dst.device() == unexpanded.device() && is_same_data(dst, unexpanded)) return;
  at::assert_no_internal_overlap(dst);
  if (dst.device() == unexpanded.device()) at::assert_no_partial_overlap(dst, unexpanded);
  const auto shape = at::infer_size(dst.sizes(), unexpanded.sizes());
  TORCH_CHECK(dst.sizes() == at::IntArrayRef(shape), "output with shape ", dst.sizes(), " doesn't match the broadcast shape ", at::IntArrayRef(shape));
  if (unexpanded.is_complex() && !dst.is_complex() && dst.scalar_type() != at::kBool) {
    TORCH_WARN_ONCE("Casting complex values to real discards the imaginary part");
  }
  if (dst.numel() == 0) return;
  for (const at::Tensor* tensor : {&dst, &unexpanded}) {
    if (is_device_tensor(*tensor)) check_memory(*tensor);
  }
  const at::Tensor src = unexpanded.sizes() == dst.sizes() ? unexpanded : unexpanded.expand(dst.sizes());
  if (raw_copyable(dst, src)) {
    return raw_copy(dst, src, non_blocking);
  }
  if (dst.device() == src.device()) return convert_on_device(dst, src);

  // The side with dense memory of the other side's dtype takes part in a raw copy; conversion happens before it or after it.
  const at::Tensor there = dense_like(dst, src.device());
  if (dst.is_contiguous() && !dst.is_conj() && !dst.is_neg()) {
    there.copy_(src);
    return raw_copy(dst, there, non_blocking && dst.is_cpu() && is_pinned(dst.const_data_ptr()));
  }
  const at::Tensor dense = src.is_contiguous() && !src.is_conj() && !src.is_neg() ? src : src.resolve_conj().resolve_neg().contiguous();
  const at::Tensor here = at::empty(dense.sizes(), dense.options().device(dst.device()));
  raw_copy(here, dense, false);
  dst.copy_(here);
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("copy_", copy_);
  m.impl("_copy_from", copy_from);
  m.impl("_copy_from_and_resize", copy_from_and_resize);
  m.impl("_local_scalar_dense", local_scalar_dense);
}

// The copies above honour these bits themselves; core's fallback would clone, which copies, and so on for ever.
// The fallthrough holds for every backend with a _copy_from, because these keys know no device.
TORCH_LIBRARY_IMPL(aten, Conjugate, m) {
  m.impl("_copy_from", torch::CppFunction::makeFallthrough());
  m.impl("_copy_from_and_resize", torch::CppFunction::makeFallthrough());
}
TORCH_LIBRARY_IMPL(aten, Negative, m) {
  m.impl("_copy_from", torch::CppFunction::makeFallthrough());
  m.impl("_copy_from_and_resize", torch::CppFunction::makeFallthrough());
}

}  // namespace openreg
