// What the engine knows of one operator, worked out once from its schema.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "aten/engine/shapes/shape.h"
#include "aten/op_stats.h"

namespace openreg::engine {

struct OpRecord {
  explicit OpRecord(const c10::OperatorHandle& op);

  c10::OperatorHandle op;
  const std::string name;  // "aten::add.Tensor"; its c_str() lives for ever
  op_stats::Counter& counter;
  int arguments = 0, returns = 0;
  std::vector<int> written;        // arguments that the operator writes
  std::vector<int> return_alias;   // per return: the written argument that it is, or -1 for a new value
  bool view = false;               // a return aliases an argument that is not written
  bool packs = false;              // a return is an object of a C++ class that may keep its arguments
  bool supported = false;          // the CPU has a kernel, in a namespace whose kernels are C++ and may run on a worker
  bool takes_cpu_tensors = false;  // as on any accelerator, some operands may be CPU tensors with dimensions (index tensors, lengths)
  bool memo = false;               // result metadata follow from argument metadata (memo_ops.inc, or they can be inferred)
  std::vector<char> by_value;      // per argument: its value shapes the results (Scalars and floats mostly do not)
  std::vector<char> names_dtype;   // per argument: it is a dtype, which travels as an integer
  bool takes_masks = false;        // an index that is a mask makes the results' sizes, or whether the values fit, depend on data
  bool fused = false;              // an optimizer in one call: its learning rate may be a CPU tensor with one element
  int packed_scalars = -1;         // the argument that is a CPU tensor of one number per list entry, or -1
  bool foreach = false;            // an in-place operator of the foreach family
  bool reads_requires_grad = false;
  bool writes_in_secret = false;   // it writes running statistics without a word of it in its schema
  int scratch_first = 0;           // how many tensors like the first result the CPU's kernel allocates before it (see preset.h)
  int generator = -1;              // the argument that is a Generator, or -1
  bool out_needs_contiguous = false;  // `out` below is right for contiguous arguments only
  const OpRecord* out = nullptr;   // the out= overload with a CPU kernel of its own, whose arguments are these plus one out per return
  std::optional<c10::KernelFunction> meta;  // core's C++ meta kernel, where its answer is the CPU's
  shapes::Function shape = nullptr;         // this project's own, which comes before `meta`
};

// The record of an operator; made at first use, lives for ever, also when the operator is removed. Any thread; hot.
const OpRecord& record_of(const c10::OperatorHandle& op);

// From now on an operator that is removed (torch.library destroys what it has defined) loses its record: another one may come to lie where it
// lay. Once, at load.
void follow_removed_operators();

}  // namespace openreg::engine
