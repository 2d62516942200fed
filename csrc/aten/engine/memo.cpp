// The memo table.
#include "aten/engine/memo.h"

#include <array>
#include <cstring>
#include <mutex>
#include <unordered_map>
#include <unordered_set>

namespace openreg::engine {

namespace {

constexpr size_t kMaxEntries = 65536;

struct Hash {
  using is_transparent = void;
  size_t operator()(c10::ArrayRef<uint64_t> words) const {
    // Multiply and fold, word by word; the constant is 2^64 divided by the golden ratio.
    uint64_t hash = words.size();
    for (const uint64_t word : words) {
      hash = (hash ^ word) * 0x9E3779B97F4A7C15ull;
      hash ^= hash >> 29;
    }
    return hash;
  }
};

struct Equal {
  using is_transparent = void;
  bool operator()(c10::ArrayRef<uint64_t> a, c10::ArrayRef<uint64_t> b) const {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(uint64_t)) == 0;
  }
};

struct Memo {
  std::mutex mutex;  // LOCK: everything below
  std::unordered_map<std::vector<uint64_t>, std::shared_ptr<const MemoEntry>, Hash, Equal> entries;
  std::unordered_set<uint64_t> signatures;
};

Memo& memo() {
  static Memo* leaked = new Memo;
  return *leaked;
}

}  // namespace

std::shared_ptr<const MemoEntry> find_memo(c10::ArrayRef<uint64_t> key) {
  // What a key means never changes, so that a thread may keep its last answers: the hot path takes no lock.
  struct Slot {
    std::vector<uint64_t> key;
    std::shared_ptr<const MemoEntry> entry;
  };
  static thread_local std::array<Slot, 256> cache;
  Slot& slot = cache[Hash()(key) % cache.size()];
  if (__builtin_expect(Equal()(slot.key, key), 1)) return slot.entry;
  Memo& m = memo();
  std::lock_guard<std::mutex> lock(m.mutex);
  const auto found = m.entries.find(key);
  if (found == m.entries.end()) return nullptr;
  slot = {key.vec(), found->second};
  return found->second;
}

void store_memo(c10::ArrayRef<uint64_t> key, std::shared_ptr<const MemoEntry> entry) {
  Memo& m = memo();
  std::lock_guard<std::mutex> lock(m.mutex);
  if (m.entries.size() >= kMaxEntries) m.entries.clear();
  m.entries.insert_or_assign(key.vec(), std::move(entry));
}

bool signature_seen(uint64_t signature) {
  Memo& m = memo();
  std::lock_guard<std::mutex> lock(m.mutex);
  return m.signatures.count(signature) != 0;
}

void note_signature(uint64_t signature) {
  Memo& m = memo();
  std::lock_guard<std::mutex> lock(m.mutex);
  if (m.signatures.size() >= kMaxEntries) m.signatures.clear();
  m.signatures.insert(signature);
}

}  // namespace openreg::engine
