// The engine's decision: known metadata and asynchronous, or waited. See Note [How a call runs].
#include <ATen/Context.h>
#include <ATen/MemoryOverlap.h>
#include <ATen/native/Resize.h>
#include <c10/core/DefaultDtype.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/COW.h>

#include <algorithm>
#include <optional>

#include "aten/engine/engine.h"
#include "aten/engine/infer.h"
#include "aten/engine/launch_state.h"
#include "aten/engine/lists.h"
#include "aten/engine/memo.h"
#include "aten/engine/operands.h"
#include "aten/engine/result.h"
#include "aten/engine/task.h"
#include "aten/tensor.h"
#include "runtime/capture.h"
#include "runtime/device.h"
#include "runtime/driver.h"
#include "runtime/error.h"
#include "runtime/generator.h"
#include "runtime/host_allocator.h"
#include "runtime/launch.h"
#include "runtime/operands.h"
#include "runtime/sanitizer.h"
#include "runtime/stream.h"
#include "runtime/sync_debug.h"

namespace openreg::engine {

namespace {

using torch::jit::Stack;

// One call on its way: the operator, its boxed arguments and the device that they are on.
struct Call {
  const OpRecord& record;
  at::ArrayRef<c10::IValue> arguments;
  c10::DeviceIndex device = -1;
};

[[noreturn]] void throw_two_devices(c10::Device a, c10::Device b, const OpRecord& record) {
  TORCH_CHECK(false, "Expected all tensors to be on the same device, but found at least two devices, ", a, " and ", b, "! (when running ",
              record.name, ")");
}

// The one device of the call's tensors; a CPU tensor may stand beside them when it is a scalar, or where the operator takes one.
c10::DeviceIndex find_device(const Call& call) {
  c10::Device device(c10::DeviceType::CPU);
  for (const auto& argument : call.arguments) {
    if (argument.isTensor()) {
      const at::Tensor& tensor = argument.toTensor();
      if (!tensor.defined() || tensor.device().type() != kDeviceType) continue;
      if (device.is_cpu()) device = tensor.device();
      if (tensor.device() != device) throw_two_devices(device, tensor.device(), call.record);
    } else if (argument.isList()) {
      for_each_tensor(argument, [&](const at::Tensor& tensor) {
        if (!tensor.defined() || tensor.device().type() != kDeviceType) return;
        if (device.is_cpu()) device = tensor.device();
        if (tensor.device() != device) throw_two_devices(device, tensor.device(), call.record);
      });
    } else if (argument.isDevice() && argument.toDevice().type() == kDeviceType && device.is_cpu()) {
      const c10::Device named = argument.toDevice();
      device = named.has_index() ? named : c10::Device(kDeviceType, current_device());
    }
  }
  if (!device.is_cpu()) return device.index();
  const bool by_generator = call.record.generator >= 0 && call.arguments[call.record.generator].isGenerator();
  TORCH_CHECK(!by_generator, "Expected a 'cpu' device type for generator but found 'openreg'");
  return current_device();
}

void check_cpu_operands(const Call& call) {
  const c10::Device device(kDeviceType, call.device);
  if (call.record.takes_cpu_tensors && call.arguments[0].isTensor()) {
    TORCH_CHECK(call.arguments[0].toTensor().device() == device, "indices should be either on ", at::kCPU,
                " or on the same device as the indexed tensor (", call.arguments[0].toTensor().device(), ")");
  }
  for (size_t i = 0; i < call.arguments.size(); ++i) {
    if (static_cast<int>(i) == call.record.packed_scalars) {
      const at::Tensor& scalars = call.arguments[i].toTensor();
      TORCH_CHECK(scalars.is_cpu(), "Expected scalars to be on CPU, got ", scalars.device(), " instead.");
      TORCH_CHECK(scalars.is_contiguous(), "Expected scalars to be contiguous.");
      continue;
    }
    if (call.record.takes_cpu_tensors && call.record.op.schema().arguments()[i].name() != "values") continue;
    for_each_tensor(call.arguments[i], [&](const at::Tensor& tensor) {
      const bool number = tensor.is_cpu() && (tensor.dim() == 0 || (tensor.numel() == 1 && call.record.fused));
      if (tensor.defined() && tensor.device() != device && !number) throw_two_devices(device, tensor.device(), call.record);
    });
  }
  for (int i : call.record.written) {
    for_each_tensor(call.arguments[i], [&](const at::Tensor& tensor) {
      if (tensor.defined() && tensor.device() != device) throw_two_devices(device, tensor.device(), call.record);
    });
  }
}

// A view of a sparse tensor is a tensor of its own, which the engine can make; one of a dense tensor is the dispatcher's business.
bool is_dense_view(const Call& call) { return !call.arguments[0].isTensor() || call.arguments[0].toTensor().layout() == at::kStrided; }

// Whether a mask among the indices makes sizes depend on data. One mask that selects where a single value goes does not.
bool counts_mask(const Call& call) {
  if (!call.record.takes_masks) return false;
  int masks = 0, indices = 0;
  for_each_tensor(call.arguments[1], [&](const at::Tensor& index) {
    if (!index.defined()) return;
    ++indices;
    masks += index.scalar_type() == at::kBool || index.scalar_type() == at::kByte;
  });
  if (masks == 0) return false;
  const bool writes = !call.record.written.empty();
  return !(writes && indices == 1 && call.arguments[2].toTensor().numel() == 1 && !call.arguments[3].toBool());
}

// Whether the call writes one element of memory twice, which kernels refuse or warn of by rules of their own.
bool writes_overlapping(const Call& call) {
  bool overlapping = false;
  for (const int i : call.record.written) {
    for_each_tensor(call.arguments[i], [&](const at::Tensor& tensor) {
      overlapping = overlapping || (tensor.defined() && at::has_internal_overlap(tensor) == at::MemOverlap::Yes);
    });
  }
  return overlapping;
}

// Writes the arguments into words; false when one cannot travel. A missing generator is the device's default one.
bool encode(const Call& call, Encoder& encoder, const PhiloxLaunch& random) {
  if (call.record.reads_requires_grad) encoder.keep_requires_grad();
  for (size_t i = 0; i < call.arguments.size(); ++i) {
    if (static_cast<int>(i) == call.record.generator) {
      encoder.add_generator(random);
      continue;
    }
    if (!encoder.add(call.arguments[i], call.record.by_value[i])) return false;
  }
  return true;
}

// The state on which results or errors of CPU kernels depend. Convolutions choose their algorithm, and so their gradients' strides, by whether there is
// more than one thread, and by whether oneDNN may be used.
uint64_t state_word() {
  const auto& context = at::globalContext();
  return static_cast<uint64_t>(c10::typeMetaToScalarType(c10::get_default_dtype())) | static_cast<uint64_t>(context.deterministicAlgorithms()) << 8 |
         static_cast<uint64_t>(context.deterministicAlgorithmsWarnOnly()) << 9 | static_cast<uint64_t>(threads_of_launch() > 1) << 10 |
         static_cast<uint64_t>(context.userEnabledMkldnn()) << 11;
}

void start_key(Key& key, const OpRecord& record) {
  key.push_back(reinterpret_cast<uint64_t>(&record));
  key.push_back(state_word());
}

// A hash of everything in the call but sizes, strides and the values of numbers: of those the classes.
uint64_t signature_of(const Call& call) {
  uint64_t hash = reinterpret_cast<uint64_t>(&call.record);
  auto dtype = c10::ScalarType::Undefined;
  const auto mix = [&](uint64_t word) { hash = (hash ^ word) * 0x9E3779B97F4A7C15ull ^ hash >> 31; };
  const auto kind_of = [&](const at::Tensor& tensor) -> uint64_t {
    if (!tensor.defined()) return 1;
    if (dtype == c10::ScalarType::Undefined) dtype = tensor.scalar_type();
    return static_cast<uint64_t>(tensor.scalar_type()) << 16 | tensor.is_conj() << 8 | tensor.is_neg() << 9 | tensor.is_cpu() << 10 |
           (tensor.dim() == 0) << 11 | 2;
  };
  const auto is_number = [](const c10::IValue& value) { return value.isScalar() || value.isUnsigned(); };
  const auto number_kind = [&](const c10::IValue& value) -> uint64_t {
    const int type = value.isBool() ? 4 + value.toBool() : value.isInt() ? 6 : value.isDouble() ? 7 : value.isUnsigned() ? 12 : 8;
    return static_cast<uint64_t>(type) << 32 | value_class(value.toScalar(), dtype);
  };
  mix(state_word());
  for (size_t i = 0; i < call.arguments.size(); ++i) {
    const c10::IValue& argument = call.arguments[i];
    if (argument.isTensor()) {
      mix(kind_of(argument.toTensor()));
    } else if (argument.isTensorList()) {
      // A longer list of one kind is the same signature.
      c10::SmallVector<uint64_t, 16> kinds;
      for_each_tensor(argument, [&](const at::Tensor& tensor) { kinds.push_back(kind_of(tensor)); });
      if (!kinds.empty() && std::all_of(kinds.begin(), kinds.end(), [&](uint64_t kind) { return kind == kinds[0]; })) kinds.resize(1);
      mix(3);
      for (const uint64_t kind : kinds) mix(kind);
    } else if (is_optional_tensor_list(argument)) {
      mix(11);
      for (const auto& element : argument.toListRef()) mix(element.isTensor() ? kind_of(element.toTensor()) : 1);
    } else if (argument.isInt() && call.record.names_dtype[i]) {
      mix(16 + static_cast<uint64_t>(argument.toInt()));
    } else if (is_number(argument)) {
      mix(number_kind(argument));
    } else if (argument.isList() && !argument.isIntList() && !argument.toListRef().empty() && is_number(argument.toListRef()[0])) {
      // So is a longer list of numbers.
      uint64_t last = 13;
      mix(last);
      for (const auto& element : argument.toListRef()) {
        if (const uint64_t kind = number_kind(element); kind != last) mix(last = kind);
      }
    } else if (argument.isString()) {
      mix(std::hash<std::string>()(argument.toStringRef()));
    } else {
      mix(argument.isNone() ? 9 : 10);
    }
  }
  return hash;
}

void finish_header(Words& words, const TaskHeader& header) { std::memcpy(words.data(), &header, sizeof(header)); }

void mark_written(const Call& call, Staging& staging) {
  if (call.record.writes_in_secret) staging.mark_all_written();
  for (const int i : call.record.written) {
    for_each_member(call.arguments[i], [&](const at::Tensor& tensor) {
      if (is_device_tensor(tensor) && tensor.has_storage()) staging.mark_written(tensor.storage().unsafeGetStorageImpl(), false);
    });
  }
}

// A copy-on-write storage that the call writes gets memory of its own first.
void materialize_written(const Call& call) {
  const auto materialize = [](const at::Tensor& tensor) {
    if (!is_device_tensor(tensor) || !tensor.has_storage() || !c10::impl::cow::is_cow_data_ptr(tensor.storage().data_ptr())) return;
    const c10::DeviceGuard guard(tensor.device());  // core allocates the copy on the current device
    tensor.storage().mutable_data();
  };
  for (const int i : call.record.written) for_each_tensor(call.arguments[i], materialize);
  if (C10_LIKELY(!call.record.writes_in_secret)) return;
  for (const c10::IValue& argument : call.arguments) for_each_tensor(argument, materialize);
}

void count_route(const OpRecord& record, const Staging* staging) { op_stats::count(staging ? record.counter.staged : record.counter.engine); }

// Puts the task on the stream, between its staging copies where the device needs them.
void enqueue(const Call& call, Words& words, Staging* staging, at::ArrayRef<c10::IValue> fresh = {}, void (*cleanup)(void*) = nullptr,
             bool* accepted = nullptr) {
  if (staging) {
    mark_written(call, *staging);
    staging->copy_in();
  }
  if (C10_UNLIKELY(wants_ranges())) {
    auto* header = reinterpret_cast<TaskHeader*>(words.data());
    header->token = staging ? 0 : token_of(call.record);
    header->device = call.device;
    note_call(call.record, call.arguments, fresh, header->token);
  }
  launch_host_func(current_stream(call.device), call.record.name.c_str(), execute, words.data(), words.size() * sizeof(uint64_t),
                   cleanup);
  if (accepted) *accepted = true;
  if (staging) staging->copy_out();
  count_route(call.record, staging);
}

// The random numbers of a call. One that throws gives them back: bad input leaves the generator as it was.
class Reserved {
 public:
  explicit Reserved(const Call& call) : device_(call.device), draws_(call.record.generator >= 0) {
    if (C10_LIKELY(!draws_)) return;
    const c10::IValue& argument = call.arguments[call.record.generator];
    if (!argument.isNone()) generator_ = argument.toGenerator();
    numbers_ = reserve_philox(generator_, device_, kNumbers);
  }
  ~Reserved() {
    if (C10_UNLIKELY(draws_ && std::uncaught_exceptions() > exceptions_)) return_philox(generator_, device_, numbers_, kNumbers);
  }
  Reserved(const Reserved&) = delete;
  operator const PhiloxLaunch&() const { return numbers_; }

