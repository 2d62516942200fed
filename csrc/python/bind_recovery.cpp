// Lost devices.
#include <torch/csrc/Exceptions.h>

#include "python/module.h"
#include "runtime/recovery.h"

namespace py = pybind11;

namespace openreg::python {

void bind_recovery(py::module_& m) {
  using torch::wrap_pybind_function_no_gil;
  m.def("abandon_device", wrap_pybind_function_no_gil([](int device, const std::string& reason) { abandon_device(device_index(device), reason); }));
  m.def("try_reset_device", wrap_pybind_function_no_gil([](int device) { return try_reset_device(device_index(device)); }));
  m.def("loss_reason", wrap_pybind_function_no_gil([](int device) { return loss_reason(device_index(device)); }));
}

}  // namespace openreg::python
