// The interpreter's lock: Python's layer says how a thread lets go of it and takes it again.
//
// A wait must not hold it, because a host function of Python that the wait is for needs it. It is taken again where no mutex is held, in the
// destructor: a thread that has it may wait for that mutex.
#pragma once

#include "runtime/export.h"

namespace openreg {

// Lets go of the lock for its lifetime, when the thread has it. Made before any mutex is locked. May be nested.
class OPENREG_API WithoutInterpreterLock {
 public:
  WithoutInterpreterLock();
  ~WithoutInterpreterLock();
  WithoutInterpreterLock(const WithoutInterpreterLock&) = delete;
  WithoutInterpreterLock& operator=(const WithoutInterpreterLock&) = delete;

 private:
  void* state_;
};

// `release` returns null when the thread does not have the lock, else what `acquire` is given.
OPENREG_API void set_interpreter_lock(void* (*release)(), void (*acquire)(void*));

}  // namespace openreg
