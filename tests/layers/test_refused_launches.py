"""Launches that a driver refuses, tasks that fail, and tasks that are skipped after them touch nothing. Needs no torch."""

import ctypes as c

import hal
import layered
import pytest


@pytest.fixture
def two(device):
    return device.stream(), device.stream()


def modes(device):
    return [finding[0] for finding in device.findings()]


def refused(device, stream, *operands):
    """A launch without a function, which no driver takes."""
    ranges = (hal.Range * len(operands))(*(hal.Range(*operand) for operand in operands))
    desc = hal.LaunchDesc(c.sizeof(hal.LaunchDesc), b"refused", 0, 0, 0, ranges, len(operands), None, None)
    assert device.launch_host_func(stream, None, None, 0, c.byref(desc)) == hal.INVALID_VALUE


def test_a_refused_launch_races_with_nothing(device, two):
    memory = device.alloc(4096)
    refused(device, two[0], (memory, 64, 1))
    device.use(two[1], (memory, 64, 1))
    assert not device.findings()


def test_a_refused_copy_races_with_nothing(device, two):
    memory, other = device.alloc(4096), device.alloc(4096)
    assert device.copy(two[0], memory, 0, other, 0, 1 << 20, None) == hal.INVALID_VALUE
    device.use(two[1], (memory, 64, 1))
    assert not device.findings()


def test_a_refused_launch_writes_nothing(device, two):
    device.library.sanitize(layered.INIT)
    memory = device.alloc(4096)
    refused(device, two[0], (memory, 64, 1))
    assert device.fill(two[0], memory, 0, 1 << 20, None) == hal.INVALID_VALUE
    device.use(two[0], (memory, 64, 0))
    assert modes(device) == ["init"]


def test_a_refused_launch_that_names_freed_memory_is_told_all_the_same(device, two):
    memory, other = device.alloc(4096), device.alloc(4096)
    device.ok(device.mem_free(0, memory))
    assert device.copy(two[0], other, 0, memory, 0, 64, None) == hal.INVALID_VALUE
    assert modes(device) == ["lifetime"]


def fail_then(device, stream, *programs):
    """A task that fails, and what comes behind it before the host is told."""
    device.use(stream, fails=True, name=b"broken")
    for program in programs:
        program()
    assert device.sync(stream)[0] == hal.LAUNCH_FAILED


def test_what_a_failed_task_should_have_written_is_unwritten(device, two):
    device.library.sanitize(layered.INIT)
    memory = device.alloc(4096)
    device.use(two[0], (memory, 64, 1), fails=True)
    assert device.sync(two[0])[0] == hal.LAUNCH_FAILED
    device.use(two[0], (memory, 64, 0), name=b"reader")
    [(mode, sentence, *_)] = device.findings()
    assert mode == "init" and "reader" in sentence


def test_what_skipped_tasks_should_have_written_is_unwritten(device, two):
    device.library.sanitize(layered.INIT)
    launched, filled, copied = (device.alloc(4096) for _ in range(3))
    device.use(two[0], (launched, 64, 1))
    fail_then(device, two[0], lambda: device.use(two[0], (launched + 64, 64, 1)), lambda: device.ok(device.fill(two[0], filled, 0, 64, None)),
              lambda: device.ok(device.copy(two[0], copied, 0, launched, 0, 64, None)))
    device.use(two[0], (launched, 64, 0))
    assert not device.findings()
    for name, address in ((b"launched", launched + 64), (b"filled", filled), (b"copied", copied)):
        device.use(two[0], (address, 64, 0), name=name)
        assert modes(device) == ["init"]


def test_tasks_of_before_and_after_a_failure_have_written(device, two):
    device.library.sanitize(layered.INIT)
    memory = device.alloc(4096)
    device.use(two[0], (memory, 64, 1))
    fail_then(device, two[0], lambda: device.use(two[0], (memory, 64, 1)))
    device.use(two[0], (memory + 64, 64, 1))
    device.use(two[0], fails=True)
    assert device.sync(two[0])[0] == hal.LAUNCH_FAILED
    device.use(two[0], (memory, 128, 0))
    assert not device.findings()


def test_a_stream_that_waited_for_the_failed_one_has_skipped_its_tasks(device, two):
    device.library.sanitize(layered.INIT)
    memory = device.alloc(4096)

    def follow():
        device.order(*two)
        device.use(two[1], (memory, 64, 1))

    fail_then(device, two[0], follow)
    device.ok(device.sync(two[1])[0])  # a failure is reported once
    device.use(two[1], (memory, 64, 0))
    assert modes(device) == ["init"]


def test_a_stream_that_did_not_wait_has_run(device, two):
    device.library.sanitize(layered.INIT)
    memory = device.alloc(4096)
    fail_then(device, two[0], lambda: device.use(two[1], (memory, 64, 1)))
    device.ok(device.sync(two[1])[0])
    device.use(two[1], (memory, 64, 0))
    assert not device.findings()


