// Events: the time between two, which torch's own elapsed_time refuses for subclasses of torch.Event, and events between processes.
#include <torch/csrc/Event.h>
#include <torch/csrc/Exceptions.h>

#include "python/module.h"
#include "runtime/device.h"
#include "runtime/event.h"
#include "runtime/stream.h"

namespace py = pybind11;

namespace openreg::python {

namespace {

THPEvent* as_event(py::handle object) {
  if (PyObject_IsInstance(object.ptr(), reinterpret_cast<PyObject*>(THPEventClass)) != 1) {
    throw py::type_error("A torch.Event is needed.");
  }
  return reinterpret_cast<THPEvent*>(object.ptr());
}

// Puts an event of the runtime into a torch.Event that was not recorded yet.
void fill(py::handle object, Event event) {
  const c10::DeviceIndex device = event.device();
  give_event(std::move(event));
  as_event(object)->event.record(current_stream(device));
}

void make_interprocess(py::handle object, int device) {
  fill(object, Event::shared(device < 0 ? current_device() : device_index(device)));
}

void open_interprocess(py::handle object, const std::string& handle) { fill(object, Event::from_ipc_handle(handle)); }

py::bytes ipc_handle(py::handle object) {
  const auto* event = static_cast<const Event*>(as_event(object)->event.eventId());
  TORCH_CHECK(event != nullptr, "The event has no handle for other processes: create it with interprocess=True.");
  return event->ipc_handle();
}

// 0 before the first record.
uintptr_t native_handle(py::handle object) {
  const auto* event = static_cast<const Event*>(as_event(object)->event.eventId());
  return event == nullptr ? 0 : reinterpret_cast<uintptr_t>(event->handle());
}

}  // namespace

void bind_event(py::module_& m) {
  m.def("elapsed_time", torch::wrap_pybind_function(
                            [](py::handle start, py::handle end) { return as_event(start)->event.elapsedTime(as_event(end)->event); }));
  m.def("make_interprocess", torch::wrap_pybind_function(make_interprocess));
  m.def("open_interprocess", torch::wrap_pybind_function(open_interprocess));
  m.def("event_native_handle", torch::wrap_pybind_function(native_handle));
  m.def("ipc_handle", torch::wrap_pybind_function(ipc_handle));
}

}  // namespace openreg::python
