// Reading the dispatcher's registrations. Access rules do not apply to the arguments of an explicit instantiation, which is how the two
// private members are named here.
#include "aten/engine/core_meta.h"

#include <list>

namespace openreg::engine {

namespace {

template <class Tag>
struct Member {
  static inline typename Tag::Type pointer{};
};

template <class Tag, typename Tag::Type value>
struct Expose {
  static inline const bool done = (Member<Tag>::pointer = value, true);
};

using Kernels = ska::flat_hash_map<c10::DispatchKey, std::list<c10::impl::AnnotatedKernel>>;

struct KernelsTag {
  using Type = Kernels c10::impl::OperatorEntry::*;
};
template struct Expose<KernelsTag, &c10::impl::OperatorEntry::kernels_>;

// operatorDef_ has a private type; only its entry is read.
using GetEntry = const c10::impl::OperatorEntry& (*)(const c10::OperatorHandle&);
GetEntry get_entry = nullptr;

template <auto pointer>
struct ExposeEntry {
  static const c10::impl::OperatorEntry& get(const c10::OperatorHandle& op) { return (op.*pointer)->op; }
  static inline const bool done = (get_entry = &get, true);
};
template struct ExposeEntry<&c10::OperatorHandle::operatorDef_>;

}  // namespace

std::optional<c10::KernelFunction> core_meta_kernel(const c10::OperatorHandle& op) {
  if (get_entry == nullptr || Member<KernelsTag>::pointer == nullptr) return std::nullopt;
  const Kernels& kernels = get_entry(op).*Member<KernelsTag>::pointer;
  const auto found = kernels.find(c10::DispatchKey::Meta);
  if (found == kernels.end()) return std::nullopt;
  for (const auto& registered : found->second) {
    // A kernel from Python has no C++ signature.
    if (registered.inferred_function_schema != nullptr) return registered.kernel;
  }
  return std::nullopt;
}

}  // namespace openreg::engine
