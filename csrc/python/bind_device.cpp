// Driver and device functions.
#include <torch/csrc/Exceptions.h>

#include <optional>

#include "python/module.h"
#include "runtime/device.h"
#include "runtime/driver.h"
#include "runtime/launch.h"
#include "runtime/sync_debug.h"

namespace py = pybind11;

namespace openreg::python {

namespace {

void configure(std::string path, std::vector<std::string> layers, std::map<std::string, std::string> options,
               std::optional<std::vector<int>> visible, int expected_devices) {
  DriverSettings settings;
  settings.path = std::move(path);
  settings.layers = std::move(layers);
  settings.options = std::move(options);
  settings.visible_set = visible.has_value();
  settings.expected_devices = expected_devices;
  if (visible) settings.visible = std::move(*visible);
  configure_driver(std::move(settings));
}

py::dict driver_info() {
  const DriverIdentity identity = driver_identity();
  py::dict info;
  info["name"] = identity.name;
  info["path"] = identity.path;
  info["major"] = identity.major;
  info["minor"] = identity.minor;
  info["layers"] = identity.layers;
  return info;
}

py::dict device_properties(int device) {
  const openreg_device_info read = device_info(device_index(device));
  py::dict info;
  info["name"] = std::string(read.name);
  info["total_memory"] = read.total_memory_bytes;
  info["allocation_granularity"] = read.allocation_granularity_bytes;
  info["compute_units"] = read.compute_units;
  info["major"] = read.capability_major;
  info["minor"] = read.capability_minor;
  info["priority_least"] = read.priority_least;
  info["priority_greatest"] = read.priority_greatest;
  return info;
}

// (part of the window in which the device was busy, streams, processes), or None when the driver does not know.
py::object device_usage(int device, uint64_t window_ns) {
  const openreg_driver& table = hal();
  if (!has_entry(table, &openreg_driver::device_usage)) return py::none();
  openreg_usage usage = {};
  usage.struct_size = sizeof(usage);
  openreg_status status;
  {
    py::gil_scoped_release no_gil;
    status = table.device_usage(driver_device(device_index(device)), window_ns, &usage);
  }
  if (status == OPENREG_UNSUPPORTED) return py::none();
  check(status, "Looking at the device's usage");
  return py::make_tuple(usage.busy_permille / 1000.0, usage.streams, usage.processes);
}

}  // namespace

void bind_device(py::module_& m) {
  using torch::wrap_pybind_function;
  using torch::wrap_pybind_function_no_gil;
  const auto index = [](int device) { return device_index(device); };
  m.def("configure", wrap_pybind_function(configure), py::arg("driver_path"), py::arg("layers"), py::arg("options"),
        py::arg("visible"), py::arg("expected_devices") = 0);
  m.def("init", wrap_pybind_function_no_gil([]() { start_driver(); }));
  m.def("is_initialized", []() { return driver_started(); });
  m.def("is_in_bad_fork", []() { return in_bad_fork(); });
  m.def("shutdown", wrap_pybind_function_no_gil([](uint64_t timeout_ms) { return stop_driver(timeout_ms * 1'000'000); }));
  m.def("driver_info", wrap_pybind_function(driver_info));
  m.def("device_count", wrap_pybind_function_no_gil([]() { return static_cast<int>(device_count()); }));
  m.def("current_device", []() { return static_cast<int>(current_device()); });
  m.def("set_device", wrap_pybind_function([index](int device) { set_device(index(device)); }));
  m.def("exchange_device", wrap_pybind_function([index](int device) {
          return device < 0 ? -1 : static_cast<int>(exchange_device(index(device)));
        }));
  m.def("device_properties", wrap_pybind_function(device_properties));
  m.def("synchronize", wrap_pybind_function_no_gil([index](int device) { synchronize_device(index(device)); }));
  m.def("device_usage", wrap_pybind_function(device_usage));
  m.def("sync_debug_mode", []() { return static_cast<int>(sync_debug_mode()); });
  m.def("set_sync_debug_mode", [](int mode) { set_sync_debug_mode(static_cast<SyncDebugMode>(mode)); });
  m.def("launch_blocking", []() { return launch_blocking(); });
}

}  // namespace openreg::python
