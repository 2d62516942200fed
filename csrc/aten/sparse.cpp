// Sparse tensors: construction, components and metadata come from core's device-generic functions over device tensors; every
// other operator reaches the engine's fallback.
#include <ATen/NativeFunctions.h>
#include <ATen/native/DispatchStub.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "aten/guarded.h"

namespace at::native {
// Core declares it in a header that it does not install.
using flatten_indices_fn = Tensor (*)(const Tensor& indices, IntArrayRef size);
DECLARE_DISPATCH(flatten_indices_fn, flatten_indices_stub)
}  // namespace at::native

namespace openreg {

namespace native = at::native;

namespace {

// Indices of the dimensions as indices into a flat tensor: what core compares to see whether they are coalesced.
at::Tensor flatten_indices(const at::Tensor& indices, at::IntArrayRef sizes) {
  at::Tensor flat = at::zeros({indices.size(1)}, indices.options().dtype(at::kLong));
  for (int64_t dim = 0; dim < indices.size(0); ++dim) flat.mul_(sizes[dim]).add_(indices[dim]);
  return flat;
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, SparsePrivateUse1, m) {
  m.impl("empty.memory_format", Guarded<native::empty_sparse_symint>::call);
  m.impl("empty_like", Guarded<native::empty_like_sparse_coo>::call);
  m.impl("_sparse_coo_tensor_with_dims", Guarded<native::new_with_dims_sparse>::call);
  m.impl("_sparse_coo_tensor_with_dims_and_tensors", Guarded<native::new_with_dims_and_tensor_sparse_symint>::call);
  m.impl("_indices", Guarded<native::_indices_sparse>::call);
  m.impl("_values", Guarded<native::_values_sparse>::call);
  m.impl("indices", Guarded<native::indices_sparse>::call);
  m.impl("values", Guarded<native::values_sparse>::call);
  m.impl("_nnz", Guarded<native::_nnz_sparse>::call);
  m.impl("_coalesced_", Guarded<native::_coalesced_sparse_>::call);
  m.impl("is_coalesced", Guarded<native::is_coalesced_sparse>::call);
  m.impl("sparse_dim", Guarded<native::sparse_dim_sparse>::call);
  m.impl("dense_dim", Guarded<native::dense_dim_sparse>::call);
  m.impl("_dimI", Guarded<native::sparse_dim_sparse>::call);
  m.impl("_dimV", Guarded<native::dense_dim_sparse>::call);
  m.impl("copy_", Guarded<native::copy_sparse_wrapper_>::call);
  m.impl("copy_sparse_to_sparse_", Guarded<native::copy_sparse_>::call);
  m.impl("sparse_resize_", Guarded<native::sparse_resize_>::call);
  m.impl("sparse_resize_and_clear_", Guarded<native::sparse_resize_and_clear_>::call);
  m.impl("resize_as_sparse_", Guarded<native::resize_as_sparse_>::call);
  m.impl("clone", Guarded<native::clone_sparse>::call);
  m.impl("zero_", Guarded<native::zero_sparse_>::call);
}

TORCH_LIBRARY_IMPL(aten, SparseCsrPrivateUse1, m) {
  m.impl("empty.memory_format", Guarded<native::empty_sparse_compressed_symint>::call);
  m.impl("empty_like", Guarded<native::empty_like_sparse_csr>::call);
  m.impl("_sparse_compressed_tensor_with_dims", Guarded<native::sparse_compressed_tensor_with_dims>::call);
  m.impl("crow_indices", Guarded<native::crow_indices_sparse_csr>::call);
  m.impl("col_indices", Guarded<native::col_indices_sparse_csr>::call);
  m.impl("ccol_indices", Guarded<native::ccol_indices_sparse_csr>::call);
  m.impl("row_indices", Guarded<native::row_indices_sparse_csr>::call);
  m.impl("values", Guarded<native::values_sparse_csr>::call);
  m.impl("_nnz", Guarded<native::_nnz_sparse_csr>::call);
  m.impl("sparse_dim", Guarded<native::sparse_dim_sparse_csr>::call);
  m.impl("dense_dim", Guarded<native::dense_dim_sparse_csr>::call);
  m.impl("copy_", Guarded<native::copy_sparse_compressed_>::call);
  m.impl("resize_as_sparse_", Guarded<native::resize_as_sparse_compressed_>::call);
  m.impl("clone", Guarded<native::clone_sparse_compressed>::call);
  m.impl("zero_", Guarded<native::zero_sparse_csr_>::call);
}

}  // namespace openreg

namespace at::native {
REGISTER_PRIVATEUSE1_DISPATCH(flatten_indices_stub, &openreg::flatten_indices)
}
