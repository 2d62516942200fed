// Lost devices: giving one up, asking, and bringing it back. docs/faults.md tells what that means for tensors, streams and events.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <optional>
#include <string>

#include "runtime/export.h"

namespace openreg {

// Gives the device up for a reason. What is queued on it is dropped, what runs is abandoned, and every call that needs the device throws
// c10::AcceleratorError until it is reset. Nothing for a device that is lost. Throws NotImplementedError when the driver cannot. Any thread, without
// Python's lock.
OPENREG_API void abandon_device(c10::DeviceIndex device, const std::string& reason);

// Brings a lost device back; true for one that is not lost. False while a task runs that was abandoned, and nothing has changed. Memory keeps its
// addresses and loses its contents. Throws ValueError while one of the device's streams is being captured. Any thread.
OPENREG_API bool try_reset_device(c10::DeviceIndex device);

// Why the device is lost; nothing when it is not. Never waits, and reports no other error. Any thread.
OPENREG_API std::optional<std::string> loss_reason(c10::DeviceIndex device);

// How often abandon_device has given the device up: a wait compares it to notice a loss whose reset came first. Hot.
uint64_t losses_of(c10::DeviceIndex device) noexcept;

// The sentence of the error that a lost device raises.
std::string loss_sentence(int device, const std::string& reason);

// Installs a function that ends the tasks of the device that wait for Python. Called after the loss, on any thread without Python's lock.
OPENREG_API void set_abandon_hook(void (*hook)(c10::DeviceIndex device));

}  // namespace openreg
