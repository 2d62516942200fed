// Host functions of Python: functions that run in the order of a stream.
//
// Workers never take Python's lock. So a task of the stream hands the call to a thread of Python that serves this stream, and waits until the
// function has returned. Threads that wait for a stream, or run its tasks, let go of the lock meanwhile: runtime/interpreter_lock.h.
#pragma once

#include <c10/core/Stream.h>

#include <cstdint>
#include <string>
#include <vector>

namespace openreg::python {

// What the thread of a stream is to do next: call a function, or drop it because its task, or the graph that it is part of, has ended.
struct HostCall {
  uint64_t function = 0;
  bool drop = false;
  uint64_t mark = 0;  // of the sanitizer
};

// Queues a call of `function` on the stream. `function` is dropped once, after its last call; not when this throws. Any thread.
void launch_host_function(c10::Stream stream, uint64_t function);

// Waits for the next call for a stream, on the thread that serves it; false when the process or end_host_threads ends the thread. Without
// Python's lock.
bool next_host_call(c10::Stream stream, HostCall* call);

// Ends the call that next_host_call has handed out. An `error` that is not empty, of an exception of type `kind`, fails the stream.
void finish_host_call(c10::Stream stream, const std::string& kind, const std::string& error);

// Ends every call for a stream of the device as failed, because the device is lost. A function that is running goes on without its task.
void abandon_host_functions(c10::DeviceIndex device);

// Whether the thread that serves the stream is still in a function whose call was abandoned; then the stream needs another thread. Says so once.
bool host_thread_is_stuck(c10::Stream stream);

// Lets the idle threads of streams that do not exist any more end, unless they have functions left, as in a graph. Returns those streams.
std::vector<c10::Stream> end_host_threads();

// From timeout_ns from now on calls are not waited for, and fail: Python ends.
void expire_host_functions(uint64_t timeout_ns);

}  // namespace openreg::python
