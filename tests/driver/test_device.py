"""Life of a driver and questions about devices: init, shutdown, last_message, device_*. Any driver."""

import ctypes as c

import pytest

import hal


def test_entries_refuse_before_init_and_after_shutdown(stopped_driver):
    d = stopped_driver
    count = c.c_int32(-5)
    for _ in range(2):
        assert d.device_count(c.byref(count)) == hal.NOT_INITIALIZED
        assert "init" in d.message()
        assert d.mem_alloc(0, 4096, c.byref(c.c_void_p())) == hal.NOT_INITIALIZED
        assert d.stream_query(None) == hal.NOT_INITIALIZED
        assert d.shutdown(0) == hal.NOT_INITIALIZED
        assert count.value == -5
        d.start(**d.options)
        d.ok(d.shutdown(hal.NEVER))


def test_init_twice_is_refused(driver):
    assert driver.init(None, 0) == hal.INVALID_VALUE
    assert "shutdown" in driver.message()
    assert driver.devices >= 1


def test_unknown_option_is_named(stopped_driver):
    pairs = (hal.Option * 1)(hal.Option(b"colour", b"red"))
    assert stopped_driver.init(pairs, 1) == hal.INVALID_VALUE
    assert "colour" in stopped_driver.message()
    assert stopped_driver.init(None, 3) == hal.INVALID_VALUE
    assert stopped_driver.init((hal.Option * 1)(hal.Option(None, None)), 1) == hal.INVALID_VALUE


def test_handles_and_memory_end_with_shutdown(stopped_driver):
    d = stopped_driver.start(**stopped_driver.options)
    stream, event, address = d.stream(), d.event(), d.alloc(4096)
    d.ok(d.shutdown(hal.NEVER))
    d.start(**d.options)
    assert d.stream_query(stream) == hal.INVALID_VALUE
    assert d.event_query(event) == hal.INVALID_VALUE
    assert d.mem_query(address, None, None, None) == hal.INVALID_VALUE
    free, total = d.memory()
    assert free == total


def test_info(driver):
    for device in range(driver.devices):
        info = driver.info(device)
        assert info.name and info.total_memory_bytes == driver.memory(device)[1]
        assert info.allocation_granularity_bytes >= 512 and info.compute_units >= 1
        assert info.priority_greatest <= info.priority_least


def test_info_fills_no_more_than_the_caller_knows(driver):
    info = hal.DeviceInfo(struct_size=72, compute_units=-7)
    driver.ok(driver.device_info(0, c.byref(info)))
    assert info.name and info.struct_size == 72 and info.compute_units == -7 and info.total_memory_bytes == 0
    assert driver.device_info(0, c.byref(hal.DeviceInfo())) == hal.INVALID_VALUE


@pytest.mark.parametrize("device", [-1, -2**31, 99, 2**31 - 1])
def test_no_such_device(driver, device):
    d = driver
    out, number = c.c_void_p(1), c.c_uint64(2)
    calls = [lambda: d.device_info(device, c.byref(hal.DeviceInfo(struct_size=c.sizeof(hal.DeviceInfo)))),
             lambda: d.device_synchronize(device, 0, None), lambda: d.device_clock(device, c.byref(number)),
             lambda: d.mem_alloc(device, 4096, c.byref(out)), lambda: d.mem_free(device, None),
             lambda: d.mem_info(device, c.byref(number), c.byref(number)), lambda: d.mem_kernel_view(device, c.byref(c.c_ssize_t())),
             lambda: d.stream_create(device, 0, c.byref(out)), lambda: d.event_create(device, 0, c.byref(out)),
             lambda: d.kernel_load(device, b"k", 1, 0, c.byref(out))]
    for call in calls:
        assert call() == hal.INVALID_DEVICE
        assert str(device) in d.message()
    assert (out.value, number.value) == (1, 2)


def test_null_outputs_are_refused(driver):
    d = driver
    stream, event = d.stream(), d.event()
    calls = {"device_count": (None,), "device_info": (0, None), "device_clock": (0, None), "mem_alloc": (0, 4096, None),
             "mem_info": (0, None, None), "mem_kernel_view": (0, None), "host_alloc": (64, None), "stream_create": (0, 0, None),
             "stream_info": (stream, None), "event_create": (0, 0, None), "event_elapsed": (event, event, None),
             "kernel_load": (0, b"k", None, 0, None)}
    for entry, arguments in calls.items():
        assert getattr(d, entry)(*arguments) == hal.INVALID_VALUE, entry
        assert "null" in d.message(), entry


