// tensor_split by a tensor of indices: core reads the indices on the host and refuses device ones; here they are fetched first.
#include <ATen/ops/tensor_split_native.h>
#include <torch/library.h>

#include <vector>

namespace openreg {

namespace {

std::vector<at::Tensor> tensor_split(const at::Tensor& self, const at::Tensor& indices_or_sections, int64_t dim) {
  return at::native::tensor_split(self, indices_or_sections.cpu(), dim);
}

}  // namespace

// At the autograd key too: the function is made of differentiable views.
TORCH_LIBRARY_IMPL(aten, AutogradPrivateUse1, m) { m.impl("tensor_split.tensor_indices_or_sections", tensor_split); }
TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) { m.impl("tensor_split.tensor_indices_or_sections", tensor_split); }

}  // namespace openreg
