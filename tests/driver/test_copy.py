"""copy and fill. Any driver."""

import ctypes as c

import pytest

import hal

PATTERN = bytes(range(256)) * 64


@pytest.mark.parametrize("bytes", [1, 63, 4096, 100_003, 8 * 2**20 + 5])
def test_to_the_device_and_back(driver, bytes):
    data = (PATTERN * (bytes // len(PATTERN) + 1))[:bytes]
    address = driver.alloc(bytes)
    driver.write(address, data)
    assert driver.read(address, bytes) == data


def test_copies_keep_stream_order(driver):
    stream, first, second = driver.stream(), driver.alloc(4096), driver.alloc(4096)
    source, target = c.create_string_buffer(b"a" * 4096, 4096), c.create_string_buffer(4096)
    driver.ok(driver.copy(stream, first, 0, c.cast(source, c.c_void_p), hal.HOST, 4096, None))
    driver.ok(driver.copy(stream, second, 0, first, 0, 4096, None))
    driver.ok(driver.fill(stream, first, 0x62, 4096, None))
    driver.ok(driver.copy(stream, second + 8, 0, first + 8, 0, 8, None))
    driver.ok(driver.copy(stream, c.cast(target, c.c_void_p), hal.HOST, second, 0, 4096, None))
    driver.ok(driver.sync(stream)[0])
    assert target.raw == b"a" * 8 + b"b" * 8 + b"a" * 4080


@pytest.mark.parametrize("offset", [-100, 100])
def test_overlapping_ranges_move(driver, offset):
    address, stream = driver.alloc(8192), driver.stream()
    driver.write(address, PATTERN[:8192])
    driver.ok(driver.copy(stream, address + 1000 + offset, 0, address + 1000, 0, 4000, None))
    driver.ok(driver.sync(stream)[0])
    assert driver.read(address + 1000 + offset, 4000) == PATTERN[1000:5000]


def test_copy_between_devices(driver):
    first, second = driver.alloc(10_000, 0), driver.alloc(10_000, 1)
    driver.write(first, PATTERN[:10_000])
    for device in (0, 1):
        stream = driver.stream(device)
        driver.ok(driver.fill(driver.stream(1), second, 0, 10_000, None))
        driver.ok(driver.device_synchronize(1, hal.NEVER, None))
        driver.ok(driver.copy(stream, second, 1, first, 0, 10_000, None))
        driver.ok(driver.sync(stream)[0])
        assert driver.read(second, 10_000, 1) == PATTERN[:10_000]


def test_stream_of_a_third_device_is_refused(driver):
    first, second = driver.alloc(64, 0), driver.alloc(64, 0)
    assert driver.copy(driver.stream(1), second, 0, first, 0, 64, None) == hal.INVALID_VALUE
    assert driver.fill(driver.stream(1), first, 0, 64, None) == hal.INVALID_VALUE


def test_fill_sets_exactly_its_bytes(driver):
    address, stream = driver.alloc(4096), driver.stream()
    driver.ok(driver.fill(stream, address, 1, 4096, None))
    driver.ok(driver.fill(stream, address + 10, 255, 5, None))
    driver.ok(driver.sync(stream)[0])
    assert driver.read(address, 20) == b"\1" * 10 + b"\xff" * 5 + b"\1" * 5


def test_ranges_outside_one_live_allocation_are_refused_at_the_call(driver):
    address, stream = driver.alloc(4096), driver.stream()
    granularity = driver.info().allocation_granularity_bytes
    size = -(-4096 // granularity) * granularity
    host = c.cast(c.create_string_buffer(64), c.c_void_p)
    for dst, bytes in [(address, size + 1), (address + size - 1, 2), (address + size, 1), (address - 1, 1), (None, 1), (address, 2**63),
                       (address + 5, 2**64 - 3), (host, 1)]:
        assert driver.copy(stream, dst, 0, host, hal.HOST, bytes, None) == hal.INVALID_VALUE
        assert driver.copy(stream, host, hal.HOST, dst, 0, bytes, None) == hal.INVALID_VALUE
        assert driver.fill(stream, dst, 0, bytes, None) == hal.INVALID_VALUE
        assert driver.message()
    driver.ok(driver.mem_free(0, address))
    assert driver.copy(stream, address, 0, host, hal.HOST, 1, None) == hal.INVALID_VALUE


def test_wrong_sides_are_refused(driver):
    address, stream = driver.alloc(4096), driver.stream()
    host = c.cast(c.create_string_buffer(64), c.c_void_p)
    assert driver.copy(stream, host, hal.HOST, host, hal.HOST, 8, None) == hal.INVALID_VALUE
    assert driver.copy(stream, address, 0, None, hal.HOST, 8, None) == hal.INVALID_VALUE
    assert driver.copy(stream, address, 0, address + 64, hal.HOST, 8, None) == hal.INVALID_VALUE
    assert "device memory" in driver.message() or "belongs to device" in driver.message()
    for device in (-2, 99, 2**31 - 1):
        assert driver.copy(stream, address, device, host, hal.HOST, 8, None) == hal.INVALID_DEVICE
        assert driver.copy(stream, host, hal.HOST, address, device, 8, None) == hal.INVALID_DEVICE


def test_nothing_to_copy_is_fine(driver):
    stream = driver.stream()
    driver.ok(driver.copy(stream, None, 0, None, hal.HOST, 0, None))
    driver.ok(driver.fill(stream, None, 0, 0, None))
    driver.ok(driver.sync(stream)[0])


def test_cleanup_of_a_copy_runs_once_with_null(driver):
    seen = []
    cleanup = hal.Cleanup(seen.append)
    stream, address = driver.stream(), driver.alloc(64)
    desc = driver.desc(cleanup=cleanup)
    driver.ok(driver.fill(stream, address, 0, 64, c.byref(desc)))
    driver.ok(driver.copy(stream, address, 0, address, 0, 0, c.byref(desc)))
    driver.ok(driver.sync(stream)[0])
    assert seen == [None, None]


def test_descriptor_without_a_size_is_refused(driver):
    address = driver.alloc(64)
    assert driver.fill(driver.stream(), address, 0, 64, c.byref(hal.LaunchDesc())) == hal.INVALID_VALUE
    assert "struct_size" in driver.message()