 private:
  static constexpr uint64_t kNumbers = 4;  // one counter step: every launch seeds a CPU generator of its own
  c10::DeviceIndex device_;
  bool draws_;
  int exceptions_ = std::uncaught_exceptions();
  std::optional<at::Generator> generator_;
  PhiloxLaunch numbers_ = {};
};

bool all_contiguous(const Call& call) {
  bool contiguous = true;
  for (const auto& argument : call.arguments) {
    for_each_tensor(argument, [&](const at::Tensor& tensor) {
      contiguous = contiguous && (!tensor.defined() || tensor.is_contiguous(tensor.suggest_memory_format()));
    });
  }
  return contiguous;
}

// Types that kernels have for some sizes and dimensions and not for others, because paths that move bytes take every type.
bool is_rare(c10::ScalarType type) { return c10::isBarebonesUnsignedType(type) || c10::isFloat8Type(type) || type == c10::ScalarType::ComplexHalf; }

// Whether an argument that the call reads has no element or a rare type: what kernels accept then is a matter of its own.
bool is_special(const Call& call) {
  bool special = false;
  for (size_t i = 0; i < call.arguments.size(); ++i) {
    if (call.record.op.schema().arguments()[i].is_out()) continue;
    for_each_tensor(call.arguments[i], [&](const at::Tensor& tensor) {
      special = special || (tensor.defined() && (tensor.numel() == 0 || is_rare(tensor.scalar_type())));
    });
  }
  return special;
}

// Whether the call has made or written an element. Kernels that take no tensor look at a dtype only then, so that a call for nothing
// (linspace of no steps) says nothing of the next one.
bool made_elements(const Call& call, const WaitedCall& waited) {
  bool made = false;
  const auto look = [&made](const at::Tensor& tensor) { made = made || (tensor.defined() && tensor.numel() != 0); };
  for (const c10::IValue& result : waited.results) for_each_tensor(result, look);
  for (int i : call.record.written) for_each_tensor(waited.arguments[i], look);
  return made;
}

// Launches with known result metadata; replaces the arguments on the stack by the results.
void run_known(const Call& call, const MemoEntry& entry, Words& words, Encoder& encoder, Staging* staging, Stack* stack) {
  const OpRecord& record = call.record;
  const bool by_out = record.out != nullptr && (!record.out_needs_contiguous || all_contiguous(call));
  c10::SmallVector<c10::IValue, 4> results;
  uint32_t fresh = 0;
  for (int i = 0; i < record.returns; ++i) {
    if (record.return_alias[i] >= 0) {
      results.push_back(call.arguments[record.return_alias[i]]);
      if (!by_out) words.push_back(0);  // Tag::none: nothing to copy for this one
      continue;
    }
    const ResultMeta& meta = entry.results[i];
    if (meta.dtype == c10::ScalarType::Undefined) {
      results.push_back(at::Tensor());
      words.push_back(0);
    } else {
      at::Tensor result = make_strided(call.device, meta.sizes, meta.strides, c10::scalarTypeToTypeMeta(meta.dtype), meta.bytes);
      encoder.add_tensor(result);
      if (staging) staging->mark_written(result.storage().unsafeGetStorageImpl(), true);
      results.push_back(std::move(result));
    }
    ++fresh;
  }
  const bool any_fresh = fresh != 0;
  TaskHeader header = {};
  header.record = by_out ? record.out : &record;
  header.state = capture_launch_state();
  header.arguments = static_cast<uint32_t>(record.arguments);
  header.results = any_fresh ? static_cast<uint32_t>(record.returns) : 0;
  header.into_blocks = any_fresh && !by_out;
  header.full_dispatch = encoder.full_dispatch();
  finish_header(words, header);
  enqueue(call, words, staging, results);
  torch::jit::drop(*stack, record.arguments);
  for (auto& result : results) stack->push_back(std::move(result));
}

// Learns the entry from a waited call; null when some result has no metadata to remember.
std::shared_ptr<MemoEntry> learn(const Call& call, const WaitedCall& waited, const ResultAdopter& adopter,
                                 std::vector<std::pair<int, ResultMeta>> resized, const std::vector<int64_t>& before) {
  // Growing an out that holds something is warned of by the kernel itself, each in its own words: such a call is always waited.
  for (const auto& [index, meta] : resized) {
    if (before[index] != 0) return nullptr;
  }
  if (adopter.aliased()) return nullptr;
  auto entry = std::make_shared<MemoEntry>();
  entry->resized = std::move(resized);
  for (int i = 0; i < call.record.returns; ++i) {
    if (call.record.return_alias[i] >= 0) {
      entry->results.emplace_back();
      continue;
    }
    if (!waited.results[i].isTensor()) return nullptr;
    const at::Tensor& result = waited.results[i].toTensor();
    if (result.defined() && (result.layout() != at::kStrided || result.is_quantized() || result.is_nested() || result.is_conj() || result.is_neg() || result._is_zerotensor())) return nullptr;
    entry->results.push_back(meta_of(result));
  }
  return entry;
}

void throw_cannot_travel(const Call& call) {
  TORCH_CHECK_NOT_IMPLEMENTED(false, "Could not run '", call.record.name,
                              "' on openreg: an argument has a kind or layout that its kernels do not take (streams and Python objects "
                              "among them).");
}

// Runs the call on its stream and waits for it.
void run_waited(const Call& call, Words& words, const Encoder& encoder, Staging* staging, const Key* key, Stack* stack) {
  const OpRecord& record = call.record;
  refuse_to_wait_in_capture(current_stream(call.device), record.name.c_str());
  // Where only the engine does not know the result yet, the program has not asked for a wait.
  const bool asked = !record.memo || counts_mask(call);
  if (asked) before_host_wait(record.name.c_str());
  const auto inferred = key != nullptr && checking_metadata() ? infer(record, call.arguments) : nullptr;
  auto waited = std::make_shared<WaitedCall>();
  waited->objects = encoder.objects();
  TaskHeader header = {};
  header.record = &record;
  header.waited = new std::shared_ptr<WaitedCall>(waited);  // the task's, once the stream has accepted it
  bool accepted = false;
  header.state = capture_launch_state();
  header.arguments = static_cast<uint32_t>(record.arguments);
  header.full_dispatch = encoder.full_dispatch();
  finish_header(words, header);
  try {
    enqueue(call, words, staging, {}, release_waited, &accepted);
  } catch (...) {
    if (!accepted) delete header.waited;
    throw;
  }
  op_stats::count(record.counter.waited);
  {
    std::optional<RuntimeWait> own;
    if (!asked) own.emplace();
    synchronize_stream(current_stream(call.device));
  }
  if (!waited->ran) throw_skipped(record.name.c_str());
  for (const c10::Warning& warning : waited->warnings) c10::warn(warning);
  if (waited->exception) std::rethrow_exception(waited->exception);

  ResultAdopter adopter(call.device, call.arguments, *waited, staging);
  std::vector<std::pair<int, ResultMeta>> resized;
  std::vector<int64_t> elements_before(call.arguments.size());
  for (int i : record.written) {
    if (!call.arguments[i].isTensor()) continue;
    elements_before[i] = call.arguments[i].toTensor().defined() ? call.arguments[i].toTensor().numel() : 0;
    const at::Tensor& twin = waited->arguments[i].toTensor();
    if (write_back(call.arguments[i].toTensor(), twin, call.device, staging, adopter)) {
      resized.emplace_back(i, twin.layout() == at::kStrided ? meta_of(twin) : ResultMeta());
    }
  }
  c10::SmallVector<c10::IValue, 4> results;
  for (int i = 0; i < record.returns; ++i) {
    const bool keeps_cpu = i == 1 && record.name == "aten::_pack_padded_sequence";  // batch sizes are a CPU tensor on every device
    if (record.return_alias[i] >= 0) {
      results.push_back(call.arguments[record.return_alias[i]]);
    } else {
      results.push_back(keeps_cpu ? waited->results[i] : adopter.adopt(waited->results[i]));
    }
  }
  if (adopter.copied()) op_stats::count(record.counter.copied);
  if (key != nullptr) {
    auto entry = learn(call, *waited, adopter, std::move(resized), elements_before);
    if (entry && inferred) check_metadata(record, *inferred, *entry);
    // A kernel that warns is waited for every time, so that it warns every time.
    if (entry && waited->warnings.empty()) {
      store_memo(*key, std::move(entry));
      if (can_infer(record) && !is_special(call) && made_elements(call, *waited)) note_signature(signature_of(call));
    }
  }
  torch::jit::drop(*stack, record.arguments);
  for (auto& result : results) stack->push_back(std::move(result));
}

// CPU operands that are too large to travel with the launch go to the device first.
void move_cpu_operands(const Call& call, Stack* stack) {
  const c10::Device device(kDeviceType, call.device);
  const size_t base = stack->size() - call.arguments.size();
  for (size_t i = 0; i < call.arguments.size(); ++i) {
    c10::IValue& argument = (*stack)[base + i];
    if (argument.isTensor() && argument.toTensor().defined() && argument.toTensor().is_cpu()) {
      argument = argument.toTensor().to(device);
    } else if (is_optional_tensor_list(argument)) {
      c10::List<std::optional<at::Tensor>> moved;
      for (const auto& element : argument.toListRef()) {
        moved.push_back(element.isNone() ? std::nullopt : std::optional<at::Tensor>(element.toTensor().defined() ? element.toTensor().to(device) : at::Tensor()));
      }
      argument = std::move(moved);
    }
  }
}

// Whether an index tensor lies in pinned memory, which a copy of the stream may still fill: only a copy to the device comes behind that.
bool has_pinned_index(const Call& call) {
  for (const c10::IValue& argument : call.arguments) {
    if (!is_optional_tensor_list(argument)) continue;
    for (const c10::IValue& element : argument.toListRef()) {
      if (element.isTensor() && element.toTensor().defined() && element.toTensor().is_cpu() && is_pinned(element.toTensor().storage().data())) return true;
    }
  }
  return false;
}

// Written arguments that the remembered call left with other sizes get them now, with core's warning for a non-empty one.
void resize_written(const Call& call, const MemoEntry& entry) {
  for (const auto& [index, meta] : entry.resized) {
    const at::Tensor& tensor = call.arguments[index].toTensor();
    at::native::resize_output(tensor, meta.sizes);
    if (tensor.strides() != at::IntArrayRef(meta.strides)) tensor.unsafeGetTensorImpl()->set_sizes_and_strides(meta.sizes, meta.strides, tensor.storage_offset());
  }
}

// Packed parameters live in host memory and may keep the tensors that they are made of, so they are made of copies on the host.
void pack_on_host(const OpRecord& record, Stack* stack) {
  for (size_t i = stack->size() - record.arguments; i < stack->size(); ++i) {
    c10::IValue& argument = (*stack)[i];
    if (argument.isTensor() && is_device_tensor(argument.toTensor())) argument = argument.toTensor().cpu();
  }
  count_route(record, nullptr);
  op_stats::count(record.counter.waited);
  record.op.callBoxed(stack);
}

}  // namespace

void run(const c10::OperatorHandle& op, Stack* stack) {
  const OpRecord& record = record_of(op);
  if (C10_UNLIKELY(record.packs)) return pack_on_host(record, stack);
  if (C10_UNLIKELY(record.foreach)) {
    const std::vector<at::Tensor> self = torch::jit::last(*stack, record.arguments)[0].toTensorVector();
    if (run_by_device(record, self, stack)) return;
    bump_versions(self);
  }
  Call call{record, torch::jit::last(*stack, record.arguments)};
  TORCH_CHECK_NOT_IMPLEMENTED(record.supported && !(record.view && is_dense_view(call)), "Could not run '", record.name,
                              "' on openreg: it has no kernel for this device; torch.library.register_kernel('", record.op.schema().name(),
                              "', 'openreg') registers one.");
  call.device = find_device(call);
  check_device(call.device);
  check_cpu_operands(call);
  materialize_written(call);

  const Reserved random(call);
  const bool use_memo = record.memo && !counts_mask(call);
  // In a capture nothing can wait, so a new signature is taken on trust there, and not remembered: its errors come with the replay.
  const bool capturing = capture_of(current_stream(call.device)) != 0;
  const bool always_wait = checking_metadata() || (launch_blocking() && !capturing);
  bool moved = record.takes_cpu_tensors && !capturing && has_pinned_index(call);
  if (moved) move_cpu_operands(call, stack);
  for (;;) {
    Words words(kHeaderWords);
    Key key;
    start_key(key, record);
    std::optional<Staging> staging;
    if (!has_kernel_view(call.device)) staging.emplace(current_stream(call.device));
    Staging* staged = staging ? &*staging : nullptr;
    Encoder encoder(call.device, words, use_memo ? &key : nullptr, staged);
    if (!encode(call, encoder, random)) {
      if (moved) throw_cannot_travel(call);
      moved = true;
      move_cpu_operands(call, stack);
      continue;
    }
    if (!use_memo || encoder.full_dispatch()) return run_waited(call, words, encoder, staged, nullptr, stack);
    std::shared_ptr<const MemoEntry> entry = always_wait ? nullptr : find_memo(key);
    if (entry == nullptr && can_infer(record) && !always_wait && !(encoder.shares_storage() && !record.written.empty()) &&
        !is_special(call) && !writes_overlapping(call) && (capturing || signature_seen(signature_of(call)))) {
      if (auto inferred = infer(record, call.arguments)) {
        if (!capturing) store_memo(key, inferred);
        entry = std::move(inferred);
      }
    }
    if (entry == nullptr) return run_waited(call, words, encoder, staged, &key, stack);
    if (!entry->resized.empty()) {
      resize_written(call, *entry);
      Words resized_words(kHeaderWords);
      std::optional<Staging> restaging;
      if (staged) restaging.emplace(current_stream(call.device));
      Encoder again(call.device, resized_words, nullptr, restaging ? &*restaging : nullptr);
      encode(call, again, random);
      return run_known(call, *entry, resized_words, again, restaging ? &*restaging : nullptr, stack);
    }
    return run_known(call, *entry, words, encoder, staged, stack);
  }
}

void boxed(const c10::OperatorHandle& op, c10::DispatchKeySet, Stack* stack) { run(op, stack); }

void launch(const c10::OperatorHandle& op, Stack arguments) {
  const OpRecord& record = record_of(op);
  Call call{record, arguments};
  call.device = find_device(call);
  Words words(kHeaderWords);
  std::optional<Staging> staging;
  if (!has_kernel_view(call.device)) staging.emplace(current_stream(call.device));
  Encoder encoder(call.device, words, nullptr, staging ? &*staging : nullptr);
  if (!encode(call, encoder, Reserved(call)) || !encoder.objects().empty()) throw_cannot_travel(call);
  TaskHeader header = {};
  header.record = &record;
  header.state = capture_launch_state();
  header.arguments = static_cast<uint32_t>(record.arguments);
  header.full_dispatch = encoder.full_dispatch();
  finish_header(words, header);
  enqueue(call, words, staging ? &*staging : nullptr);
}

c10::OperatorHandle find_op(const char* name, const char* overload) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, overload);
}

}  // namespace openreg::engine
