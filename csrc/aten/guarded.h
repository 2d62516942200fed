// Core's device-generic functions as kernels of this device.
#pragma once

#include <ATen/DeviceGuard.h>
#include <ATen/core/Tensor.h>

#include <optional>
#include <utility>

namespace openreg {

inline std::optional<c10::Device> device_in(const at::Tensor& tensor) {
  return tensor.device().type() == c10::DeviceType::PrivateUse1 ? std::optional<c10::Device>(tensor.device()) : std::nullopt;
}
inline std::optional<c10::Device> device_in(const std::optional<c10::Device>& device) { return device; }
template <class Other>
std::optional<c10::Device> device_in(const Other&) {
  return std::nullopt;
}

// `function` with the device of its first device tensor or device argument made current: core takes the current device for granted.
// Guarded<at::native::zero_sparse_>::call is a kernel.
template <auto function>
struct Guarded;
template <class Return, class... Args, Return (*function)(Args...)>
struct Guarded<function> {
  static Return call(Args... args) {
    std::optional<c10::Device> device;
    ((device = device ? device : device_in(args)), ...);
    const c10::OptionalDeviceGuard guard(device);
    return function(std::forward<Args>(args)...);
  }
};

}  // namespace openreg
