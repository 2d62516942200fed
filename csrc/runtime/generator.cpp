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
}

Generator::Generator(c10::DeviceIndex device)
    : c10::GeneratorImpl(c10::Device(c10::DeviceType::PrivateUse1, device), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1)),
      state_(std::make_shared<Shared>()) {
  set_current_seed(c10::default_rng_seed_val);
}

void Generator::set_current_seed(uint64_t seed) { static_cast<PhiloxState&>(*state_) = {seed, 0}; }

void Generator::set_offset(uint64_t offset) {
  TORCH_CHECK(offset % 4 == 0, "A generator's offset must be a multiple of 4, got ", offset, ".");
  state_->offset = offset;
}

uint64_t Generator::seed() {
  set_current_seed(c10::detail::getNonDeterministicRandom(true));
  return state_->seed;
}

void Generator::set_state(const c10::TensorImpl& state) {
  TORCH_CHECK(state.device().is_cpu() && state.dtype() == c10::ScalarType::Byte && state.numel() == kStateBytes &&
                  state.is_contiguous(),
              "An openreg generator's state is a contiguous CPU tensor of ", kStateBytes, " uint8 values (seed, offset).");
  PhiloxState read;
  std::memcpy(&read, state.data(), sizeof(read));
  TORCH_CHECK(read.offset % 4 == 0, "A generator's offset must be a multiple of 4, got ", read.offset, ".");
  static_cast<PhiloxState&>(*state_) = read;
}

c10::intrusive_ptr<c10::TensorImpl> Generator::get_state() const {
  at::Tensor tensor = at::detail::empty_cpu({kStateBytes}, at::kByte, std::nullopt, std::nullopt, std::nullopt, std::nullopt);
  std::memcpy(tensor.mutable_data_ptr(), static_cast<const PhiloxState*>(state_.get()), kStateBytes);
  return tensor.getIntrusivePtr();
}

void Generator::graphsafe_set_state(const c10::intrusive_ptr<c10::GeneratorImpl>& state) {
  auto* other = dynamic_cast<Generator*>(state.get());
  TORCH_CHECK(other != nullptr, "An openreg generator takes its state from an openreg generator only.");
  state_ = other->state_;
}

c10::intrusive_ptr<c10::GeneratorImpl> Generator::graphsafe_get_state() const {
  auto sharing = c10::make_intrusive<Generator>(device().index());
  sharing->state_ = state_;
  return sharing;
}

PhiloxState Generator::advance(uint64_t numbers) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  const PhiloxState before = *state_;
  state_->offset += (numbers + 3) / 4 * 4;
  return before;
}

void Generator::begin_capture(uint64_t capture, const uint64_t* base) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  state_->captures.push_back({capture, base, 0});
}

uint64_t Generator::end_capture(uint64_t capture) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  const auto found = std::find_if(state_->captures.begin(), state_->captures.end(), [&](const Captured& entry) { return entry.capture == capture; });
  if (found == state_->captures.end()) return 0;  // another state was put in during the capture
  const uint64_t used = found->used;
  state_->captures.erase(found);
  return used;
}

PhiloxLaunch Generator::advance_in_capture(uint64_t capture, uint64_t numbers) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  for (Captured& entry : state_->captures) {
    if (entry.capture != capture) continue;
    const uint64_t offset = entry.used;
    entry.used += (numbers + 3) / 4 * 4;
    return {{0, offset}, entry.base};
  }
  TORCH_CHECK(false, "The generator of ", device(), " is not part of the graph that is being captured: call register_generator_state(generator) on the "
                     "graph before it is used in the capture.");
}

Generator* Generator::clone_impl() const {
  auto* copy = new Generator(device().index());
  static_cast<PhiloxState&>(*copy->state_) = *state_;
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

PhiloxLaunch reserve_philox(const std::optional<at::Generator>& generator, c10::DeviceIndex device, uint64_t numbers) {
  const at::Generator& chosen = generator.has_value() && generator->defined() ? *generator : default_generator(device);
  TORCH_CHECK(chosen.device().type() == c10::DeviceType::PrivateUse1, "Expected an 'openreg' device type for generator but found '",
              chosen.device().type(), "'");
  TORCH_CHECK(chosen.device().index() == device, "Expected a generator of openreg:", static_cast<int>(device), " but found one of ",
              chosen.device());
  auto* impl = static_cast<Generator*>(chosen.unsafeGetGeneratorImpl());
  const uint64_t capture = capture_of(current_stream(device));
  if (C10_LIKELY(capture == 0)) return {impl->advance(numbers), nullptr};
  TORCH_CHECK_NOT_IMPLEMENTED(has_kernel_view(device), "Random operators cannot be captured on ", chosen.device(),
                              ": its driver has no kernel view, so their numbers are drawn on the host.");
  return impl->advance_in_capture(capture, numbers);
}

}  // namespace openreg
