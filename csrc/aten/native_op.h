// What operators with a device kernel of their own share: the counter, the way to the engine for calls that the kernel does not cover,
// the kernel objects, and the conditions under which plain pointers say all about a tensor.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/stack.h>
#include <c10/core/impl/COW.h>

#include <atomic>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "aten/engine/engine.h"
#include "aten/kernels/kernel.h"
#include "aten/op_stats.h"
#include "aten/operands.h"
#include "aten/tensor.h"
#include "runtime/driver.h"
#include "runtime/launch.h"

namespace openreg {

// One operator, looked up once: keep it in a function's static. `name` and `overload` as in native_functions.yaml.
class NativeOp {
 public:
  NativeOp(const char* name, const char* overload)
      : text_(overload[0] == '\0' ? std::string(name) : std::string(name) + "." + overload),
        handle_(engine::find_op(name, overload)),
        counter_(op_stats::counter(text_)) {}

  const char* name() const { return text_.c_str(); }
  void count_native() { op_stats::count(counter_.native); }
  void count_staged() { op_stats::count(counter_.staged); }

  // Runs the call on the engine, which counts it. An operator that returns an argument returns it by the caller: Return is void then.
  template <class Return, class... Args>
  Return on_engine(const Args&... args) const {
    torch::jit::Stack stack;
    if (C10_UNLIKELY(wants_ranges())) forget_operands();  // what an attempt at a kernel has noted
    stack.reserve(sizeof...(Args));
    torch::jit::push(stack, args...);
    engine::run(handle_, &stack);
    if constexpr (!std::is_void_v<Return>) return Results<Return>::take(stack);
  }

 private:
  template <class Return>
  struct Results {
    static Return take(torch::jit::Stack& stack) { return std::move(stack[0]).template to<Return>(); }
  };
  template <class... Parts>
  struct Results<std::tuple<Parts...>> {
    static std::tuple<Parts...> take(torch::jit::Stack& stack) { return take(stack, std::index_sequence_for<Parts...>()); }
    template <size_t... places>
    static std::tuple<Parts...> take(torch::jit::Stack& stack, std::index_sequence<places...>) {
      return {std::move(stack[places]).template to<Parts>()...};
    }
  };

  std::string text_;
  c10::OperatorHandle handle_;
  op_stats::Counter& counter_;
};

// A kernel object that is made at the first launch and lives as long as the process. Zero-initialised: fit for tables.
class KernelSlot {
 public:
  // The kernel, or null when it was not made yet. Hot.
  Kernel* get() const { return kernel_.load(std::memory_order_acquire); }
  // Makes the kernel; several threads may, one wins.
  Kernel* make(const std::string& name, kernels::Function function) {
    auto* text = new std::string(name);
    auto* made = new Kernel(text->c_str(), function);
    Kernel* expected = nullptr;
    if (kernel_.compare_exchange_strong(expected, made)) return made;
    delete made;
    delete text;
    return expected;
  }

 private:
  std::atomic<Kernel*> kernel_{nullptr};
};

// Whether kernels have the type, and which it is.
inline bool kernel_dtype(c10::ScalarType type, kernels::DType* dtype) {
  using c10::ScalarType;
  using kernels::DType;
  static_assert(int(ScalarType::Byte) == int(DType::u8) && int(ScalarType::Char) == int(DType::i8) &&
                int(ScalarType::Short) == int(DType::i16) && int(ScalarType::Int) == int(DType::i32) &&
                int(ScalarType::Long) == int(DType::i64) && int(ScalarType::Half) == int(DType::f16) &&
                int(ScalarType::Float) == int(DType::f32) && int(ScalarType::Double) == int(DType::f64) &&
                int(ScalarType::ComplexFloat) == int(DType::c64) && int(ScalarType::ComplexDouble) == int(DType::c128) &&
                int(ScalarType::Bool) == int(DType::boolean) && int(ScalarType::BFloat16) == int(DType::bf16));
  constexpr unsigned known = 0b1000'1110'1111'1111;  // bit n: the type with number n
  const unsigned number = static_cast<unsigned>(type);
  *dtype = static_cast<DType>(number);
  return number < kernels::kDTypes && (known >> number & 1u) != 0;
}

inline const char* dtype_name(kernels::DType dtype) {
  static const char* const names[kernels::kDTypes] = {"u8",  "i8", "i16",  "i32",  "i64", "f16", "f32", "f64",
                                                      "",    "c64", "c128", "bool", "",    "",    "",    "bf16"};
  return names[static_cast<int>(dtype)];
}

// The kernel that function_of(dtype) gives for the type, made at its first use as "<name>_<dtype>"; null where there is none. `slots` has
// kernels::kDTypes places, one table for each function_of. Hot once the kernel is made.
template <class FunctionOf>
Kernel* find_kernel(KernelSlot* slots, c10::ScalarType type, const char* name, FunctionOf&& function_of) {
  kernels::DType dtype;
  if (!kernel_dtype(type, &dtype)) return nullptr;
  KernelSlot& slot = slots[static_cast<int>(dtype)];
  if (Kernel* kernel = slot.get()) return kernel;
  const kernels::Function function = function_of(dtype);
  return function == nullptr ? nullptr : slot.make(std::string(name) + "_" + dtype_name(dtype), function);
}

// A dense tensor of this device without conjugate, negative or zero bits, on a device whose memory kernels reach: its strides, type and
// address say all. Nor one whose memory is copy-on-write. Contiguous is a question of its own.
inline bool is_plain(const at::TensorBase& tensor) {
  const c10::DispatchKeySet keys = tensor.unsafeGetTensorImpl()->key_set();
  constexpr c10::DispatchKeySet special({c10::DispatchKey::Conjugate, c10::DispatchKey::Negative, c10::DispatchKey::ZeroTensor});
  return keys.has(c10::DispatchKey::PrivateUse1) && !keys.has_any(special) && has_kernel_view(tensor.device().index()) &&
         !c10::impl::cow::is_cow_data_ptr(tensor.storage().data_ptr()) && !lacks_memory(tensor);
}

// Whether one thread may do it: above this size ATen's kernels, which use all intra-op threads, are faster.
inline bool is_small(int64_t elements) { return elements <= 32768 || at::get_num_threads() == 1; }

// Whether two contiguous tensors of one device have bytes in common.
inline bool share_bytes(const at::TensorBase& a, const at::TensorBase& b) {
  const char* x = static_cast<const char*>(a.const_data_ptr());
  const char* y = static_cast<const char*>(b.const_data_ptr());
  return x < y + b.nbytes() && y < x + a.nbytes();
}

// The addresses that a kernel on the tensor's device uses. The next launch touches the tensor: see operands.h.
inline const void* kernel_input(const at::TensorBase& tensor) {
  note_tensor(tensor, Touch::reads);
  return kernel_ptr(tensor.const_data_ptr(), tensor.device().index());
}
inline void* kernel_output(const at::TensorBase& tensor) {
  note_tensor(tensor, Touch::writes);
  return kernel_ptr(tensor.mutable_data_ptr(), tensor.device().index());
}

}  // namespace openreg
