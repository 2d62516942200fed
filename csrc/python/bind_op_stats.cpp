// Operator counters.
#include <torch/csrc/Exceptions.h>

#include "aten/op_stats.h"
#include "python/module.h"

namespace py = pybind11;

namespace openreg::python {

void bind_op_stats(py::module_& m) {
  m.def("op_stats", torch::wrap_pybind_function([]() {
          py::dict result;
          op_stats::for_each([&](const char* name, const op_stats::Counter& counter) {
            py::dict entry;
            entry["native"] = counter.native.load();
            entry["engine"] = counter.engine.load();
            entry["staged"] = counter.staged.load();
            entry["copied"] = counter.copied.load();
            entry["waited"] = counter.waited.load();
            result[name] = entry;
          });
          return result;
        }));
  m.def("reset_op_stats", []() { op_stats::reset(); });
}

}  // namespace openreg::python
