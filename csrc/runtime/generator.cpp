// Philox generators: state on the host only.
#include "runtime/generator.h"

#include <ATen/EmptyTensor.h>
#include <ATen/Utils.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstring>
#include <mutex>

#include "runtime/capture.h"
#include "runtime/device.h"
#include "runtime/driver.h"
#include "runtime/stream.h"

namespace openreg {

namespace {

constexpr int64_t kStateBytes = 16;

uint64_t whole_steps(uint64_t numbers) { return (numbers + 3) / 4 * 4; }

}  // namespace

Generator::Generator(c10::DeviceIndex device)
    : c10::GeneratorImpl(c10::Device(c10::DeviceType::PrivateUse1, device), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1)),
      state_(std::make_shared<Shared>()) {
  set_current_seed(c10::default_rng_seed_val);
}

std::shared_ptr<Generator::Shared> Generator::shared() const {
  std::lock_guard<std::mutex> lock(pointer_mutex_);
  return state_;
}

PhiloxState Generator::state() const {
  const auto shared = this->shared();
  std::lock_guard<std::mutex> lock(shared->mutex);
  return *shared;
}

void Generator::set(const PhiloxState& state) {
  const auto shared = this->shared();
  std::lock_guard<std::mutex> lock(shared->mutex);
  static_cast<PhiloxState&>(*shared) = state;
}

void Generator::set_current_seed(uint64_t seed) { set({seed, 0}); }

void Generator::set_offset(uint64_t offset) {
  TORCH_CHECK(offset % 4 == 0, "A generator's offset must be a multiple of 4, got ", offset, ".");
  const auto shared = this->shared();
  std::lock_guard<std::mutex> lock(shared->mutex);
  shared->offset = offset;
}

uint64_t Generator::seed() {
  const uint64_t seed = c10::detail::getNonDeterministicRandom(true);
  set_current_seed(seed);
  return seed;
}

void Generator::set_state(const c10::TensorImpl& state) {
  TORCH_CHECK(state.device().is_cpu() && state.dtype() == c10::ScalarType::Byte && state.numel() == kStateBytes &&
                  state.is_contiguous(),
              "An openreg generator's state is a contiguous CPU tensor of ", kStateBytes, " uint8 values (seed, offset).");
  PhiloxState read;
  std::memcpy(&read, state.data(), sizeof(read));
  TORCH_CHECK(read.offset % 4 == 0, "A generator's offset must be a multiple of 4, got ", read.offset, ".");
  set(read);
}

c10::intrusive_ptr<c10::TensorImpl> Generator::get_state() const {
  at::Tensor tensor = at::detail::empty_cpu({kStateBytes}, at::kByte, std::nullopt, std::nullopt, std::nullopt, std::nullopt);
  const PhiloxState now = state();
  std::memcpy(tensor.mutable_data_ptr(), &now, kStateBytes);
  return tensor.getIntrusivePtr();
}

void Generator::graphsafe_set_state(const c10::intrusive_ptr<c10::GeneratorImpl>& state) {
  auto* other = dynamic_cast<Generator*>(state.get());
  TORCH_CHECK(other != nullptr, "An openreg generator takes its state from an openreg generator only.");
  auto shared = other->shared();
  std::lock_guard<std::mutex> lock(pointer_mutex_);
  state_ = std::move(shared);
}

c10::intrusive_ptr<c10::GeneratorImpl> Generator::graphsafe_get_state() const {
  auto sharing = c10::make_intrusive<Generator>(device().index());
  sharing->state_ = shared();
  return sharing;
}

PhiloxState Generator::advance(uint64_t numbers) {
  const auto shared = this->shared();
  std::lock_guard<std::mutex> lock(shared->mutex);
  const PhiloxState before = *shared;
  shared->offset += whole_steps(numbers);
  return before;
}

void Generator::give_back(const PhiloxState& before, uint64_t numbers) noexcept {
  const auto shared = this->shared();
  std::lock_guard<std::mutex> lock(shared->mutex);
  if (shared->seed == before.seed && shared->offset == before.offset + whole_steps(numbers)) shared->offset = before.offset;
}

