// The parts of torch_openreg._C, one per noun.
#pragma once

#include <c10/core/Device.h>
#include <c10/util/Exception.h>
#include <torch/csrc/utils/pybind.h>

#include "runtime/driver.h"

namespace openreg::python {

void bind_device(pybind11::module_& m);
void bind_stream(pybind11::module_& m);
void bind_event(pybind11::module_& m);
void bind_generator(pybind11::module_& m);
void bind_graph(pybind11::module_& m);
void bind_memory(pybind11::module_& m);
void bind_memory_history(pybind11::module_& m);
void bind_ipc(pybind11::module_& m);
void bind_op_stats(pybind11::module_& m);
void bind_sanitizer(pybind11::module_& m);
void bind_trace(pybind11::module_& m);
void bind_recovery(pybind11::module_& m);
void bind_faults(pybind11::module_& m);

// The number as torch's device index, which has eight bits; throws the sentence of check_device for one that does not fit.
inline c10::DeviceIndex device_index(int device) {
  TORCH_CHECK(device >= -1 && device < kMaxDevices, "openreg:", device, " does not exist: indices go from 0 to ", kMaxDevices - 1, ".");
  return static_cast<c10::DeviceIndex>(device);
}

// Gives the runtime its ways to ask Python something: "was Ctrl-C pressed", "where was this launched", and to let go of its lock in waits.
void install_callbacks();

}  // namespace openreg::python
