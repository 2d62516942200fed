// Operator records.
#include "aten/engine/op_record.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "aten/engine/core_meta.h"
#include "aten/engine/infer.h"

namespace openreg::engine {

namespace {

// Operators whose result metadata follow from argument metadata; written by tests/aten/generate_memo_ops.py.
const std::unordered_set<std::string_view>& memo_ops() {
  static const auto* names = new std::unordered_set<std::string_view>{
#include "aten/engine/memo_ops.inc"
  };
  return *names;
}

struct Records {
  std::mutex mutex;  // LOCK: everything below
  std::unordered_map<const c10::FunctionSchema*, OpRecord*> by_schema;
  std::unordered_map<std::string, std::vector<c10::OperatorName>> overloads;
};

Records& records() {
  static Records* leaked = new Records;
  return *leaked;
}

// How many operators have been removed: what a thread remembers of schemas is good while the number stays.
std::atomic<uint64_t> removed_operators{0};

// Called with the dispatcher's lock, before the operator goes. Tasks may still hold the record, which stays.
class RemovalListener final : public c10::OpRegistrationListener {
 public:
  void onOperatorRegistered(const c10::OperatorHandle&) override {}
  void onOperatorDeregistered(const c10::OperatorHandle& op) override {
    std::lock_guard<std::mutex> lock(records().mutex);
    records().by_schema.erase(&op.schema());
    records().overloads.clear();
    removed_operators.fetch_add(1, std::memory_order_release);
  }
};

// LOCK: records().mutex is held.
const std::vector<c10::OperatorName>& overloads_of(const std::string& base) {
  auto& index = records().overloads;
  if (index.empty()) {
    for (const auto& name : c10::Dispatcher::singleton().getAllOpNames()) index[name.name].push_back(name);
  }
  return index[base];
}

bool same_argument(const c10::Argument& a, const c10::Argument& b) { return a.name() == b.name() && *a.type() == *b.type(); }

// Whether `out` takes the arguments of `functional` and then one written tensor per return.
bool is_out_of(const c10::FunctionSchema& out, const c10::FunctionSchema& functional) {
  const auto& a = functional.arguments();
  const auto& b = out.arguments();
  if (b.size() != a.size() + functional.returns().size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!same_argument(a[i], b[i]) || b[i].alias_info() != nullptr) return false;
  }
  for (size_t i = a.size(); i < b.size(); ++i) {
    if (!b[i].is_out() || b[i].type()->kind() != c10::TypeKind::TensorType) return false;
  }
  return true;
}

OpRecord* make_record(const c10::OperatorHandle& op);

// LOCK: records().mutex is held.
const OpRecord* record_locked(const c10::OperatorHandle& op) {
  OpRecord*& entry = records().by_schema[&op.schema()];
  if (entry == nullptr) entry = make_record(op);
  return records().by_schema[&op.schema()];
}

const OpRecord* find_out(const c10::OperatorHandle& functional) {
  for (const auto& name : overloads_of(functional.operator_name().name)) {
    const auto candidate = c10::Dispatcher::singleton().findSchema(name);
    if (candidate && candidate->hasKernelForDispatchKey(c10::DispatchKey::CPU) && is_out_of(candidate->schema(), functional.schema())) {
      return record_locked(*candidate);
    }
  }
  return nullptr;
}

bool returns_tensors(const c10::FunctionSchema& schema) {
  for (const auto& result : schema.returns()) {
    if (result.type()->kind() != c10::TypeKind::TensorType) return false;
  }
  return true;
}

// Kernels that resize their outputs to other sizes than core's meta function says.
bool sizes_outs_itself(std::string_view name) { return name.rfind("aten::isin.Scalar_Tensor", 0) == 0; }

// Kernels that give their outputs other strides than core's meta function says.
bool restrides_outputs(std::string_view name) {
  return name.find("replication_pad") != std::string_view::npos || name.find("reflection_pad") != std::string_view::npos;
}

// Whether the operator fills tensors that the caller gives, and returns nothing else.
bool is_out_variant(const OpRecord& record) {
  if (record.written.empty() || !record.op.hasKernelForDispatchKey(c10::DispatchKey::CPU)) return false;
  for (const int i : record.written) {
    if (!record.op.schema().arguments()[i].is_out()) return false;
  }
  return std::all_of(record.return_alias.begin(), record.return_alias.end(), [](int alias) { return alias >= 0; });
}

// Structured operators fill outs of the final size as they are. Others may resize them on the way or take them for scratch, but these
// do not.
bool has_faithful_out(std::string_view name) {
  return name == "aten::native_batch_norm" || name == "aten::nll_loss2d_forward" || name == "aten::max_pool2d_with_indices_backward" ||
         name == "aten::index_select";
}

// Decompositions that raise when they do not converge or meet a value that they cannot take: like those of a GPU's libraries, a call
// waits for that, so that the error is the CPU's.
bool raises_by_value(std::string_view name) {
  return name == "aten::_linalg_svd" || name == "aten::_linalg_eigh" || name == "aten::linalg_eig" || name == "aten::linalg_lstsq" ||
         name == "aten::_linalg_eigvals" || name == "aten::cholesky";
}

OpRecord* make_record(const c10::OperatorHandle& op) {
  auto* record = new OpRecord(op);
  const bool functional = record->written.empty() && !record->view && record->returns > 0;
  const bool structured = op.hasKernelForDispatchKey(c10::DispatchKey::CompositeExplicitAutogradNonFunctional) && returns_tensors(op.schema());
  const bool in_place = record->memo && !record->written.empty() && returns_tensors(op.schema());
  if ((structured || in_place || is_out_variant(*record)) && !restrides_outputs(record->name)) record->meta = core_meta_kernel(op);
  record->shape = shapes::find(record->name);
  if (sizes_outs_itself(record->name)) {
    record->memo = false;
    record->meta.reset();
    return record;
  }
  record->memo = (record->memo || can_infer(*record)) && !raises_by_value(op.operator_name().name);
  record->out_needs_contiguous = !structured;
  if (functional && (structured || has_faithful_out(record->name))) record->out = find_out(op);
  return record;
}

bool known_namespace(std::string_view name) {
  for (std::string_view known : {"aten::", "quantized::", "_quantized::", "prepacked::", "sparse::"}) {
    if (name.substr(0, known.size()) == known) return true;
  }
  return false;
}

}  // namespace

