// Streams, schedules, and the callbacks by which waits and launches ask Python.
#include <torch/csrc/Exceptions.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <optional>
#include <tuple>

#include "python/host_function.h"
#include "python/module.h"
#include "runtime/device.h"
#include "runtime/error.h"
#include "runtime/interpreter_lock.h"
#include "runtime/launch.h"
#include "runtime/recovery.h"
#include "runtime/schedule.h"
#include "runtime/stream.h"

namespace py = pybind11;

namespace openreg::python {

namespace {

using StreamTuple = std::tuple<int64_t, int, int>;

StreamTuple as_tuple(c10::Stream stream) {
  return {stream.id(), stream.device_index(), static_cast<int>(stream.device_type())};
}

c10::Stream as_stream(int64_t id, int device) {
  return c10::Stream(c10::Stream::UNSAFE, c10::Device(c10::DeviceType::PrivateUse1, device_index(device)), id);
}

c10::DeviceIndex checked(int device) {
  check_device(device_index(device));
  return device_index(device);
}

openreg_status busy(void* args, openreg_error*) {
  uint64_t cycles;
  std::memcpy(&cycles, args, sizeof(cycles));
  const auto end = std::chrono::steady_clock::now() + std::chrono::nanoseconds(cycles);
  while (std::chrono::steady_clock::now() < end) {
  }
  return OPENREG_OK;
}

void sleep(uint64_t cycles) {
  launch_host_func(current_stream(checked(current_device())), "openreg::sleep", busy, &cycles, sizeof(cycles));
}

// Safe on any thread that does not wait for another one's GIL: workers never call it.
void raise_on_ctrl_c() {
  if (!Py_IsInitialized()) return;
  py::gil_scoped_acquire gil;
  if (PyErr_CheckSignals() == 0) return;
  python_error interrupted;
  interrupted.persist();
  throw interrupted;
}

void* release_gil() { return Py_IsInitialized() && PyGILState_Check() ? PyEval_SaveThread() : nullptr; }

void acquire_gil(void* state) { PyEval_RestoreThread(static_cast<PyThreadState*>(state)); }

}  // namespace

void bind_stream(py::module_& m) {
  using torch::wrap_pybind_function;
  using torch::wrap_pybind_function_no_gil;
  m.def("current_stream", wrap_pybind_function([](int device) { return as_tuple(current_stream(checked(device))); }));
  m.def("default_stream", wrap_pybind_function([](int device) { return as_tuple(default_stream(checked(device))); }));
  m.def("set_stream", wrap_pybind_function([](int64_t id, int device) { exchange_stream(as_stream(id, device)); }));
  m.def("stream_from_pool",
        wrap_pybind_function([](int device, int priority) { return as_tuple(stream_from_pool(checked(device), priority)); }));
  m.def("stream_native_handle", wrap_pybind_function([](int64_t id, int device) {
          return reinterpret_cast<uintptr_t>(stream_handle(as_stream(id, checked(device))));
        }));
  m.def("external_stream", wrap_pybind_function([](uintptr_t handle, int device) {
          return as_tuple(external_stream(reinterpret_cast<openreg_stream>(handle), checked(device)));
        }));
  m.def("stream_priority", wrap_pybind_function([](int64_t id, int device) { return stream_priority(as_stream(id, checked(device))); }));
  m.def("launch_host_function", wrap_pybind_function_no_gil([](int64_t id, int device, uint64_t function) {
          launch_host_function(as_stream(id, checked(device)), function);
        }));
  m.def("next_host_call", wrap_pybind_function([](int64_t id, int device) -> std::optional<std::tuple<uint64_t, bool>> {
          HostCall call;
          const bool found = [&] {
            const py::gil_scoped_release released;
            return next_host_call(as_stream(id, device), &call);
          }();
          if (!found) return std::nullopt;
          return std::make_tuple(call.function, call.drop);
        }));
  m.def("finish_host_call", wrap_pybind_function_no_gil([](int64_t id, int device, const std::string& kind, const std::string& error) {
          finish_host_call(as_stream(id, device), kind, error);
        }));
  m.def("host_thread_is_stuck", wrap_pybind_function_no_gil([](int64_t id, int device) { return host_thread_is_stuck(as_stream(id, device)); }));
  m.def("end_host_threads", wrap_pybind_function([]() {
          std::vector<std::tuple<int64_t, int>> ended;
          for (const c10::Stream& stream : end_host_threads()) ended.emplace_back(stream.id(), stream.device_index());
          return ended;
        }));
  m.def("expire_host_functions", wrap_pybind_function_no_gil([](uint64_t timeout_ms) { expire_host_functions(timeout_ms * 1'000'000); }));
  m.def("exchange_schedule", wrap_pybind_function_no_gil([](const std::string& schedule) { return exchange_schedule(schedule); }));
  m.def("current_schedule", wrap_pybind_function_no_gil([]() { return current_schedule(); }));
  m.def("sleep", wrap_pybind_function_no_gil([](uint64_t cycles) { sleep(cycles); }));
}

void install_callbacks() {
  set_interrupt_check(raise_on_ctrl_c);
  set_interpreter_lock(release_gil, acquire_gil);
  set_abandon_hook(abandon_host_functions);
}

}  // namespace openreg::python
