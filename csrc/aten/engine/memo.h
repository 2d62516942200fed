// What the engine has learnt about result metadata: a bounded table from argument metadata to result metadata.
//
// The key is what the Encoder wrote for it: the operator, the state on which kernels choose (the default dtype, determinism, one thread or several,
// oneDNN), and of each argument its dtype, flags, sizes and strides, whether it shares its storage with another one, and the values of integers,
// booleans and strings; not data pointers, and values of Scalars and floats only where they shape the results.
#pragma once

#include <c10/core/ScalarType.h>
#include <c10/util/ArrayRef.h>
#include <c10/util/SmallVector.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace openreg::engine {

struct ResultMeta {
  c10::SmallVector<int64_t, 5> sizes, strides;
  c10::ScalarType dtype = c10::ScalarType::Undefined;  // Undefined: the result is an undefined tensor
  size_t bytes = 0;
};

struct MemoEntry {
  std::vector<ResultMeta> results;            // per return; unused for those that are a written argument
  std::vector<std::pair<int, ResultMeta>> resized;  // written arguments that the call leaves with other sizes
};

using Key = c10::SmallVector<uint64_t, 96>;

// The entry, or null. Any thread; hot.
std::shared_ptr<const MemoEntry> find_memo(c10::ArrayRef<uint64_t> key);

// Remembers an entry; the table is emptied when it holds 65,536.
void store_memo(c10::ArrayRef<uint64_t> key, std::shared_ptr<const MemoEntry> entry);

// Whether a call of this signature (the key without sizes and strides) has run waited before; `note` remembers it.
bool signature_seen(uint64_t signature);
void note_signature(uint64_t signature);

}  // namespace openreg::engine
