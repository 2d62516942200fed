// Leases: how a process learns that no other process needs a piece of its memory any more, whatever becomes of them.
//
// Note [Leases]
// The owner keeps a ledger, a memory file with one entry per lease. An entry counts messages that are on their way. A process that receives
// such a message opens the ledger, takes a shared lock on the entry's byte, and then takes the message off the count. The lease has ended when
// nothing is on its way and nobody holds the byte. The system drops the locks of a process that ends in whatever way, so a crash ends its
// leases too. A message that nobody ever receives keeps its lease for as long as the owner lives, as with cuda.
// The entry's generation tells a message that is opened again, when its lease has ended, from one of a later lease of the same entry.
#pragma once

#include <cstdint>

namespace openreg {

// A lease as other processes know it: plain bytes.
struct LeaseName {
  int32_t pid = 0, fd = -1;
  uint64_t inode = 0;
  uint32_t entry = 0, generation = 0;
};

// Owner's side. Any thread.

// A new lease with one message on its way. Throws when the system refuses the ledger.
LeaseName begin_lease();
// One more message.
void extend_lease(const LeaseName& name);
// Ends the lease when nobody needs it; false when somebody does.
bool try_end_lease(const LeaseName& name);

// Receiver's side. Any thread, also workers.

// Takes a message and holds the lease until drop_lease, which may be called as often as hold_lease was. Throws a sentence when the owner has ended or
// the lease has.
void hold_lease(const LeaseName& name);
void drop_lease(const LeaseName& name) noexcept;

}  // namespace openreg
