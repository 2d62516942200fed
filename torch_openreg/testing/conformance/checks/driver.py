"""The driver (L0): the table of a HAL library, called directly. openreg_hal.h says what each entry does.

Entries that a driver may leave out are skipped with that reason. Tasks are Python functions, so any driver can run them.
"""

import contextlib
import ctypes as c
import os
import time

from .. import hal
from ..checked_driver import LIMIT_NS, SHUTDOWN_NS, loaded, started
from . import NotApplicable, check

SIZE = 4096
TASK_S = 0.02  # how long a task takes that others must wait for
PATTERN = bytes(i % 251 for i in range(SIZE))


def buffer(data: bytes = bytes(SIZE)):
    """Host memory with these bytes, and its address."""
    memory = c.create_string_buffer(data, len(data))
    return memory, c.cast(memory, hal.ptr)


@check
def the_table_is_of_this_version(probe):
    "openreg_get_driver(1) gives a table of major version 1 with every required entry, and refuses another version."
    driver = loaded(probe)
    table = driver.table
    probe.expect(table.major == 1, f"the table for version 1 says that its major version is {table.major}")
    probe.expect(driver.name, "the driver has no name")
    missing = [name for name, _ in hal.ENTRIES if name not in hal.OPTIONAL and not driver.has(name)]
    probe.expect(not missing, f"required entries are null: {', '.join(missing)}")
    other = c.POINTER(hal.DriverTable)()
    status = driver.library.openreg_get_driver(99, c.byref(other))
    probe.expect(status == hal.UNSUPPORTED, f"openreg_get_driver(99) returns {status}, expected UNSUPPORTED ({hal.UNSUPPORTED})")


@check
def optional_entries_come_in_groups(probe):
    "A driver has all entries of an optional group or none."
    driver = loaded(probe)
    for group in (("mem_reserve", "mem_unreserve", "mem_map", "mem_unmap"), ("mem_export", "mem_import", "mem_close"),
                  ("event_create_shared", "event_export", "event_import"), ("device_lose", "device_reset"),
                  ("capture_begin", "capture_end", "stream_capture_info", "capture_exchange_mode", "graph_launch", "graph_destroy", "graph_update",
                   "graph_dump")):
        there = [name for name in group if driver.has(name)]
        missing = [name for name in group if name not in there]
        probe.expect(not there or not missing, f"the table has {', '.join(there)} and not {', '.join(missing)}")


@check
def entries_need_a_start(probe):
    "Before init and after shutdown entries return NOT_INITIALIZED; init can follow shutdown."
    driver, count = loaded(probe), c.c_int32(7)
    driver.refuses(driver.device_count(c.byref(count)), hal.NOT_INITIALIZED, "no init before it")
    for _ in range(2):
        with started(probe):
            driver.ok(driver.device_count(c.byref(count)))
        driver.refuses(driver.device_count(c.byref(count)), hal.NOT_INITIALIZED, "a shutdown before it")


@check
def init_refuses_what_it_does_not_know(probe):
    "init returns INVALID_VALUE for an unknown option, with a message that names it, and when it is called twice."
    driver = loaded(probe)
    wrong = (hal.Option * 1)((b"no_such_option", b"1"))
    status = driver.init(wrong, 1)
    if status == hal.OK:
        driver.table.shutdown(SHUTDOWN_NS)
    driver.refuses(status, hal.INVALID_VALUE, "the option no_such_option")
    probe.expect("no_such_option" in driver.message(), f"the message of a refused option does not name it: {driver.message()!r}")
    with started(probe):
        driver.refuses(driver.init(None, 0), hal.INVALID_VALUE, "a driver that runs")


@check
def devices_describe_themselves(probe):
    "device_info gives a name, memory, a granularity, compute units and a range of priorities for each device."
    with started(probe) as driver:
        probe.expect(driver.devices >= 1, f"device_count gives {driver.devices}")
        for device in range(driver.devices):
            info = driver.info(device)
            told = {name: getattr(info, name) for name in ("total_memory_bytes", "allocation_granularity_bytes", "compute_units")}
            probe.expect(info.name and all(value > 0 for value in told.values()), f"device {device} describes itself as {info.name!r} with {told}")
            least, greatest = info.priority_least, info.priority_greatest
            probe.expect(greatest <= least, f"device {device} has priorities from {greatest} to {least}; a lower number is more urgent")


