"""launch_host_func, kernels. Any driver."""

import ctypes as c
import threading

import pytest

import hal


class CheckArgs(c.Structure):
    _fields_ = [("good", c.c_void_p), ("size", c.c_uint64)]


class AddArgs(c.Structure):
    _fields_ = [("values", c.c_void_p), ("count", c.c_uint64)]


def geometry(grid=(1, 1, 1), block=(1, 1, 1)):
    return hal.Geometry(grid, block)


def load(driver, function, device=0):
    kernel = hal.Kernel()
    driver.ok(driver.kernel_load(device, b"kernel", c.cast(function, c.c_void_p), 0, c.byref(kernel)))
    return kernel


def test_tasks_run_in_order(driver, tasks):
    stream, log = driver.stream(), tasks.log()
    for value in range(1000):
        tasks.append(driver, stream, log, value)
    driver.ok(driver.sync(stream)[0])
    assert log.list() == list(range(1000))


@pytest.mark.parametrize("size", [0, 1, 17, 400, 5000, 300_000, 5 * 2**20])
def test_arguments_are_copied_and_aligned(driver, tasks, size):
    good, stream = c.c_uint64(0), driver.stream()
    raw = bytearray(bytes(CheckArgs(c.addressof(good), size)) + bytes(i % 256 for i in range(size)))
    buffer = (c.c_char * len(raw)).from_buffer(raw)
    for _ in range(3):
        driver.ok(driver.launch_host_func(stream, c.cast(tasks.check_bytes, c.c_void_p), c.cast(buffer, c.c_void_p), len(raw), None))
    c.memset(buffer, 0xEE, len(raw))  # the caller's bytes are free again
    driver.ok(driver.sync(stream)[0])
    assert good.value == 3


def test_no_arguments_and_no_descriptor(driver, tasks):
    stream = driver.stream()
    driver.ok(driver.launch_host_func(stream, c.cast(tasks.nothing, c.c_void_p), None, 0, None))
    driver.ok(driver.sync(stream)[0])


def test_bad_launches_are_refused_and_call_no_cleanup(driver, tasks):
    stream, count = driver.stream(), c.c_uint64(0)
    argument = c.c_uint64(c.addressof(count))
    pointer, nothing = c.cast(c.byref(argument), c.c_void_p), c.cast(tasks.nothing, c.c_void_p)
    desc = driver.desc(cleanup=tasks.count_cleanup)
    assert driver.launch_host_func(stream, None, pointer, 8, c.byref(desc)) == hal.INVALID_VALUE
    assert driver.launch_host_func(stream, nothing, None, 8, c.byref(desc)) == hal.INVALID_VALUE
    for size in (2**64 - 1, 2**63, 2**50):
        assert driver.launch_host_func(stream, nothing, pointer, size, c.byref(desc)) in (hal.INVALID_VALUE, hal.OUT_OF_MEMORY)
    assert driver.launch_host_func(stream, nothing, pointer, 8, c.byref(hal.LaunchDesc(struct_size=4))) == hal.INVALID_VALUE
    driver.ok(driver.sync(stream)[0])
    assert count.value == 0


def test_cleanup_runs_once_per_task_and_before_completion_shows(driver, tasks):
    stream, count = driver.stream(), c.c_uint64(0)
    argument = c.c_uint64(c.addressof(count))
    for expected in range(1, 50):
        driver.launch(stream, tasks.nothing, argument, cleanup=tasks.count_cleanup)
        driver.ok(driver.sync(stream)[0])
        assert count.value == expected


def test_cleanup_runs_for_skipped_tasks(driver, tasks):
    stream, count, log = driver.stream(), c.c_uint64(0), tasks.log()
    tasks.fail(driver, stream)
    driver.launch(stream, tasks.nothing, c.c_uint64(c.addressof(count)), cleanup=tasks.count_cleanup)
    tasks.append(driver, stream, log, 1)
    assert driver.sync(stream)[0] == hal.LAUNCH_FAILED
    assert count.value == 1 and log.list() == []


def test_several_threads_feed_one_stream(driver, tasks):
    stream, log = driver.stream(), tasks.log()

    def feed(first):
        for i in range(500):
            tasks.append(driver, stream, log, first + i)

    threads = [threading.Thread(target=feed, args=(1000 * t,)) for t in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    driver.ok(driver.sync(stream)[0])
    values = log.list()
    assert len(values) == 2000
    for t in range(4):
        assert [v for v in values if v // 1000 == t] == [1000 * t + i for i in range(500)]


def test_kernel_runs_with_geometry_and_arguments(driver, tasks):
    address, stream = driver.alloc(64), driver.stream()
    driver.write(address, bytes(64))
    kernel = load(driver, tasks.add_threads)
    arguments = AddArgs(address + driver.delta(), 16)
    driver.ok(driver.launch_kernel(stream, kernel, c.byref(geometry((2, 3, 1), (4, 1, 1))), c.cast(c.byref(arguments), c.c_void_p), 16, None))
    driver.ok(driver.kernel_unload(kernel))  # what is queued keeps what it needs
    driver.ok(driver.sync(stream)[0])
    assert driver.read(address, 64) == (24).to_bytes(4, "little") * 16
    assert driver.kernel_unload(kernel) == hal.INVALID_VALUE
    assert driver.launch_kernel(stream, kernel, c.byref(geometry()), None, 0, None) == hal.INVALID_VALUE


def test_kernel_with_an_empty_grid_is_refused(driver, tasks):
    stream, kernel = driver.stream(), load(driver, tasks.add_threads)
    for shape in [((0, 1, 1), (1, 1, 1)), ((1, 1, 0), (1, 1, 1)), ((1, 1, 1), (1, 0, 1))]:
        assert driver.launch_kernel(stream, kernel, c.byref(geometry(*shape)), None, 0, None) == hal.INVALID_VALUE
        assert "size 0" in driver.message()
    assert driver.launch_kernel(stream, kernel, None, None, 0, None) == hal.INVALID_VALUE
    assert driver.launch_kernel(stream, kernel, c.byref(geometry()), None, 8, None) == hal.INVALID_VALUE


def test_kernel_of_another_device_is_refused(driver, tasks):
    kernel = load(driver, tasks.add_threads, device=1)
    assert driver.launch_kernel(driver.stream(0), kernel, c.byref(geometry()), None, 0, None) == hal.INVALID_VALUE
    assert "device 1" in driver.message()


def test_kernel_that_throws_is_a_failure(driver, tasks):
    stream, kernel = driver.stream(), load(driver, tasks.kernel_that_throws)
    driver.ok(driver.launch_kernel(stream, kernel, c.byref(geometry()), None, 0, None))
    status, error = driver.sync(stream)
    assert status == hal.LAUNCH_FAILED and b"thrown by a kernel" in error.message


def test_unknown_image_is_unsupported(driver):
    kernel = hal.Kernel()
    assert driver.kernel_load(0, b"spirv", b"\3\2#\7" * 4, 16, c.byref(kernel)) == hal.UNSUPPORTED
    assert not kernel.value
