// Fault plans, and their reports as dictionaries.
#include <torch/csrc/Exceptions.h>

#include "python/module.h"
#include "runtime/faults.h"

namespace py = pybind11;

namespace openreg::python {

namespace {

py::dict report(uint64_t plan) {
  const FaultReport read = fault_report_of(plan);
  py::list fired;
  for (const auto& fault : read.fired) {
    py::dict entry;
    entry["rule"] = fault.rule;
    entry["call"] = fault.call;
    entry["device"] = fault.device;
    entry["number"] = fault.number;
    fired.append(entry);
  }
  py::dict result;
  result["fired"] = fired;
  result["waiting"] = read.waiting;
  result["count"] = read.count;
  return result;
}

}  // namespace

void bind_faults(py::module_& m) {
  using torch::wrap_pybind_function;
  using torch::wrap_pybind_function_no_gil;
  m.def("begin_faults", wrap_pybind_function_no_gil([](const std::string& source, const std::string& plan) { return begin_faults(source, plan); }));
  m.def("end_faults", wrap_pybind_function_no_gil([](uint64_t plan) { end_faults(plan); }));
  m.def("fault_report", wrap_pybind_function(report));
}

}  // namespace openreg::python
