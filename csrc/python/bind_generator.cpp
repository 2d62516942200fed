// Generators.
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/Generator.h>

#include "python/module.h"
#include "runtime/generator.h"

namespace py = pybind11;

namespace openreg::python {

void bind_generator(py::module_& m) {
  m.def("default_generator", torch::wrap_pybind_function([](int device) {
          PyObject* wrapped = THPGenerator_Wrap(default_generator(device_index(device)));
          if (wrapped == nullptr) throw python_error();
          return py::reinterpret_steal<py::object>(wrapped);
        }));
}

}  // namespace openreg::python
