// Storages between processes.
#include <torch/csrc/DynamicTypes.h>
#include <torch/csrc/Exceptions.h>

#include "python/module.h"
#include "runtime/ipc.h"

namespace py = pybind11;

namespace openreg::python {

namespace {

py::bytes share(py::handle object) {
  const c10::Storage storage = torch::createStorage(object.ptr());
  std::string name;
  {
    py::gil_scoped_release released;
    name = share_storage(storage);
  }
  return name;
}

py::object open(const std::string& name) {
  c10::Storage storage;
  {
    py::gil_scoped_release released;
    storage = open_storage(name);
  }
  return py::reinterpret_steal<py::object>(torch::createPyObject(storage));
}

}  // namespace

void bind_ipc(py::module_& m) {
  m.def("share_storage", torch::wrap_pybind_function(share));
  m.def("open_storage", torch::wrap_pybind_function(open));
  m.def("collect_shared_memory", torch::wrap_pybind_function_no_gil([]() { collect_shared_memory(); }));
}

}  // namespace openreg::python
