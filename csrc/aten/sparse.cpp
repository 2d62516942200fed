// Sparse tensors: construction, components and metadata come from core's device-generic functions over device tensors; every
// other operator reaches the engine's fallback.
#include <ATen/NativeFunctions.h>
#include <torch/library.h>

namespace openreg {

namespace native = at::native;

TORCH_LIBRARY_IMPL(aten, SparsePrivateUse1, m) {
  m.impl("empty.memory_format", native::empty_sparse_symint);
  m.impl("_sparse_coo_tensor_with_dims", native::new_with_dims_sparse);
  m.impl("_sparse_coo_tensor_with_dims_and_tensors", native::new_with_dims_and_tensor_sparse_symint);
  m.impl("_indices", native::_indices_sparse);
  m.impl("_values", native::_values_sparse);
  m.impl("indices", native::indices_sparse);
  m.impl("values", native::values_sparse);
  m.impl("_nnz", native::_nnz_sparse);
  m.impl("_coalesced_", native::_coalesced_sparse_);
  m.impl("is_coalesced", native::is_coalesced_sparse);
  m.impl("sparse_dim", native::sparse_dim_sparse);
  m.impl("dense_dim", native::dense_dim_sparse);
  m.impl("_dimI", native::sparse_dim_sparse);
  m.impl("_dimV", native::dense_dim_sparse);
  m.impl("copy_", native::copy_sparse_wrapper_);
  m.impl("copy_sparse_to_sparse_", native::copy_sparse_);
  m.impl("sparse_resize_", native::sparse_resize_);
  m.impl("sparse_resize_and_clear_", native::sparse_resize_and_clear_);
  m.impl("resize_as_sparse_", native::resize_as_sparse_);
  m.impl("clone", native::clone_sparse);
  m.impl("zero_", native::zero_sparse_);
}

TORCH_LIBRARY_IMPL(aten, SparseCsrPrivateUse1, m) {
  m.impl("empty.memory_format", native::empty_sparse_compressed_symint);
  m.impl("_sparse_compressed_tensor_with_dims", native::sparse_compressed_tensor_with_dims);
  m.impl("crow_indices", native::crow_indices_sparse_csr);
  m.impl("col_indices", native::col_indices_sparse_csr);
  m.impl("ccol_indices", native::ccol_indices_sparse_csr);
  m.impl("row_indices", native::row_indices_sparse_csr);
  m.impl("values", native::values_sparse_csr);
  m.impl("_nnz", native::_nnz_sparse_csr);
  m.impl("sparse_dim", native::sparse_dim_sparse_csr);
  m.impl("dense_dim", native::dense_dim_sparse_csr);
  m.impl("copy_", native::copy_sparse_compressed_);
  m.impl("clone", native::clone_sparse_compressed);
  m.impl("zero_", native::zero_sparse_csr_);
}

}  // namespace openreg
