// Operators for test_wrap_memory.py, built outside the tree: a tensor over a pointer that the caller owns, by the package's function and by torch's,
// and a block by address.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <runtime/device_allocator.h>
#include <runtime/storage.h>
#include <torch/library.h>

#include <atomic>

namespace {

std::atomic<int64_t> releases{0};

at::Tensor wrap(int64_t pointer, int64_t count, const at::Tensor& like) {
  auto release = [](void* context) { static_cast<std::atomic<int64_t>*>(context)->fetch_add(1); };
  c10::Storage storage = openreg::wrap_device_memory(reinterpret_cast<void*>(pointer), static_cast<size_t>(count) * 4, release, &releases);
  return at::empty({0}, like.options()).set_(storage, 0, {count}, {1});
}

at::Tensor blob(int64_t pointer, int64_t count, const at::Tensor& like) {
  return at::from_blob(reinterpret_cast<void*>(pointer), {count}, [](void*) { releases.fetch_add(1); }, like.options());
}

int64_t allocate(int64_t stream, c10::Device device, int64_t bytes) {
  return reinterpret_cast<int64_t>(openreg::allocate_device_block(c10::Stream(c10::Stream::UNSAFE, device, stream), static_cast<size_t>(bytes)));
}

int64_t released() { return releases.load(); }

}  // namespace

TORCH_LIBRARY(wrap_memory, m) {
  m.def("wrap(int pointer, int count, Tensor like) -> Tensor", wrap);
  m.def("blob(int pointer, int count, Tensor like) -> Tensor", blob);
  m.def("allocate(int stream, Device device, int bytes) -> int", allocate);
  m.def("released() -> int", released);
}