@check
def a_device_that_does_not_exist_is_refused(probe):
    "A device index outside of the count is INVALID_DEVICE, and outputs stay as they were."
    with started(probe) as driver:
        for device in (driver.devices, -1, 1000):
            address, info = c.c_void_p(3), hal.DeviceInfo(struct_size=c.sizeof(hal.DeviceInfo), compute_units=77)
            driver.refuses(driver.mem_alloc(device, SIZE, c.byref(address)), hal.INVALID_DEVICE, f"device {device}")
            driver.refuses(driver.device_info(device, c.byref(info)), hal.INVALID_DEVICE, f"device {device}")
            probe.expect((address.value, info.compute_units) == (3, 77), f"outputs changed although device {device} was refused")


@check
def no_more_is_written_than_the_caller_has(probe):
    "device_info fills no more bytes than the caller's struct_size, so that old callers work with new drivers."
    with started(probe) as driver:
        memory, _ = buffer(b"\xee" * c.sizeof(hal.DeviceInfo))
        short = hal.DeviceInfo.compute_units.offset
        c.cast(memory, c.POINTER(c.c_uint32))[0] = short
        driver.ok(driver.device_info(0, c.cast(memory, c.POINTER(hal.DeviceInfo))))
        probe.expect(memory.raw[short:] == b"\xee" * (len(memory) - short), f"device_info writes beyond the {short} bytes that struct_size says")


@check
def the_clock_goes_on(probe):
    "device_clock is monotonic and counts nanoseconds."
    with started(probe) as driver:
        first, second = c.c_uint64(), c.c_uint64()
        began = time.perf_counter_ns()
        driver.ok(driver.device_clock(0, c.byref(first)))
        time.sleep(TASK_S)
        driver.ok(driver.device_clock(0, c.byref(second)))
        wall, found = time.perf_counter_ns() - began, second.value - first.value
        probe.expect(0.5 * TASK_S * 1e9 < found <= 1.2 * wall, f"in {wall} ns of the host's clock, device_clock went on by {found}")


@check
def allocations_are_aligned_apart_and_counted(probe):
    "mem_alloc gives memory at multiples of 512 bytes, no two overlap, and mem_info counts it until mem_free."
    with started(probe) as driver:
        free, total = driver.memory()
        sizes = (1, 511, 4097, 100_000, 1 << 21)
        blocks = sorted((driver.alloc(size), size) for size in sizes)
        for address, size in blocks:
            probe.expect(address % 512 == 0, f"mem_alloc of {size} bytes gives address {address:#x}, which is not a multiple of 512")
        for (low, size), (high, _) in zip(blocks, blocks[1:]):
            probe.expect(low + size <= high, f"an allocation of {size} bytes at {low:#x} overlaps one at {high:#x}")
        used = free - driver.memory()[0]
        probe.expect(used >= sum(sizes), f"mem_info counts {used} bytes for allocations of {sum(sizes)}")
        for address, _ in blocks:
            driver.ok(driver.mem_free(0, address))
        probe.expect(driver.memory() == (free, total), f"after mem_free of everything mem_info is {driver.memory()}, it was {(free, total)}")


@check
def too_much_memory_is_out_of_memory(probe):
    "mem_alloc of more than there is returns OUT_OF_MEMORY and changes nothing."
    with started(probe) as driver:
        before, address = driver.memory(), c.c_void_p(3)
        for size in (before[1] + 1, 2**63, 2**64 - 1):
            driver.refuses(driver.mem_alloc(0, size, c.byref(address)), hal.OUT_OF_MEMORY, f"{size} bytes")
        probe.expect(address.value == 3 and driver.memory() == before, "a refused mem_alloc changed its output or what is free")


@check
def only_what_was_allocated_is_freed(probe):
    "mem_alloc of no bytes, and mem_free of another address or twice, are INVALID_VALUE."
    with started(probe) as driver:
        address = driver.alloc(SIZE)
        driver.refuses(driver.mem_alloc(0, 0, c.byref(c.c_void_p())), hal.INVALID_VALUE, "0 bytes")
        for wrong, words in ((address + 512, "the middle of an allocation"), (None, "a null pointer")):
            driver.refuses(driver.mem_free(0, wrong), hal.INVALID_VALUE, words)
        driver.ok(driver.mem_free(0, address))
        driver.refuses(driver.mem_free(0, address), hal.INVALID_VALUE, "memory that is free already")