def test_a_failure_is_a_failure_with_arguments_and_a_cleanup(device, two):
    device.library.sanitize(layered.INIT)
    memory, seen = device.alloc(4096), []

    @hal.HostFunc
    def task(arguments, error):
        seen.append(("task", c.cast(arguments, c.POINTER(c.c_uint64))[0]))
        return hal.OK

    @hal.Cleanup
    def cleanup(arguments):
        seen.append(("cleanup", c.cast(arguments, c.POINTER(c.c_uint64))[0]))

    ranges = (hal.Range * 1)(hal.Range(memory, 64, 1))
    desc = hal.LaunchDesc(c.sizeof(hal.LaunchDesc), b"op", 0, 0, 0, ranges, 1, c.cast(cleanup, hal.ptr), None)
    value = c.c_uint64(42)
    device.ok(device.launch_host_func(two[0], c.cast(task, hal.ptr), c.cast(c.byref(value), hal.ptr), 8, c.byref(desc)))
    device.ok(device.sync(two[0])[0])
    assert seen == [("task", 42), ("cleanup", 42)]


def test_a_guard_zone_whose_filling_was_skipped_is_not_looked_at(device, two):
    device.library.sanitize(layered.BOUNDS)
    base = device.alloc(1 << 16)
    device.library.expect_runtime_blocks(1)
    fail_then(device, two[0], lambda: device.library.block_allocated(two[0], c.c_void_p(base), c.c_uint64(1024), c.c_uint64(600)))
    device.use(two[0], (base, 600, 1))
    device.ok(device.sync(two[0])[0])
    assert not device.findings()
    device.library.expect_runtime_blocks(0)


def test_a_reset_device_has_undefined_memory_and_nothing_that_runs(device, two):
    device.library.sanitize(layered.INIT | layered.RACES)
    base = device.alloc(1 << 16)
    device.library.expect_runtime_blocks(1)
    device.library.block_allocated(two[0], c.c_void_p(base), c.c_uint64(1024), c.c_uint64(1024))
    device.use(two[0], (base, 64, 1))
    device.ok(device.device_lose(0, b"a test"))
    assert device.device_synchronize(0, hal.NEVER, None) == hal.DEVICE_LOST
    device.use(two[0], (base, 1024, 1), status=hal.DEVICE_LOST)
    device.ok(device.device_reset(0))
    device.use(two[1], (base, 64, 0))
    assert modes(device) == ["init"]
    device.use(two[1], (base, 64, 1))
    assert not device.findings()
    device.library.expect_runtime_blocks(0)


# ---- What tasks promise to tell -----------------------------------------------


def test_promises_of_tasks_that_never_tell_are_given_up(device, two):
    memory = device.alloc(4096)
    for _ in range(5000):
        token = device.library.new_token()
        refused_token = device.library.new_token()
        assert token < refused_token
        device.use(two[0], (memory, (64, 64), (64, 1), 1, layered.SOME, token))
        device.ok(device.sync(two[0])[0])
        device.use(two[0], (memory, 4096, 1))
    assert device.library.open_promises() < 2500
    device.keep.clear()


def test_a_task_that_others_are_told_by_orders_what_lies_before_it(device, two):
    memory = device.alloc(4096)
    device.use(two[0], (memory, 64, 1))
    mark = device.library.new_mark(two[0])
    device.use(two[0], (memory + 64, 64, 1))
    device.library.reached(c.c_uint64(mark))
    device.use(two[1], (memory, 64, 1))
    assert not device.findings()
    device.use(two[1], (memory + 64, 64, 1))
    assert modes(device) == ["race"]


# ---- Poison -------------------------------------------------------------------


@pytest.mark.parametrize("bytes", [1, 2, 3, 512, 4095])
def test_poison_is_a_pattern_of_two_bytes(device, two, bytes):
    memory = device.alloc(4096)
    device.ok(device.fill(two[0], memory, 0, 4096, None))
    device.ok(device.library.poison(c.byref(device.table), two[0], c.c_void_p(memory), c.c_uint64(bytes)))
    device.ok(device.sync(two[0])[0])
    assert device.read(memory, 4096) == (b"\xff\x7f" * 2048)[:bytes] + b"\0" * (4096 - bytes)


def test_poison_writes_nothing_in_the_eyes_of_init(device, two):
    device.library.sanitize(layered.INIT)
    memory = device.alloc(4096)
    device.ok(device.library.poison(c.byref(device.table), two[0], c.c_void_p(memory), c.c_uint64(4096)))
    device.use(two[0], (memory, 64, 0))
    assert modes(device) == ["init"]


def test_poison_travels_by_copies_where_the_host_cannot_map_memory(staged):
    stream, size = staged.stream(), (1 << 20) + 3
    memory = staged.alloc(size)
    staged.ok(staged.library.poison(c.byref(staged.table), stream, c.c_void_p(memory), c.c_uint64(size)))
    staged.ok(staged.sync(stream)[0])
    assert staged.read(memory, size) == (b"\xff\x7f" * size)[:size]
