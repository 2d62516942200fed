// Says which block of the caching allocator a program touched from the host, and which line of Python allocated it.
#pragma once

#include "runtime/block_table.h"

namespace openreg {

// Installs a SIGSEGV handler in front of the present one, once in the process; later calls do nothing. The table lives as long as the
// process. Any thread.
//
// Drivers that protect device memory from the host report the segment that was touched. Only the allocator knows the block in it. The
// handler adds a line when the address belongs to a block, whichever driver gave the segment, and passes the signal on.
void install_fault_report(const BlockTable& table);

}  // namespace openreg
