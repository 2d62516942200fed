// Events: the time between two, which torch's own elapsed_time refuses for subclasses of torch.Event.
#include <torch/csrc/Event.h>
#include <torch/csrc/Exceptions.h>

#include "python/module.h"

namespace py = pybind11;

namespace openreg::python {

namespace {

THPEvent* as_event(py::handle object) {
  if (PyObject_IsInstance(object.ptr(), reinterpret_cast<PyObject*>(THPEventClass)) != 1) {
    throw py::type_error("elapsed_time needs two torch.Event objects.");
  }
  return reinterpret_cast<THPEvent*>(object.ptr());
}

}  // namespace

void bind_event(py::module_& m) {
  m.def("elapsed_time", torch::wrap_pybind_function(
                            [](py::handle start, py::handle end) { return as_event(start)->event.elapsedTime(as_event(end)->event); }));
}

}  // namespace openreg::python