@pytest.mark.parametrize("handle", [0, 1, 0xDEADBEEF, 2**64 - 1, 2**63 + 12345])
def test_unknown_handles_are_refused(driver, handle):
    d = driver
    stream, event, geometry = d.stream(), d.event(), hal.Geometry((1, 1, 1), (1, 1, 1))
    bad = c.c_void_p(handle)
    calls = [lambda: d.stream_destroy(bad), lambda: d.stream_query(bad), lambda: d.stream_synchronize(bad, 0, None),
             lambda: d.stream_wait_event(bad, event), lambda: d.stream_wait_event(stream, bad),
             lambda: d.stream_info(bad, c.byref(hal.StreamInfo(struct_size=168))), lambda: d.event_destroy(bad),
             lambda: d.event_record(bad, stream), lambda: d.event_record(event, bad), lambda: d.event_query(bad),
             lambda: d.event_synchronize(bad, 0, None), lambda: d.event_elapsed(bad, event, c.byref(c.c_int64())),
             lambda: d.kernel_unload(bad), lambda: d.launch_kernel(stream, bad, c.byref(geometry), None, 0, None),
             lambda: d.launch_host_func(bad, 1, None, 0, None), lambda: d.fill(bad, None, 0, 0, None),
             lambda: d.copy(bad, None, 0, None, -1, 0, None), lambda: d.mem_free(0, bad), lambda: d.host_free(bad),
             lambda: d.mem_query(bad, None, None, None), lambda: d.host_query(bad, None, None)]
    for call in calls:
        assert call() == hal.INVALID_VALUE
        assert d.message()


def test_a_handle_of_another_kind_is_refused(driver):
    stream, event = driver.stream(), driver.event()
    assert driver.stream_query(event) == hal.INVALID_VALUE
    assert driver.event_query(stream) == hal.INVALID_VALUE


def test_clock_moves_forward(driver):
    first, second = c.c_uint64(), c.c_uint64()
    driver.ok(driver.device_clock(0, c.byref(first)))
    driver.ok(driver.device_clock(0, c.byref(second)))
    assert second.value >= first.value > 0


def test_synchronize_waits_for_every_stream(driver, tasks):
    logs = []
    for _ in range(5):
        stream, log = driver.stream(), tasks.log()
        for value in range(20):
            tasks.append(driver, stream, log, value)
        logs.append(log)
    driver.ok(driver.device_synchronize(0, hal.NEVER, None))
    assert all(log.list() == list(range(20)) for log in logs)


# ---- the simulator's options ----


def refused(sim_path, **options):
    d = hal.Driver(sim_path)
    pairs = (hal.Option * len(options))(*[(k.encode(), v.encode()) for k, v in options.items()])
    assert d.init(pairs, len(options)) == hal.INVALID_VALUE
    return d.message()


@pytest.mark.parametrize("option,values", [
    ("devices", ["0", "65", "-1", "two", "", "2x", "99999999999999999999"]),
    ("memory", ["0", "-1", "8 GiB", "8gib", "1.5GiB", "GiB", "", "99999999999TiB", "0MiB"]),
    ("schedule", ["", "Eager", "random", "random:", "random:x", "lazy:1"]),
    ("queue_bytes", ["0", "1", "4095", "2GiB", "x"]),
    ("compute_units", ["0", "-1", "4097", "many"]),
])
def test_bad_option_values_are_refused_by_name(sim_path, option, values):
    for value in values:
        message = refused(sim_path, **{option: value})
        assert option in message and f"'{value}'" in message


@pytest.mark.parametrize("text,bytes", [("67108864", 2**26), ("64MiB", 2**26), ("1GiB", 2**30), ("65536KiB", 2**26),
                                        ("1GB", 10**9 // 4096 * 4096), ("100MB", 10**8 // 4096 * 4096)])
def test_memory_option(start_sim, text, bytes):
    assert start_sim(memory=text).memory() == (bytes, bytes)


def test_device_and_unit_options(start_sim):
    d = start_sim(devices=64, memory="16MiB", compute_units=7)
    assert d.devices == 64 and d.info(63).compute_units == 7


def test_default_memory_is_under_half_of_the_machine(sim_path):
    d = hal.Driver(sim_path)
    with d.started(devices=3):
        total = sum(d.memory(device)[1] for device in range(3))
        pages = int(next(line for line in open("/proc/meminfo") if line.startswith("MemTotal")).split()[1]) * 1024
        assert total < pages / 2 and d.memory(0)[1] < 16 * 2**30