@check
def an_address_leads_to_its_allocation(probe):
    "mem_query finds device and beginning of the allocation around an address, until it is freed."
    with started(probe) as driver:
        address = driver.alloc(SIZE)
        device, base, size = c.c_int32(-1), c.c_void_p(), c.c_uint64()
        for offset in (0, SIZE - 1):
            driver.ok(driver.mem_query(address + offset, c.byref(device), c.byref(base), c.byref(size)))
            found = (device.value, base.value, size.value >= SIZE)
            told = f"device {device.value}, {base.value:#x}, {size.value} bytes"
            probe.expect(found == (0, address, True), f"mem_query of byte {offset} of an allocation gives {told}")
        driver.ok(driver.mem_free(0, address))
        driver.refuses(driver.mem_query(address, None, None, None), hal.INVALID_VALUE, "memory that was freed")


@check
def host_memory_is_known(probe):
    "host_alloc gives memory at multiples of 64 bytes that host_query finds until host_free, which refuses everything else."
    with started(probe) as driver:
        address, base, size = c.c_void_p(), c.c_void_p(), c.c_uint64()
        driver.ok(driver.host_alloc(SIZE, c.byref(address)))
        probe.expect(address.value % 64 == 0, f"host_alloc gives address {address.value:#x}, which is not a multiple of 64")
        c.memset(address, 1, SIZE)
        driver.ok(driver.host_query(address.value + 100, c.byref(base), c.byref(size)))
        probe.expect(base.value == address.value and size.value >= SIZE, f"host_query gives {base.value} for memory at {address.value}")
        memory, plain = buffer()
        driver.refuses(driver.host_query(plain, None, None), hal.INVALID_VALUE, "memory that is not from host_alloc")
        driver.ok(driver.host_free(address))
        driver.refuses(driver.host_free(address), hal.INVALID_VALUE, "memory that is free already")


@check
def copies_move_every_byte(probe):
    "copy moves bytes from the host to the device, within it, and back, from any offset."
    with started(probe) as driver:
        stream, first, second = driver.stream(), driver.alloc(2 * SIZE), driver.alloc(2 * SIZE)
        source, source_at = buffer(PATTERN)
        target, target_at = buffer()
        driver.ok(driver.copy(stream, first + 3, 0, source_at, hal.HOST, SIZE, None))
        driver.ok(driver.copy(stream, second + 5, 0, first + 3, 0, SIZE, None))
        driver.ok(driver.copy(stream, target_at, hal.HOST, second + 5, 0, SIZE, None))
        driver.finish(stream)
        wrong = next((i for i in range(SIZE) if target.raw[i] != PATTERN[i]), None)
        probe.expect(wrong is None, f"byte {wrong} of {SIZE} is another one after copies to the device, within it and back")


@check
def overlapping_copies_are_moves(probe):
    "copy within one allocation works as memmove where the ranges overlap."
    with started(probe) as driver:
        address, stream = driver.alloc(2 * SIZE), driver.stream()
        driver.write(address, PATTERN)
        driver.ok(driver.copy(stream, address + 100, 0, address, 0, SIZE, None))
        driver.finish(stream)
        probe.expect(driver.read(address + 100, SIZE) == PATTERN, "a copy to 100 bytes behind its source repeats bytes instead of moving them")


@check
def copies_stay_in_their_allocation(probe):
    "copy and fill refuse a range that is not inside one live allocation, and a copy from host to host."
    with started(probe) as driver:
        stream, address, (_, host) = driver.stream(), driver.alloc(SIZE), buffer()
        size = c.c_uint64()
        driver.ok(driver.mem_query(address, None, None, c.byref(size)))
        driver.refuses(driver.copy(stream, address, 0, host, hal.HOST, size.value + 1, None), hal.INVALID_VALUE, "more bytes than the allocation has")
        driver.refuses(driver.fill(stream, address, 1, size.value + 1, None), hal.INVALID_VALUE, "more bytes than the allocation has")
        driver.refuses(driver.copy(stream, host, hal.HOST, host, hal.HOST, 1, None), hal.INVALID_VALUE, "host memory on both sides")
        driver.ok(driver.mem_free(0, address))
        driver.refuses(driver.fill(stream, address, 1, 1, None), hal.INVALID_VALUE, "memory that was freed")


