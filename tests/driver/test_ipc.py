"""Memory and events between processes: names, mappings, ends of either side. Any driver that shares; the simulator's limits where a test says sim."""

import ctypes as c
import os
import subprocess
import sys

import conftest
import hal
import pytest


@pytest.fixture
def sharing(driver):
    if not c.cast(driver.table.mem_export, c.c_void_p).value:
        pytest.skip(f"the driver {driver.name} leaves the optional entries between processes out")
    return driver


def export(driver, address, device=0):
    handle = hal.IpcHandle()
    driver.ok(driver.mem_export(device, address, c.byref(handle)))
    return handle


def imported(driver, handle):
    device, address, size = c.c_int32(-1), c.c_void_p(), c.c_uint64()
    driver.ok(driver.mem_import(c.byref(handle), c.byref(device), c.byref(address), c.byref(size)))
    return device.value, address.value, size.value


CHILD = """
handle = hal.IpcHandle.from_buffer_copy(bytes.fromhex(sys.stdin.readline()))
device, address, size = c.c_int32(), c.c_void_p(), c.c_uint64()
def open_memory():
    status = d.mem_import(c.byref(handle), c.byref(device), c.byref(address), c.byref(size))
    return status
def say(*words):
    print(*words, flush=True)
"""


def test_an_import_shows_the_exporters_bytes_both_ways(sharing):
    driver = sharing
    before = driver.memory(1)
    address = driver.alloc(8192, device=1)
    driver.write(address, b"first", device=1)
    used = driver.memory(1)
    device, twin, size = imported(driver, export(driver, address, device=1))
    assert device == 1 and twin != address and size >= 8192 and driver.memory(1) == used
    assert driver.read(twin, 5, device=1) == b"first"
    driver.write(twin + 4000, b"second", device=1)
    assert driver.read(address + 4000, 6, device=1) == b"second"
    base, length, owner = c.c_void_p(), c.c_uint64(), c.c_int32()
    driver.ok(driver.mem_query(twin + 100, c.byref(owner), c.byref(base), c.byref(length)))
    assert (owner.value, base.value, length.value) == (1, twin, size)
    driver.ok(driver.mem_close(1, twin))
    assert driver.mem_query(twin, None, None, None) == hal.INVALID_VALUE
    driver.ok(driver.mem_free(1, address))
    assert driver.memory(1) == before


def test_imported_bytes_outlive_the_exporters_allocation(sharing):
    driver = sharing
    address = driver.alloc(4096)
    driver.write(address, b"still here")
    _, twin, _ = imported(driver, export(driver, address))
    driver.ok(driver.mem_free(0, address))
    assert driver.read(twin, 10) == b"still here"
    driver.ok(driver.mem_close(0, twin))


def test_a_handle_of_freed_memory_and_foreign_bytes_are_refused(sharing):
    driver = sharing
    address = driver.alloc(4096)
    handle = export(driver, address)
    driver.ok(driver.mem_free(0, address))
    out = (c.c_int32(7), c.c_void_p(7), c.c_uint64(7))
    for wrong in (handle, hal.IpcHandle(), hal.IpcHandle.from_buffer_copy(os.urandom(64))):
        assert driver.mem_import(c.byref(wrong), *map(c.byref, out)) == hal.INVALID_VALUE and driver.message()
    assert [value.value for value in out] == [7, 7, 7]
    assert driver.mem_import(c.byref(handle), None, None, None) == hal.INVALID_VALUE


def test_only_whole_own_allocations_are_exported_and_only_imports_are_closed(sharing):
    driver = sharing
    address = driver.alloc(8192)
    handle = hal.IpcHandle()
    for wrong in (address + 4096, 4096, None):
        assert driver.mem_export(0, wrong, c.byref(handle)) == hal.INVALID_VALUE
    assert driver.mem_export(9, address, c.byref(handle)) == hal.INVALID_DEVICE
    assert driver.mem_export(0, address, None) == hal.INVALID_VALUE
    assert bytes(handle.bytes) == bytes(64)
    _, twin, _ = imported(driver, export(driver, address))
    assert driver.mem_export(0, twin, c.byref(handle)) == hal.INVALID_VALUE
    assert driver.mem_free(0, twin) == hal.INVALID_VALUE
    assert driver.mem_close(0, address) == hal.INVALID_VALUE
    driver.ok(driver.mem_close(0, twin))
    assert driver.mem_close(0, twin) == hal.INVALID_VALUE
    driver.ok(driver.mem_free(0, address))


