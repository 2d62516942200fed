// The parts of torch_openreg._C, one per noun.
#pragma once

#include <torch/csrc/utils/pybind.h>

namespace openreg::python {

void bind_device(pybind11::module_& m);
void bind_stream(pybind11::module_& m);
void bind_event(pybind11::module_& m);
void bind_generator(pybind11::module_& m);
void bind_op_stats(pybind11::module_& m);

// Gives the runtime its two ways to ask Python something: "was Ctrl-C pressed" and "where was this launched".
void install_callbacks();

}  // namespace openreg::python