@check
def copies_cross_devices(probe):
    "copy moves bytes between two devices, on a stream of either."
    with started(probe) as driver:
        if driver.devices < 2:
            raise NotApplicable(f"the driver has {driver.devices} device, and this needs two")
        here, there = driver.alloc(SIZE, 0), driver.alloc(SIZE, 1)
        for device in (0, 1):
            stream = driver.stream(device)
            driver.write(here, PATTERN)
            driver.write(there, bytes(SIZE), device=1)
            driver.ok(driver.copy(stream, there, 1, here, 0, SIZE, None))
            driver.finish(stream)
            probe.expect(driver.read(there, SIZE, device=1) == PATTERN, f"a copy from device 0 to 1 on a stream of device {device} gives other bytes")


@check
def fill_sets_every_byte(probe):
    "fill sets the bytes that it is asked for and no others."
    with started(probe) as driver:
        address, stream = driver.alloc(SIZE), driver.stream()
        driver.write(address, bytes(SIZE))
        driver.ok(driver.fill(stream, address + 10, 0xAB, 1000, None))
        driver.finish(stream)
        found = driver.read(address, SIZE)
        wanted = bytes(10) + b"\xab" * 1000 + bytes(SIZE - 1010)
        probe.expect(found == wanted, f"fill of 1000 bytes from byte 10 on set {sum(byte == 0xAB for byte in found)} bytes, or other ones")


@check
def tasks_run_in_order(probe):
    "Tasks of one stream run one after the other, in the order of their launches."
    with started(probe) as driver:
        stream, ran = driver.stream(), []
        for number in range(50):
            driver.call(stream, lambda number=number: ran.append(number))
        driver.finish(stream)
        probe.expect(ran == list(range(50)), f"50 tasks of one stream ran in the order {ran[:6]}..., {len(ran)} in all")


@check
def arguments_are_copied(probe):
    "launch_host_func copies the arguments before it returns, and gives the task a copy at a multiple of 16 bytes."
    with started(probe) as driver:
        stream, seen = driver.stream(), []

        def look(arguments, error):
            seen.append((arguments % 16, c.string_at(arguments, SIZE)))
            return hal.OK

        function = hal.HostFunc(look)
        memory, address = buffer(PATTERN)
        driver.call(stream, lambda: time.sleep(TASK_S))
        driver.ok(driver.launch_host_func(stream, c.cast(function, hal.ptr), address, SIZE, None))
        c.memset(memory, 0xEE, SIZE)
        driver.finish(stream)
        probe.expect(seen and seen[0][1] == PATTERN, "a task sees what the caller wrote to the arguments after the launch")
        probe.expect(seen[0][0] == 0, f"a task's arguments begin {seen[0][0]} bytes behind a multiple of 16")


@check
def bad_launches_are_refused(probe):
    "A launch without a function, a load of code that is none, and an unknown stream are refused."
    with started(probe) as driver:
        kernel, image = hal.Kernel(), buffer(b"no code")
        driver.refuses(driver.launch_host_func(driver.stream(), None, None, 0, None), hal.INVALID_VALUE, "no function")
        driver.refuses(driver.kernel_load(0, b"kernel", image[1], 7, c.byref(kernel)), hal.UNSUPPORTED, "an image in no known format")
        driver.refuses(driver.stream_query(None), hal.INVALID_VALUE, "no stream")
        driver.refuses(driver.event_record(None, driver.stream()), hal.INVALID_VALUE, "no event")


