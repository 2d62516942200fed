// Trace buffers, with their events as tuples.
#include <torch/csrc/Exceptions.h>

#include <memory>

#include "profiler/ranges.h"
#include "python/module.h"
#include "runtime/launch.h"
#include "runtime/trace_buffer.h"

namespace py = pybind11;

namespace openreg::python {

void bind_trace(py::module_& m) {
  m.def("begin_ranges", torch::wrap_pybind_function_no_gil(begin_ranges));
  m.def("end_ranges", torch::wrap_pybind_function_no_gil(end_ranges));
  py::class_<TraceBuffer>(m, "TraceBuffer")
      .def(py::init<uint64_t>(), py::arg("max_events"))
      .def("start", torch::wrap_pybind_function_no_gil([](TraceBuffer& buffer) { buffer.start(); }))
      .def("stop", torch::wrap_pybind_function_no_gil([](TraceBuffer& buffer) { buffer.stop(); }))
      .def("dropped", [](const TraceBuffer& buffer) { return buffer.dropped(); })
      .def("events", torch::wrap_pybind_function([](const TraceBuffer& buffer) {
             std::vector<TraceEvent> events;
             {
               const py::gil_scoped_release released;
               events = buffer.events();
             }
             py::list result(events.size());
             for (size_t i = 0; i < events.size(); ++i) {
               const openreg_trace_record& record = events[i].record;
               result[i] = py::make_tuple(record.kind, record.operation != 0, record.name, record.device, record.stream_id, record.correlation,
                                          record.cause, record.begin_ns, record.end_ns, record.bytes, reinterpret_cast<uintptr_t>(record.address),
                                          record.dst_device, record.src_device, record.status, events[i].thread, launch_site(record.tag));
             }
             return result;
           }));
}

}  // namespace openreg::python
