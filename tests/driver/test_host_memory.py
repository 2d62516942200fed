"""host_alloc, host_free, host_query. Any driver."""

import ctypes as c

import hal


def host_alloc(driver, bytes):
    out = c.c_void_p()
    driver.ok(driver.host_alloc(bytes, c.byref(out)))
    return out.value


def test_blocks_are_aligned_writable_and_found(driver):
    address = host_alloc(driver, 1000)
    assert address % 64 == 0
    c.memset(address, 7, 1000)
    base, bytes = c.c_void_p(), c.c_uint64()
    driver.ok(driver.host_query(address + 999, c.byref(base), c.byref(bytes)))
    assert base.value == address and bytes.value >= 1000
    driver.ok(driver.host_query(address, None, None))
    driver.ok(driver.host_free(address))
    assert driver.host_query(address, None, None) == hal.INVALID_VALUE


def test_free_refuses_what_is_not_the_start_of_a_block(driver):
    address = host_alloc(driver, 1000)
    for wrong in [address + 1, None, 999]:
        assert driver.host_free(wrong) == hal.INVALID_VALUE
    driver.ok(driver.host_free(address))
    assert driver.host_free(address) == hal.INVALID_VALUE


def test_zero_and_impossible_sizes(driver):
    out = c.c_void_p(3)
    assert driver.host_alloc(0, c.byref(out)) == hal.INVALID_VALUE
    for bytes in [2**64 - 1, 2**63, 2**62]:
        assert driver.host_alloc(bytes, c.byref(out)) == hal.OUT_OF_MEMORY
    assert out.value == 3


def test_copies_reach_it(driver):
    host, device, stream = host_alloc(driver, 4096), driver.alloc(4096), driver.stream()
    c.memset(host, 5, 4096)
    driver.ok(driver.copy(stream, device, 0, host, hal.HOST, 4096, None))
    driver.ok(driver.sync(stream)[0])
    assert driver.read(device, 4096) == b"\5" * 4096
