/* sim_kernel.h: what device code is on the simulated chip.
 *
 * An image for kernel_load is the address of a function of this type (bytes = 0).
 * The chip calls it once per launch with the whole grid; the kernel walks the grid
 * itself. Pointers inside `args` are kernel-view addresses. It may not call the
 * driver, allocate device memory or throw; it runs on a worker thread.
 */
#ifndef OPENREG_SIM_KERNEL_H
#define OPENREG_SIM_KERNEL_H

#include "hal/openreg_hal.h"

typedef void (*openreg_sim_kernel)(const openreg_geometry* geometry, const void* args);

#endif /* OPENREG_SIM_KERNEL_H */