OpRecord::OpRecord(const c10::OperatorHandle& handle)
    : op(handle), name(c10::toString(handle.operator_name())), counter(op_stats::counter(name)) {
  const c10::FunctionSchema& schema = op.schema();
  const std::string& base = op.operator_name().name;
  // Numbers that shape the results, or that decide whether the kernel takes the call.
  static const std::unordered_set<std::string> kReadNumbers = {"aten::arange",    "aten::range",
                                                               "aten::huber_loss", "aten::huber_loss_backward",
                                                               "aten::renorm",     "aten::linalg_vector_norm",
                                                               "aten::histogram", "aten::multi_margin_loss",
                                                               "aten::multi_margin_loss_backward"};
  const bool scalars_shape = kReadNumbers.count(base) != 0;
  arguments = static_cast<int>(schema.arguments().size());
  returns = static_cast<int>(schema.returns().size());
  for (int i = 0; i < arguments; ++i) {
    const auto& argument = schema.arguments()[i];
    if (argument.alias_info() != nullptr && argument.alias_info()->isWrite()) written.push_back(i);
    const auto& type = argument.type();
    const auto* real = argument.real_type()->castRaw<c10::OptionalType>();
    names_dtype.push_back((real ? real->getElementType() : argument.real_type())->kind() == c10::TypeKind::ScalarTypeType);
    const auto* optional = type->castRaw<c10::OptionalType>();
    c10::TypePtr element = optional ? optional->getElementType() : type;
    if (const auto* list = element->castRaw<c10::ListType>()) element = list->getElementType();
    if (element->kind() == c10::TypeKind::GeneratorType) generator = i;
    if (type->kind() == c10::TypeKind::TensorType && argument.name() == "scalars") packed_scalars = i;
    const bool number = element->kind() == c10::TypeKind::NumberType || element->kind() == c10::TypeKind::FloatType;
    by_value.push_back(scalars_shape || !number);
  }
  for (const auto& result : schema.returns()) {
    int alias = -1;
    packs = packs || result.type()->kind() == c10::TypeKind::ClassType;
    if (result.alias_info() != nullptr) {
      for (int i : written) {
        if (schema.arguments()[i].alias_info()->beforeSets() == result.alias_info()->beforeSets()) alias = i;
      }
      if (alias < 0) view = true;
    }
    return_alias.push_back(alias);
  }
  for (const auto key : {c10::DispatchKey::CPU, c10::DispatchKey::SparseCPU, c10::DispatchKey::SparseCsrCPU, c10::DispatchKey::QuantizedCPU,
                         c10::DispatchKey::NestedTensorCPU}) {
    supported = supported || op.hasComputedKernelForDispatchKey(key);
  }
  supported = supported && known_namespace(name);
  fused = base.rfind("aten::_fused_", 0) == 0;
  foreach = base.rfind("aten::_foreach_", 0) == 0 && written.size() == 1 && written[0] == 0 && returns == 0;
  takes_masks = base == "aten::index" || base == "aten::index_put_" || base == "aten::_index_put_impl_";
  writes_in_secret = base.rfind("aten::native_batch_norm", 0) == 0 || base == "aten::batch_norm_update_stats";
  reads_requires_grad = base == "aten::_sparse_mm_reduce_impl";
  scratch_first = base == "aten::native_batch_norm_backward" ? 1 : 0;
  memo = memo_ops().count(name) != 0;
  for (const char* taking : {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl", "aten::_index_put_impl_",
                             "aten::_pack_padded_sequence", "aten::_ctc_loss", "aten::_ctc_loss_backward"}) {
    takes_cpu_tensors = takes_cpu_tensors || base == taking;
  }
}

const OpRecord& record_of(const c10::OperatorHandle& op) {
  struct Slot {
    const c10::FunctionSchema* key = nullptr;
    const OpRecord* record = nullptr;
    uint64_t removed = 0;
  };
  // Direct-mapped, so that the hot path takes no lock; schemas live as long as their operators.
  static thread_local std::array<Slot, 512> cache;
  const c10::FunctionSchema* key = &op.schema();
  const uint64_t removed = removed_operators.load(std::memory_order_acquire);
  Slot& slot = cache[(reinterpret_cast<uintptr_t>(key) >> 6) % cache.size()];
  if (__builtin_expect(slot.key != key || slot.removed != removed, 0)) {
    std::lock_guard<std::mutex> lock(records().mutex);
    slot = {key, record_locked(op), removed};
  }
  return *slot.record;
}

void follow_removed_operators() {
  static auto* const listening = new c10::RegistrationHandleRAII(c10::Dispatcher::singleton().addRegistrationListener(std::make_unique<RemovalListener>()));
  (void)listening;
}

}  // namespace openreg::engine
