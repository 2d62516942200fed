// launch.cpp: checks a launch and puts it into the stream's queue.
#include "driver/sim/launch.h"

#include <cstddef>
#include <memory>

#include "driver/sim/device.h"
#include "driver/sim/handle.h"
#include "driver/sim/status.h"
#include "driver/sim/stream.h"

namespace openreg::sim {
namespace {

struct Kernel {
  int32_t device;
  openreg_sim_kernel code;
};

using KernelTable = HandleTable<Kernel, openreg_kernel, HandleKind::kernel>;

KernelTable& kernel_table() {
  static KernelTable& table = *new KernelTable;
  return table;
}

openreg_status check_args(const char* operation, const void* args, uint64_t size) {
  if (size && !args)
    return fail(OPENREG_INVALID_VALUE, "%s: args is null but size is %llu", operation, static_cast<unsigned long long>(size));
  return OPENREG_OK;
}

}  // namespace

openreg_status describe_task(const char* operation, const openreg_launch_desc* desc, const char* unnamed, Task* task) {
  task->name = unnamed;
  if (!desc) return OPENREG_OK;
  if (desc->struct_size < offsetof(openreg_launch_desc, cleanup) + sizeof desc->cleanup)
    return fail(OPENREG_INVALID_VALUE, "%s: desc->struct_size is %u; set it to sizeof(openreg_launch_desc)", operation, desc->struct_size);
  if (desc->name) task->name = desc->name;
  task->tag = desc->tag;
  task->cleanup = desc->cleanup;
  return OPENREG_OK;
}

void forget_kernels() {
  kernel_table().clear([](Kernel* kernel) { delete kernel; });
}

openreg_status kernel_load(int32_t device, const char* name, const void* image, uint64_t bytes, openreg_kernel* kernel) {
  return entry([&]() -> openreg_status {
    if (!kernel || !image) return fail(OPENREG_INVALID_VALUE, "kernel_load: %s is null", kernel ? "image" : "kernel");
    if (openreg_status status = check_device("kernel_load", device)) return status;
    if (bytes != 0)
      return fail(OPENREG_UNSUPPORTED,
                  "kernel_load: %s: the simulator takes the address of an openreg_sim_kernel with bytes = 0, not an image of %llu bytes",
                  name ? name : "unnamed", static_cast<unsigned long long>(bytes));
    auto created = std::make_unique<Kernel>(Kernel{device, reinterpret_cast<openreg_sim_kernel>(const_cast<void*>(image))});
    const openreg_kernel handle = kernel_table().insert(created.get());
    if (!handle) return fail(OPENREG_OUT_OF_MEMORY, "kernel_load: there are too many live kernels");
    created.release();
    *kernel = handle;
    return OPENREG_OK;
  });
}

openreg_status kernel_unload(openreg_kernel kernel) {
  return entry([&]() -> openreg_status {
    Kernel* object = kernel_table().erase(kernel);
    if (!object) return fail(OPENREG_INVALID_VALUE, "kernel_unload: %p is not a live kernel", static_cast<void*>(kernel));
    delete object;  // queued launches have copied the code's address
    return OPENREG_OK;
  });
}

openreg_status launch_kernel(openreg_stream stream, openreg_kernel kernel, const openreg_geometry* geometry, const void* args,
                             uint64_t size, const openreg_launch_desc* desc) {
  return entry([&]() -> openreg_status {
    Stream* on = find_stream("launch_kernel", stream);
    if (!on) return OPENREG_INVALID_VALUE;
    Kernel* object = kernel_table().find(kernel);
    if (!object) return fail(OPENREG_INVALID_VALUE, "launch_kernel: %p is not a live kernel", static_cast<void*>(kernel));
    if (object->device != on->device->index)
      return fail(OPENREG_INVALID_VALUE, "launch_kernel: the kernel is loaded on device %d, the stream is on device %d", object->device,
                  on->device->index);
    if (!geometry) return fail(OPENREG_INVALID_VALUE, "launch_kernel: geometry is null");
    for (int axis = 0; axis < 3; ++axis)
      if (geometry->grid[axis] == 0 || geometry->block[axis] == 0)
        return fail(OPENREG_INVALID_VALUE, "launch_kernel: the %s has size 0 on axis %d", geometry->grid[axis] ? "block" : "grid", axis);
    if (openreg_status status = check_args("launch_kernel", args, size)) return status;
    Task task{};
    task.kind = TaskKind::kernel;
    task.kernel = object->code;
    if (openreg_status status = describe_task("launch_kernel", desc, "unnamed", &task)) return status;
    const KernelPrefix prefix{*geometry};
    return submit(*on, task, {&prefix, sizeof prefix}, {args, size}, nullptr);
  });
}

openreg_status launch_host_func(openreg_stream stream, openreg_host_func fn, const void* args, uint64_t size,
                                const openreg_launch_desc* desc) {
  return entry([&]() -> openreg_status {
    Stream* on = find_stream("launch_host_func", stream);
    if (__builtin_expect(!on, 0)) return OPENREG_INVALID_VALUE;
    if (__builtin_expect(!fn, 0)) return fail(OPENREG_INVALID_VALUE, "launch_host_func: fn is null");
    if (openreg_status status = check_args("launch_host_func", args, size)) return status;
    Task task{};
    task.kind = TaskKind::host_func;
    task.host_func = fn;
    if (openreg_status status = describe_task("launch_host_func", desc, "unnamed", &task)) return status;
    return submit(*on, task, {}, {args, size}, nullptr);
  });
}

}  // namespace openreg::sim
