// torch_openreg._C: glue without logic. Each function converts, releases the GIL where it may wait, calls the runtime, converts.
#include "python/module.h"

#include "aten/registration.h"

PYBIND11_MODULE(_C, m) {
  m.doc() = "The native half of torch_openreg; use torch.openreg instead.";
  openreg::python::bind_device(m);
  openreg::python::bind_stream(m);
  openreg::python::bind_event(m);
  openreg::python::bind_generator(m);
  openreg::python::bind_graph(m);
  openreg::python::bind_memory(m);
  openreg::python::bind_memory_history(m);
  openreg::python::bind_ipc(m);
  openreg::python::bind_op_stats(m);
  openreg::python::bind_sanitizer(m);
  openreg::python::bind_trace(m);
  openreg::python::bind_recovery(m);
  openreg::python::bind_faults(m);
  openreg::python::install_callbacks();
  openreg::register_engine();
}