@check
def cleanup_runs_once(probe):
    "A launch's cleanup runs exactly once before completion shows, also when the task is skipped."
    with started(probe) as driver:
        stream, cleaned = driver.stream(), []
        cleanup = hal.Cleanup(lambda arguments: cleaned.append(1))
        driver.call(stream, lambda: None, cleanup=cleanup)
        driver.finish(stream)
        probe.expect(len(cleaned) == 1, f"after a task the cleanup ran {len(cleaned)} times")
        driver.call(stream, lambda: 1 // 0)
        driver.call(stream, lambda: None, cleanup=cleanup)
        driver.sync(stream, LIMIT_NS)
        probe.expect(len(cleaned) == 2, f"after a task that was skipped the cleanup ran {len(cleaned) - 1} times")


@check
def a_failure_is_reported_once(probe):
    "A task that fails is reported with its words, name and tag by the next synchronisation; what was queued behind it is skipped, later work runs."
    with started(probe) as driver:
        stream, ran = driver.stream(), []
        driver.call(stream, lambda: 1 // 0, name=b"divide", tag=42)
        driver.call(stream, lambda: ran.append("skipped"))
        status, error = driver.sync(stream, LIMIT_NS)
        driver.refuses(status, hal.LAUNCH_FAILED, "a task that failed")
        told = (error.kind, error.name, error.tag, error.device, b"zero" in error.message)
        probe.expect(told == (7, b"divide", 42, 0, True), f"the error record has kind, name, tag, device {told[:4]} and says {error.message!r}")
        probe.expect(ran == [], "a task that was queued behind a failure ran")
        driver.call(stream, lambda: ran.append("later"))
        driver.finish(stream)
        probe.expect(ran == ["later"], "a task that was queued after the report did not run")


@check
def failures_travel_with_events(probe):
    "An event that is recorded behind a failure carries it, a stream that waits for the event inherits it, and one report is for all of them."
    with started(probe) as driver:
        first, second, ran = driver.stream(), driver.stream(), []
        driver.call(first, lambda: 1 // 0)
        driver.refuses(driver.event_synchronize(driver.record(first), LIMIT_NS, None), hal.LAUNCH_FAILED, "an event that was recorded behind a failure")
        driver.call(first, lambda: 1 // 0, name=b"divide")
        driver.ok(driver.stream_wait_event(second, driver.record(first)))
        driver.call(second, lambda: ran.append("behind the wait"))
        status, error = driver.sync(second, LIMIT_NS)
        driver.refuses(status, hal.LAUNCH_FAILED, "a stream that waited for an event behind a failure")
        probe.expect((error.name, ran) == (b"divide", []), f"a stream that inherits a failure names {error.name!r} and ran {ran}")
        driver.finish(first)


@check
def a_query_tells_the_truth(probe):
    "stream_query and event_query return OK only when the work has finished, and never a failure."
    with started(probe) as driver:
        stream, ran = driver.stream(), []
        driver.call(stream, lambda: (time.sleep(TASK_S), ran.append(1)))
        event = driver.record(stream)
        for entry, handle in (("stream_query", stream), ("event_query", event)):
            if getattr(driver, entry)(handle) == hal.OK:
                probe.expect(ran, f"{entry} returns OK while a task is running")
        driver.finish(stream)
        driver.ok(driver.event_query(event))
        driver.ok(driver.stream_query(stream))
        driver.call(stream, lambda: 1 // 0)
        driver.device_synchronize(0, 0, None)
        status = driver.stream_query(stream)
        probe.expect(status in (hal.OK, hal.NOT_READY), f"stream_query reports a task's failure: {status}")
        driver.sync(stream, LIMIT_NS)


@check
def synchronisation_waits(probe):
    "stream_, event_ and device_synchronize return OK when the work has finished."
    with started(probe) as driver:
        for entry in ("stream_synchronize", "event_synchronize", "device_synchronize"):
            stream, ran = driver.stream(), []
            driver.call(stream, lambda ran=ran: (time.sleep(TASK_S), ran.append(1)))
            handle = {"stream_synchronize": stream, "event_synchronize": driver.record(stream), "device_synchronize": 0}[entry]
            driver.ok(getattr(driver, entry)(handle, LIMIT_NS, None))
            probe.expect(ran, f"{entry} returns OK while a task is running")
            driver.finish(stream)


@check
def streams_wait_for_events(probe):
    "Work that is queued behind stream_wait_event runs after what the event's latest record stands for."
    with started(probe) as driver:
        first, second, ran = driver.stream(), driver.stream(), []
        event = driver.record(first)
        driver.call(first, lambda: (time.sleep(TASK_S), ran.append("before the record")))
        driver.record(first, event)
        driver.ok(driver.stream_wait_event(second, event))
        driver.call(second, lambda: ran.append("behind the wait"))
        driver.finish(second)
        driver.finish(first)
        probe.expect(ran == ["before the record", "behind the wait"], f"two streams, the second one waiting for an event, ran: {', '.join(ran)}")


@check
def elapsed_time_is_in_nanoseconds(probe):
    "event_elapsed measures between two records on the device's clock, and refuses events that do not measure or have no record."
    with started(probe) as driver:
        stream, start, end = driver.stream(), driver.event(timing=True), driver.event(timing=True)
        elapsed = c.c_int64()
        driver.refuses(driver.event_elapsed(start, end, c.byref(elapsed)), hal.INVALID_VALUE, "events without a record")
        began = time.perf_counter_ns()
        driver.record(stream, start)
        driver.call(stream, lambda: time.sleep(TASK_S))
        driver.record(stream, end)
        driver.finish(stream)
        wall = time.perf_counter_ns() - began
        driver.ok(driver.event_elapsed(start, end, c.byref(elapsed)))
        found = elapsed.value
        probe.expect(0.5 * TASK_S * 1e9 < found <= 1.2 * wall, f"event_elapsed is {found} ns around a task of 20 ms, in {wall} ns of the host's clock")
        plain = driver.record(stream)
        driver.finish(stream)
        driver.refuses(driver.event_elapsed(start, plain, c.byref(elapsed)), hal.INVALID_VALUE, "an event that does not measure")


@check
def a_stream_describes_itself(probe):
    "stream_info gives the stream's device and a number of its own, and nothing queued after a synchronisation."
    with started(probe) as driver:
        streams = [driver.stream() for _ in range(3)]
        driver.call(streams[0], lambda: None)
        driver.finish(streams[0])
        states = [driver.state(stream) for stream in streams]
        probe.expect(len({state.stream_id for state in states}) == 3, f"three streams have the numbers {[state.stream_id for state in states]}")
        probe.expect(states[0].queued == 0, f"after stream_synchronize, stream_info counts {states[0].queued} tasks as queued")
        probe.expect({state.device for state in states} == {0}, f"streams of device 0 say that they are of {[state.device for state in states]}")


@check
def the_kernel_view_shows_device_memory(probe):
    "A task reads device memory at its address plus the delta of mem_kernel_view."
    with started(probe) as driver:
        address, delta, stream, seen = driver.alloc(3 * SIZE) + SIZE, driver.delta(), driver.stream(), []
        driver.write(address, PATTERN)
        driver.call(stream, lambda: seen.append(c.string_at(address + delta, SIZE)))
        driver.finish(stream)
        probe.expect(seen == [PATTERN], "a task that reads device memory through the kernel view sees other bytes than a copy to the host")


@check
def reservations_take_memory_when_mapped(probe):
    "mem_reserve takes addresses and no memory; mem_map puts memory behind them, mem_unmap takes it away."
    with started(probe) as driver:
        page, free, address = 2 << 20, driver.memory()[0], c.c_void_p()
        driver.ok(driver.mem_reserve(0, 4 * page, c.byref(address)))
        probe.expect(driver.memory()[0] == free, f"mem_reserve takes {free - driver.memory()[0]} bytes of memory")
        driver.ok(driver.mem_map(0, address.value + page, page))
        used = free - driver.memory()[0]
        probe.expect(used >= page, f"mem_map of {page} bytes takes {used} bytes of memory")
        driver.refuses(driver.mem_map(0, address.value + page, page), hal.INVALID_VALUE, "addresses that are mapped already")
        driver.write(address.value + page, PATTERN)
        probe.expect(driver.read(address.value + page, SIZE) == PATTERN, "bytes that were written to mapped memory are others when read")
        driver.refuses(driver.mem_unreserve(0, address.value), hal.INVALID_VALUE, "addresses with memory behind them")
        driver.ok(driver.mem_unmap(0, address.value + page, page))
        driver.ok(driver.mem_unreserve(0, address.value))
        probe.expect(driver.memory()[0] == free, f"after mem_unmap and mem_unreserve {free - driver.memory()[0]} bytes are missing")


@check
def an_import_is_the_same_memory(probe):
    "mem_import maps the memory that mem_export named: what one side writes the other reads, and only imports are closed."
    with started(probe) as driver:
        address, handle = driver.alloc(SIZE), hal.IpcHandle()
        driver.ok(driver.mem_export(0, address, c.byref(handle)))
        device, twin, size = c.c_int32(), c.c_void_p(), c.c_uint64()
        driver.ok(driver.mem_import(c.byref(handle), c.byref(device), c.byref(twin), c.byref(size)))
        driver.write(address, PATTERN)
        probe.expect(driver.read(twin.value, SIZE) == PATTERN, "memory that was imported has other bytes than the memory that was exported")
        driver.refuses(driver.mem_close(0, address), hal.INVALID_VALUE, "memory that was not imported")
        driver.ok(driver.mem_close(0, twin.value))


@check
def a_capture_runs_when_it_is_launched(probe):
    "What is captured does not run, and each graph_launch runs all of it."
    with started(probe) as driver:
        stream, ran = driver.stream(), []
        driver.ok(driver.capture_begin(stream, hal.THREAD_LOCAL))
        driver.call(stream, lambda: ran.append(1))
        graph = driver.end_capture(stream)
        driver.finish(stream)
        probe.expect(not ran, "a task that was captured ran before graph_launch")
        for _ in range(3):
            driver.ok(driver.graph_launch(graph, stream))
        driver.finish(stream)
        probe.expect(len(ran) == 3, f"a graph with one task, launched 3 times, ran it {len(ran)} times")
        driver.ok(driver.graph_destroy(graph))


@check
def a_trace_has_calls_and_operations(probe):
    "The trace has a record for the call and one for the operation of a fill, with the same correlation."
    with started(probe) as driver:
        records, stream, address = [], driver.stream(), driver.alloc(SIZE)
        sink = c.CFUNCTYPE(None, c.c_void_p, c.POINTER(hal.TraceRecord))(
            lambda context, record: records.append((record.contents.kind, record.contents.operation, record.contents.correlation, record.contents.bytes)))
        driver.ok(driver.trace_exchange(c.cast(sink, hal.ptr), None))
        driver.ok(driver.fill(stream, address, 1, 100, None))
        driver.finish(stream)
        driver.ok(driver.trace_exchange(None, None))
        fills = [record for record in records if record[0] == hal.FILL]
        probe.expect(sorted(record[1] for record in fills) == [0, 1], f"the trace of a fill has {len(fills)} records of kind FILL, expected call and operation")
        probe.expect(len({record[2] for record in fills}) == 1 and fills[0][2], f"call and operation have the correlations {[r[2] for r in fills]}")
        probe.expect({record[3] for record in fills} == {100}, f"the trace of a fill of 100 bytes counts {[r[3] for r in fills]}")


@check
def a_lost_device_comes_back(probe):
    "After device_lose entries that use the device return DEVICE_LOST with the reason, until device_reset."
    with started(probe) as driver:
        stream = driver.stream()
        driver.lose(0, b"pulled out")
        driver.refuses(driver.mem_alloc(0, SIZE, c.byref(c.c_void_p())), hal.DEVICE_LOST, "a device that is lost")
        probe.expect("pulled out" in driver.message(), f"the message of a lost device does not say why: {driver.message()!r}")
        driver.ok(driver.device_reset(0))
        ran = []
        driver.call(stream, lambda: ran.append(1))
        driver.finish(stream)
        probe.expect(ran == [1], "after device_reset a stream does not run tasks")


@check
def usage_is_a_part_of_the_whole(probe):
    "device_usage gives a busy part from 0 to 1000 permille, and refuses a window of more than ten seconds."
    with started(probe) as driver:
        usage = hal.Usage(struct_size=c.sizeof(hal.Usage))
        driver.ok(driver.device_usage(0, 1_000_000, c.byref(usage)))
        probe.expect(usage.busy_permille <= 1000, f"device_usage says that the device is busy for {usage.busy_permille} permille of the time")
        driver.refuses(driver.device_usage(0, 11 * 10**9, c.byref(usage)), hal.INVALID_VALUE, "a window of 11 seconds")


@check
def a_forked_child_is_refused(probe):
    "In a forked child entries return FORKED; the parent goes on."
    if not hasattr(os, "fork"):
        raise NotApplicable("this system has no fork")
    with started(probe) as driver:
        probe.expect(driver.devices >= 1, "device_count gives no device")
        child = os.fork()
        if child == 0:
            status = 255
            with contextlib.suppress(BaseException):
                status = driver.device_count(c.byref(c.c_int32()))
            os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        driver.refuses(status, hal.FORKED, "a forked child as the caller")
        probe.expect(driver.devices >= 1, "after a fork the parent's device_count fails")
