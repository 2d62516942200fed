// What the sanitizer found: the rule that was broken, the calls that broke it, and the call that would have mended it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace openreg::layers::sanitizer {

enum Mode : uint32_t {
  kRaces = 1u,     // two accesses that nothing orders, one of them a write
  kLifetime = 2u,  // memory used after it was freed, or while its last owner's stream still uses it; freed twice
  kInit = 4u,      // memory read that nobody has written
  kBounds = 8u,    // an access outside of its allocation
  kLeaks = 16u,    // an allocation that nobody gave back
  kPoison = 32u,   // finds nothing itself: fresh memory gets a pattern, so that values show who reads it
};

// One call that touches memory. Stacks are tags of launch descriptors, which whoever made them resolves.
struct Access {
  std::string name;    // the operator or copy
  std::string stream;  // where it runs, "the host" for the host itself
  std::string touched; // "writes float32[4, 4]"
  uint64_t tag = 0;
};

struct Finding {
  Mode mode = kRaces;
  bool possible = false;  // which bytes were touched is not known: listed, not an error
  std::string sentence;   // what is wrong, in one sentence
  std::vector<Access> accesses;
  std::string allocation;       // "allocation 7: 4096 bytes ..."; "" where no allocation is involved
  uint64_t allocation_tag = 0;  // where it was made
  uint64_t free_tag = 0;        // where it was freed, for memory used after that
  std::string remedy;           // the call that was missing
};

inline const char* name_of(Mode mode) {
  switch (mode) {
    case kRaces: return "race";
    case kLifetime: return "lifetime";
    case kInit: return "init";
    case kBounds: return "bounds";
    default: return "leak";
  }
}

}  // namespace openreg::layers::sanitizer
