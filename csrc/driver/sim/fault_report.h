// fault_report.h: says what was touched when a program reads device memory from the host.
//
// The chip publishes its address ranges and its live segments here; a chained SIGSEGV handler
// looks an address up without locks and prints with nothing but write.
#pragma once

#include <cstdint>

namespace openreg::sim {

// Installs the handler in front of the present one, once in the process.
void fault_report_install();

// The two views that the handler knows; `bytes_per_device` times `devices` is the length of each.
void fault_report_set_views(uint64_t device_view, uint64_t kernel_view, uint64_t bytes_per_device, int32_t devices);
void fault_report_clear_views();

// Adds or removes a live segment. LOCK: none needed; any thread. The slot is -1 when the table is full.
int32_t fault_report_add(uint64_t base, uint64_t bytes);
void fault_report_remove(int32_t slot);

}  // namespace openreg::sim
