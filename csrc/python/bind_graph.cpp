// Graphs.
#include <torch/csrc/Exceptions.h>

#include <memory>
#include <optional>

#include "python/module.h"
#include "runtime/capture.h"
#include "runtime/device.h"
#include "runtime/graph.h"
#include "runtime/stream.h"

namespace py = pybind11;

namespace openreg::python {

void bind_graph(py::module_& m) {
  using torch::wrap_pybind_function;
  using torch::wrap_pybind_function_no_gil;
  py::class_<Graph, std::shared_ptr<Graph>>(m, "Graph")
      .def(py::init([](bool keep_graph) { return std::make_shared<Graph>(at::GraphImplArgs{keep_graph}); }))
      .def("capture_begin", wrap_pybind_function_no_gil([](Graph& self, std::optional<c10::MempoolId_t> pool, int mode) {
             self.capture_begin(pool.value_or(c10::MempoolId_t{0, 0}), static_cast<at::GraphCaptureMode>(mode));
           }))
      .def("capture_end", wrap_pybind_function_no_gil(&Graph::capture_end))
      .def("instantiate", wrap_pybind_function_no_gil(&Graph::instantiate))
      .def("replay", wrap_pybind_function_no_gil(&Graph::replay))
      .def("reset", wrap_pybind_function_no_gil(&Graph::reset))
      .def("pool", wrap_pybind_function(&Graph::pool))
      .def("enable_debug_mode", &Graph::enable_debug_mode)
      .def("debug_dump", wrap_pybind_function_no_gil(&Graph::debug_dump))
      .def("update", wrap_pybind_function_no_gil(&Graph::update))
      .def("register_generator", wrap_pybind_function([](Graph& self, const at::Generator& generator) { self.register_generator(generator); }));
  m.def("is_current_stream_capturing",
        wrap_pybind_function([]() { return captures_underway() && capture_of(current_stream(current_device())) != 0; }));
}

}  // namespace openreg::python