void Generator::begin_capture(uint64_t capture, const uint64_t* base) {
  const auto shared = this->shared();
  std::lock_guard<std::mutex> lock(shared->mutex);
  shared->captures.push_back({capture, base, 0});
}

uint64_t Generator::end_capture(uint64_t capture) {
  const auto shared = this->shared();
  std::lock_guard<std::mutex> lock(shared->mutex);
  const auto found = std::find_if(shared->captures.begin(), shared->captures.end(), [&](const Captured& entry) { return entry.capture == capture; });
  if (found == shared->captures.end()) return 0;  // another state was put in during the capture
  const uint64_t used = found->used;
  shared->captures.erase(found);
  return used;
}

PhiloxLaunch Generator::advance_in_capture(uint64_t capture, uint64_t numbers) {
  const auto shared = this->shared();
  std::lock_guard<std::mutex> lock(shared->mutex);
  for (Captured& entry : shared->captures) {
    if (entry.capture != capture) continue;
    const uint64_t offset = entry.used;
    entry.used += whole_steps(numbers);
    return {{0, offset}, entry.base};
  }
  TORCH_CHECK(false, "The generator of ", device(), " is not part of the graph that is being captured: call register_generator_state(generator) on the "
                     "graph before it is used in the capture.");
}

Generator* Generator::clone_impl() const {
  auto* copy = new Generator(device().index());
  copy->set(state());
  return copy;
}

const at::Generator& default_generator(c10::DeviceIndex device) {
  if (device < 0) device = current_device();
  check_device(device);
  struct Defaults {
    std::mutex mutex;
    at::Generator generators[kMaxDevices];
  };
  static Defaults* defaults = new Defaults;
  std::lock_guard<std::mutex> lock(defaults->mutex);
  at::Generator& generator = defaults->generators[device];
  if (!generator.defined()) {
    generator = make_generator(device);
    generator.seed();
  }
  return generator;
}

at::Generator make_generator(c10::DeviceIndex device) {
  if (device < 0) device = current_device();
  check_device(device);
  return at::make_generator<Generator>(device);
}

namespace {

const at::Generator& chosen_generator(const std::optional<at::Generator>& generator, c10::DeviceIndex device) {
  return generator.has_value() && generator->defined() ? *generator : default_generator(device);
}

}  // namespace

PhiloxLaunch reserve_philox(const std::optional<at::Generator>& generator, c10::DeviceIndex device, uint64_t numbers) {
  const at::Generator& chosen = chosen_generator(generator, device);
  TORCH_CHECK(chosen.device().type() == c10::DeviceType::PrivateUse1, "Expected an 'openreg' device type for generator but found '",
              chosen.device().type(), "'");
  TORCH_CHECK(device >= 0, "Expected a 'cpu' device type for generator but found 'openreg'");  // the generator chose this device, not the tensor
  TORCH_CHECK(chosen.device().index() == device, "Expected a generator of openreg:", static_cast<int>(device), " but found one of ",
              chosen.device());
  auto* impl = static_cast<Generator*>(chosen.unsafeGetGeneratorImpl());
  const uint64_t capture = capture_of(current_stream(device));
  if (C10_LIKELY(capture == 0)) return {impl->advance(numbers), nullptr};
  TORCH_CHECK_NOT_IMPLEMENTED(has_kernel_view(device), "Random operators cannot be captured on ", chosen.device(),
                              ": its driver has no kernel view, so their numbers are drawn on the host.");
  return impl->advance_in_capture(capture, numbers);
}

void return_philox(const std::optional<at::Generator>& generator, c10::DeviceIndex device, const PhiloxLaunch& reserved, uint64_t numbers) noexcept {
  if (reserved.base != nullptr) return;  // a capture's, whose numbers are its own
  static_cast<Generator*>(chosen_generator(generator, device).unsafeGetGeneratorImpl())->give_back(reserved, numbers);
}

}  // namespace openreg
