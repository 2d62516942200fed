// Random numbers: a counter-based (Philox 4x32-10) generator whose state is (seed, offset). The offset advances on the
// host at launch, so results do not depend on when streams run. State: 16 bytes, seed then offset, little-endian.
#pragma once

#include <ATen/core/Generator.h>
#include <c10/core/GeneratorImpl.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "runtime/export.h"

namespace openreg {

struct PhiloxState {
  uint64_t seed;
  uint64_t offset;  // in 32-bit numbers; always a multiple of 4
};

// What a launch takes its numbers from. With `base`, which is null outside captures, they are those of seed base[0] from base[1] + offset on, as the
// words are when the launch runs; without it those of seed and offset. See Note [Graphs].
struct PhiloxLaunch : PhiloxState {
  const uint64_t* base;  // as kernels reach it
};

class OPENREG_API Generator final : public c10::GeneratorImpl {
 public:
  explicit Generator(c10::DeviceIndex device);
  void set_current_seed(uint64_t seed) override;
  void set_offset(uint64_t offset) override;  // throws unless a multiple of 4
  uint64_t get_offset() const override { return state().offset; }
  uint64_t current_seed() const override { return state().seed; }
  uint64_t seed() override;
  void set_state(const c10::TensorImpl& state) override;
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override;
  void graphsafe_set_state(const c10::intrusive_ptr<c10::GeneratorImpl>& state) override;
  c10::intrusive_ptr<c10::GeneratorImpl> graphsafe_get_state() const override;
  static c10::DeviceType device_type() { return c10::DeviceType::PrivateUse1; }

  // Returns the state and advances the offset by `numbers` 32-bit numbers rounded up to a multiple of 4. Any thread, also when
  // generators share their state.
  PhiloxState advance(uint64_t numbers);
  // Takes an advance back, unless the state has changed since. Any thread.
  void give_back(const PhiloxState& before, uint64_t numbers) noexcept;

  // While a capture is underway its launches take numbers relative to two words at `base`, and the state stays as it is. end_capture returns how
  // many were taken. advance_in_capture throws for a capture that this generator is not part of.
  void begin_capture(uint64_t capture, const uint64_t* base);
  uint64_t end_capture(uint64_t capture);
  PhiloxLaunch advance_in_capture(uint64_t capture, uint64_t numbers);

 private:
  Generator* clone_impl() const override;
  struct Captured {
    uint64_t capture;
    const uint64_t* base;
    uint64_t used;
  };
  struct Shared : PhiloxState {
    std::vector<Captured> captures;  // LOCK: mutex
    std::mutex mutex;                // LOCK: all of it. Core's mutex_ guards a generator, and several may share this
  };
  std::shared_ptr<Shared> shared() const;
  PhiloxState state() const;
  void set(const PhiloxState& state);
  mutable std::mutex pointer_mutex_;  // LOCK: state_, the pointer
  std::shared_ptr<Shared> state_;     // shared with generators that took it by graphsafe_set_state
};

// The device's default generator. Throws for a device that does not exist.
OPENREG_API const at::Generator& default_generator(c10::DeviceIndex device);
OPENREG_API at::Generator make_generator(c10::DeviceIndex device);

// Reserves `numbers` 32-bit numbers per launch from `generator` (the device's default one when empty), under its lock.
// `device` is the tensor's, -1 for the CPU's: a generator brings calls for tensors of the CPU here. Throws when the generator belongs to another
// device, and while the device's current stream is being captured for a generator that the graph does not know. Any thread.
OPENREG_API PhiloxLaunch reserve_philox(const std::optional<at::Generator>& generator, c10::DeviceIndex device, uint64_t numbers);

// Takes back what reserve_philox gave for a launch that did not come about, unless the generator's state has changed since. Any thread.
OPENREG_API void return_philox(const std::optional<at::Generator>& generator, c10::DeviceIndex device, const PhiloxLaunch& reserved,
                               uint64_t numbers) noexcept;

}  // namespace openreg