def test_memory_mapped_into_a_reservation_is_shared_too(sharing):
    driver, out = sharing, c.c_void_p()
    if not c.cast(driver.table.mem_reserve, c.c_void_p).value:
        pytest.skip(f"the driver {driver.name} leaves the optional reservations out")
    driver.ok(driver.mem_reserve(0, 8 << 20, c.byref(out)))
    base = out.value
    driver.ok(driver.mem_map(0, base + (2 << 20), 2 << 20))
    driver.ok(driver.mem_map(0, base + (4 << 20), 2 << 20))
    start, length = c.c_void_p(), c.c_uint64()
    driver.ok(driver.mem_query(base + (5 << 20), None, c.byref(start), c.byref(length)))
    driver.write(base + (5 << 20), b"grown")
    _, twin, size = imported(driver, export(driver, start.value))
    assert size == length.value and driver.read(twin + base + (5 << 20) - start.value, 5) == b"grown"
    driver.ok(driver.mem_close(0, twin))
    driver.ok(driver.mem_unmap(0, base + (2 << 20), 4 << 20))
    driver.ok(driver.mem_unreserve(0, base))


def child(path, code, options):
    prelude = f"import ctypes as c, os, sys, time\nsys.path.insert(0, {str(conftest.HERE)!r})\nimport hal\nd = hal.Driver({str(path)!r})\nd.start(**{options!r})\n"
    return subprocess.Popen([sys.executable, "-c", prelude + CHILD + code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def start_child(driver, sim_path, code, handle, **options):
    process = child(sim_path, code, {"memory": "64MiB", "schedule": conftest.SCHEDULES[driver.schedule], **options})
    process.stdin.write(bytes(handle.bytes).hex() + "\n")
    process.stdin.flush()
    return process


def test_sim_another_process_reads_and_writes_and_keeps_what_the_exporter_freed(sharing, sim_path):
    driver = sharing
    address = driver.alloc(4096)
    driver.write(address, b"from parent")
    process = start_child(driver, sim_path, """
d.ok(open_memory()); say(device.value, d.read(address.value, 11).decode())
d.write(address.value, b'from child '); say('written')
sys.stdin.readline(); say(d.read(address.value, 11).decode())
""", export(driver, address))
    assert process.stdout.readline() == "0 from parent\n" and process.stdout.readline() == "written\n"
    assert driver.read(address, 11) == b"from child "
    driver.ok(driver.mem_free(0, address))
    assert process.communicate("go\n")[0] == "from child \n" and process.returncode == 0


def test_sim_a_handle_is_refused_where_the_device_is_missing(sharing, sim_path):
    address = sharing.alloc(4096, device=1)
    process = start_child(sharing, sim_path, "say(open_memory(), d.message())", export(sharing, address, device=1), devices="1")
    assert process.communicate()[0].startswith("3 ")


def test_sim_memory_of_a_process_that_ended_cannot_be_imported(sharing, sim_path):
    process = start_child(sharing, sim_path, """
a = d.alloc(4096); h = hal.IpcHandle(); d.ok(d.mem_export(0, a, c.byref(h))); say(bytes(h.bytes).hex()); sys.stdin.readline()
""", hal.IpcHandle())
    handle = hal.IpcHandle.from_buffer_copy(bytes.fromhex(process.stdout.readline()))
    _, twin, _ = imported(sharing, handle)
    sharing.write(twin, b"mine now")
    process.communicate("end\n")
    assert sharing.read(twin, 8) == b"mine now"
    out = (c.c_int32(), c.c_void_p(), c.c_uint64())
    assert sharing.mem_import(c.byref(handle), *map(c.byref, out)) == hal.INVALID_VALUE and "ended" in sharing.message()
    sharing.ok(sharing.mem_close(0, twin))


def shared_event(driver, device=0):
    event = c.c_void_p()
    driver.ok(driver.event_create_shared(device, c.byref(event)))
    handle = hal.IpcHandle()
    driver.ok(driver.event_export(event, c.byref(handle)))
    return event, handle


def test_a_shared_event_is_an_event_in_its_own_process(sharing, tasks):
    driver = sharing
    event, handle = shared_event(driver, 1)
    twin, device = c.c_void_p(), c.c_int32()
    driver.ok(driver.event_import(c.byref(handle), c.byref(device), c.byref(twin)))
    assert device.value == 1
    for each in (event, twin):
        driver.ok(driver.event_query(each))
        driver.ok(driver.event_synchronize(each, hal.NEVER, None))
    first, second, log = driver.stream(1), driver.stream(0), tasks.log()
    tasks.append(driver, first, log, 1, slowly=True)
    driver.ok(driver.event_record(twin, first))
    driver.ok(driver.stream_wait_event(second, event))
    tasks.append(driver, second, log, 2, slowly=True)
    driver.ok(driver.sync(second)[0])
    assert log.list() == [1, 2]
    driver.ok(driver.event_synchronize(twin, hal.NEVER, None))
    driver.ok(driver.event_query(event))
    driver.ok(driver.sync(first)[0])
    for each in (event, twin):
        driver.ok(driver.event_destroy(each))
    assert driver.event_import(c.byref(handle), c.byref(device), c.byref(twin)) == hal.INVALID_VALUE


def test_an_ordinary_event_is_not_exported_and_a_shared_one_does_not_measure(sharing):
    driver = sharing
    event, handle = driver.event(), hal.IpcHandle()
    assert driver.event_export(event, c.byref(handle)) == hal.INVALID_VALUE
    out = (c.c_int32(), c.c_void_p())
    assert driver.event_import(c.byref(handle), *map(c.byref, out)) == hal.INVALID_VALUE
    shared, _ = shared_event(driver)
    elapsed = c.c_int64()
    assert driver.event_elapsed(shared, shared, c.byref(elapsed)) == hal.INVALID_VALUE
    address = driver.alloc(64)
    assert driver.event_import(c.byref(export(driver, address)), *map(c.byref, out)) == hal.INVALID_VALUE


RECORDING = """
device, event = c.c_int32(), c.c_void_p()
d.ok(d.event_import(c.byref(handle), c.byref(device), c.byref(event)))
stream = d.stream(); gate = tasks.gate(d, stream)
d.ok(d.event_record(event, stream)); say('recorded')
"""


def test_sim_streams_and_hosts_wait_for_a_record_of_another_process(sharing, sim_path, tasks):
    driver = sharing
    event, handle = shared_event(driver)
    process = start_recorder(driver, sim_path, tasks, handle, "sys.stdin.readline(); gate.open(); d.ok(d.sync(stream)[0]); say('done'); sys.stdin.readline()")
    assert process.stdout.readline() == "recorded\n"
    assert driver.event_query(event) == hal.NOT_READY
    assert driver.event_synchronize(event, 30_000_000, None) == hal.NOT_READY
    stream, log = driver.stream(), tasks.log()
    driver.ok(driver.stream_wait_event(stream, event))
    tasks.append(driver, stream, log, 1, slowly=True)
    assert driver.stream_synchronize(stream, 30_000_000, None) == hal.NOT_READY and log.list() == []
    assert driver.stream_query(stream) == hal.NOT_READY
    process.stdin.write("open\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"
    driver.ok(driver.sync(stream)[0])
    driver.ok(driver.event_synchronize(event, hal.NEVER, None))
    driver.ok(driver.event_query(event))
    assert log.list() == [1]
    process.communicate("end\n")


def test_sim_a_record_whose_process_crashed_is_a_failure_and_no_hang(sharing, sim_path, tasks):
    driver = sharing
    event, handle = shared_event(driver)
    process = start_recorder(driver, sim_path, tasks, handle, "sys.stdin.readline(); os.kill(os.getpid(), 9)")
    assert process.stdout.readline() == "recorded\n"
    stream, other = driver.stream(), driver.stream()
    driver.ok(driver.stream_wait_event(stream, event))
    process.communicate("die\n")
    status, error = driver.sync(stream)
    assert status == hal.LAUNCH_FAILED and b"ended before the record completed" in error.message
    assert driver.event_synchronize(event, hal.NEVER, None) == hal.LAUNCH_FAILED
    driver.ok(driver.event_query(event))
    driver.ok(driver.event_record(event, other))
    driver.ok(driver.event_synchronize(event, hal.NEVER, None))
    driver.ok(driver.sync(stream)[0])


def start_recorder(driver, sim_path, tasks, handle, then):
    prelude = f"import conftest\ntasks = conftest.Tasks({tasks.library._name!r})\nd.schedule = 'eager'\n"
    # The recorder runs its tasks by itself: what is tested is who waits.
    process = child(sim_path, prelude + RECORDING + then, {"memory": "64MiB", "schedule": "eager"})
    process.stdin.write(bytes(handle.bytes).hex() + "\n")
    process.stdin.flush()
    return process
