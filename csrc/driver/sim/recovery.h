// recovery.h: losing a device, and bringing it back.
//
// Note [Giving up a task]
// A task cannot be interrupted, so a lost device takes the rest of the queue away from the thread that is in one. Whoever moves the head of a
// queue past a task decides its end: normally the owner when the task has returned, in a loss the thread that declares it. The owner notices when
// it cannot move the head itself; until then it keeps the ownership, the task and its arguments, and the device counts it as abandoned. A
// task that waits for other work has not run, and its owner may be deep inside another stream; there the word WaitState decides in the same way.
// Nothing is enqueued on a lost stream, so the space of an abandoned task is not used again before it has come back.
#pragma once

#include "driver/sim/device.h"
#include "hal/openreg_hal.h"

namespace openreg::sim {

// DEVICE_LOST with a sentence when the device is lost. error may be null.
openreg_status report_loss(const char* operation, Device& device, openreg_error* error);
inline openreg_status refuse_lost(const char* operation, Device& device) {
  return __builtin_expect(device.lost.load(std::memory_order_acquire), 0) ? report_loss(operation, device, nullptr) : OPENREG_OK;
}

// A wait that a loss ends, also when the device has come back by the time that the waiting thread looks.
class LossWatch {
 public:
  explicit LossWatch(Device& device) : device_(device), losses_(device.losses.load(std::memory_order_acquire)) {}
  openreg_status report(const char* operation, openreg_error* error) const {
    const bool lost = device_.lost.load(std::memory_order_acquire) || device_.losses.load(std::memory_order_acquire) != losses_;
    return __builtin_expect(lost, 0) ? report_loss(operation, device_, error) : OPENREG_OK;
  }

 private:
  Device& device_;
  const uint32_t losses_;
};

// Whether a task of some device was given up and still runs. Shutdown asks.
bool has_abandoned_tasks(const Chip& chip);

openreg_status device_lose(int32_t device, const char* reason);
openreg_status device_reset(int32_t device);

}  // namespace openreg::sim
