// Noting the operands of engine calls.
#include "aten/engine/operands.h"

#include <algorithm>
#include <iterator>
#include <string_view>

#include "aten/engine/arguments.h"
#include "aten/engine/chosen.h"
#include "aten/operands.h"
#include "aten/tensor.h"
#include "runtime/sanitizer.h"

namespace openreg::engine {

namespace {

std::string_view base_name(const OpRecord& record) {
  std::string_view name = record.name;
  name.remove_prefix(name.find("::") + 2);
  return name.substr(0, name.find('.'));
}

template <size_t count>
bool is_one_of(std::string_view name, const std::string_view (&names)[count]) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

// In-place operators that do not look at what they overwrite.
bool overwrites(std::string_view name) {
  static constexpr std::string_view names[] = {"fill_",   "zero_",       "copy_",     "random_", "uniform_", "normal_",        "exponential_", "bernoulli_",
                                               "cauchy_", "log_normal_", "geometric_", "eye_",   "zero",     "_foreach_zero_", "_foreach_copy_"};
  return is_one_of(name, names);
}

// Of the operators that touch the elements that data choose: those that compute with what these had before.
bool accumulates(const OpRecord& record, std::string_view name, at::ArrayRef<c10::IValue> arguments) {
  static constexpr std::string_view always[] = {"index_add_", "scatter_add_", "scatter_reduce_", "index_reduce_"};
  bool found = is_one_of(name, always);
  const auto& schema = record.op.schema().arguments();
  for (size_t i = 0; i < schema.size() && i < arguments.size(); ++i) {
    const std::string& argument = schema[i].name();
    if (argument == "accumulate") found = arguments[i].toBool();
    if (argument == "include_self") found = found && arguments[i].toBool();
    if (argument == "reduce" && name == "scatter_") found = true;
  }
  return found;
}

// Arguments that are written without being read, though they are no `out`.
bool is_result(const OpRecord& record, std::string_view name, size_t argument, at::ArrayRef<c10::IValue> arguments) {
  if (name == "_fused_sgd_") {  // the first step makes the momentum buffers
    const auto& schema = record.op.schema();
    const auto first = schema.argumentIndexWithName("is_first_step");
    return schema.arguments()[argument].name() == "momentum_buffer_list" && first && arguments[*first].toBool();
  }
  if (name == "_cummax_helper" || name == "_cummin_helper") return argument == 1 || argument == 2;
  return (name == "rrelu_with_noise" || name == "rrelu_with_noise_") && argument == 1;
}

// Operators that move values, or choose among them, and compute nothing: what they read may be unwritten in part.
bool moves(std::string_view name) {
  static constexpr std::string_view names[] = {"copy_", "cat",    "_cat", "stack",        "_stack",      "where",       "tril",     "tril_",      "triu",           "triu_", "flip",
                                               "roll",  "repeat", "constant_pad_nd", "masked_fill", "masked_fill_", "clone", "masked_select", "index_put", "_to_copy", "_foreach_copy_"};
  return is_one_of(name, names) || (name.size() > 5 && name.substr(name.size() - 5) == "_copy");
}

// The operators of the addmm family do not read their first argument when beta is zero.
bool ignores_first(const OpRecord& record, std::string_view name, at::ArrayRef<c10::IValue> arguments) {
  static constexpr std::string_view names[] = {"addmm", "addmm_", "addmv", "addmv_", "addr", "addr_", "baddbmm", "baddbmm_", "addbmm", "addbmm_"};
  if (!is_one_of(name, names)) return false;
  const auto& schema = record.op.schema().arguments();
  for (size_t i = 0; i < schema.size() && i < arguments.size(); ++i) {
    if (schema[i].name() == "beta") return arguments[i].isScalar() && !arguments[i].isComplexDouble() && arguments[i].toScalar().toDouble() == 0;
  }
  return false;
}

// Running statistics, which these operators write without a word of it in their schema.
bool written_in_secret(const OpRecord& record, std::string_view name, size_t argument) {
  if (name != "native_batch_norm" && name != "batch_norm_update_stats") return false;
  const std::string& argument_name = record.op.schema().arguments()[argument].name();
  return argument_name == "running_mean" || argument_name == "running_var";
}

bool is_training(const OpRecord& record, at::ArrayRef<c10::IValue> arguments) {
  const auto& schema = record.op.schema().arguments();
  for (size_t i = 0; i < schema.size(); ++i) {
    if (schema[i].name() == "training") return arguments[i].toBool();
  }
  return true;
}

// Tensors whose elements sizes and strides do not tell touch their whole storage.
void note(const at::Tensor& tensor, Touch touch, uint32_t flags, uint64_t token = 0) {
  if (!tensor.is_nested() && !tensor.is_quantized()) return note_tensor(tensor, touch, flags, token);
  note_operand(tensor.storage().data(), at::kByte, static_cast<int64_t>(tensor.storage().nbytes()), int64_t{1}, touch, flags & OPENREG_OPERAND_MOVED);
}

template <class Visit>
void for_each_device_tensor(const c10::IValue& value, Visit&& visit) {
  for_each_member(value, [&](const at::Tensor& tensor) {
    if (is_device_tensor(tensor) && tensor.has_storage() && !tensor._is_zerotensor()) visit(tensor);
  });
}

}  // namespace

uint64_t token_of(const OpRecord& record) { return tells(choice_of(record.name)) && sanitizing() != 0 ? layers::sanitizer::new_token() : 0; }

void note_call(const OpRecord& record, at::ArrayRef<c10::IValue> arguments, at::ArrayRef<c10::IValue> results, uint64_t token) {
  forget_operands();
  const std::string_view name = base_name(record);
  const Choice choice = choice_of(record.name);
  const uint32_t moved = moves(name) ? OPENREG_OPERAND_MOVED : 0;
  const bool blind_first = ignores_first(record, name, arguments);
  const bool accumulating = choice != Choice::none && accumulates(record, name, arguments);
  for (size_t i = 0; i < arguments.size(); ++i) {
    const bool chosen = choice != Choice::none && i == 0;
    const uint32_t flags = !chosen ? moved : OPENREG_OPERAND_SOME | (accumulating ? 0 : OPENREG_OPERAND_MOVED);
    bool written = std::find(record.written.begin(), record.written.end(), static_cast<int>(i)) != record.written.end();
    const bool is_out = record.op.schema().arguments()[i].is_out();
    const bool secret = written_in_secret(record, name, i);
    if (secret && is_training(record, arguments)) written = true;
    const bool read = !is_out && !(written && overwrites(name)) && !is_result(record, name, i, arguments) && !(i == 0 && blind_first);
    for_each_device_tensor(arguments[i], [&](const at::Tensor& tensor) {
      if (read) note(tensor, Touch::reads, flags, chosen ? token : 0);
      if (written) note(tensor, Touch::writes, flags, chosen ? token : 0);
    });
  }
  for (size_t i = 0; i < results.size(); ++i) {
    if (record.return_alias[i] >= 0) continue;  // an argument
    for_each_device_tensor(results[i], [&](const at::Tensor& tensor) { note(tensor, Touch::writes, moved); });
  }
}

}  // namespace openreg::engine
