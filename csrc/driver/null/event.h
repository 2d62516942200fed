// event.h: an event is complete as soon as it is recorded; it keeps the time and the failure of its stream.
#pragma once

#include <cstdint>

#include "hal/openreg_hal.h"

namespace openreg::null {

void destroy_all_events();

openreg_status event_create(int32_t device, int32_t timing, openreg_event* event);
openreg_status event_destroy(openreg_event event);
openreg_status event_record(openreg_event event, openreg_stream stream);
openreg_status event_query(openreg_event event);
openreg_status event_synchronize(openreg_event event, uint64_t timeout_ns, openreg_error* error);
openreg_status event_elapsed(openreg_event start, openreg_event end, int64_t* elapsed_ns);
openreg_status stream_wait_event(openreg_stream stream, openreg_event event);

}  // namespace openreg::null
