// Streams: the pool behind c10::Stream, and the calling thread's current stream of each device.
//
// Ids. 0 is the default stream of its device (c10::Stream::DEFAULT). Pooled streams have ids that no other device uses:
// ((device * 4 - priority) * 32 + slot) + 1. They live as long as the process, because torch.Stream has no destructor call;
// the pool has 32 per device and priority and hands them out in turn. The id of a stream that somebody else created with the driver is its
// handle; handles are greater than all other ids.
#pragma once

#include <c10/core/Stream.h>

#include <vector>

#include "hal/openreg_hal.h"
#include "runtime/export.h"

namespace openreg {

constexpr int kStreamsPerPool = 32;
constexpr int kGreatestPriority = -3;  // of pooled streams; a device with a narrower range takes the nearest

// The calling thread's current stream of the device. The device must exist. Hot.
OPENREG_API c10::Stream current_stream(c10::DeviceIndex device) noexcept;
OPENREG_API c10::Stream default_stream(c10::DeviceIndex device) noexcept;

// Makes the stream current for its device (and only that) on the calling thread; returns the one before.
OPENREG_API c10::Stream exchange_stream(c10::Stream stream);

// The next pooled stream of the priority, or of the nearest from 0 to kGreatestPriority.
OPENREG_API c10::Stream stream_from_pool(c10::DeviceIndex device, int priority);

// A stream that somebody else created with the driver, and destroys after its last use here. Throws ValueError when the driver does not
// know the handle, or knows it as a stream of another device.
OPENREG_API c10::Stream external_stream(openreg_stream handle, c10::DeviceIndex device);

// The priority that the driver gave the stream.
OPENREG_API int stream_priority(c10::Stream stream);

// The driver's handle, created at first use. Throws for an id that this device never handed out; whether an external stream still exists,
// the driver says at the next call. Any thread; hot.
OPENREG_API openreg_stream stream_handle(c10::Stream stream);

// The handle of the calling thread's current stream of the device.
OPENREG_API openreg_stream current_stream_handle(c10::DeviceIndex device);

OPENREG_API bool query_stream(c10::Stream stream);

// Waits for the stream; raises its late error. Lets Ctrl-C through, after the task that the calling thread may be running itself: memory
// that the caller lends a task must not die with an exception.
OPENREG_API void synchronize_stream(c10::Stream stream);

// Whether the stream can be used: false for an external one that was destroyed. Any thread.
OPENREG_API bool stream_exists(c10::StreamId id);

// Whether it is a stream of its device, too: false for an id or a handle of another device, or of none. Any thread.
OPENREG_API bool stream_exists(c10::Stream stream);

// The streams of all devices that ever had work, and the external ones that still exist.
std::vector<c10::Stream> used_streams();

// Prints one line per stream of the device that has queued work, for stall reports.
OPENREG_API void print_streams(c10::DeviceIndex device);

}  // namespace openreg
