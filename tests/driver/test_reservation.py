"""Memory that grows: reserved addresses, memory mapped behind them and taken away again; and who has memory. Drivers without the
(optional) entries are in exceptions.py."""

import ctypes as c
import os
import subprocess
import sys
import textwrap

import hal

PAGE = 2 << 20


def reserve(driver, bytes):
    out = c.c_void_p()
    driver.ok(driver.mem_reserve(0, bytes, c.byref(out)))
    return out.value


def test_mapping_takes_memory_and_reserving_does_not(driver):
    free, total = driver.memory()
    base = reserve(driver, 4 * total)
    assert base % PAGE == 0 and driver.memory() == (free, total)
    driver.ok(driver.mem_map(0, base, PAGE))
    driver.ok(driver.mem_map(0, base + 4 * PAGE, 2 * PAGE))
    assert driver.memory() == (free - 3 * PAGE, total)
    driver.ok(driver.mem_unmap(0, base, PAGE))
    driver.ok(driver.mem_unmap(0, base + 4 * PAGE, 2 * PAGE))
    assert driver.memory() == (free, total)
    driver.ok(driver.mem_unreserve(0, base))


def test_pages_side_by_side_are_one_allocation(driver):
    base = reserve(driver, 8 * PAGE)
    for page in (0, 2, 1):
        driver.ok(driver.mem_map(0, base + page * PAGE, PAGE))
    start, length = c.c_void_p(), c.c_uint64()
    driver.ok(driver.mem_query(base + 2 * PAGE + 5, None, c.byref(start), c.byref(length)))
    assert (start.value, length.value) == (base, 3 * PAGE)
    sent = os.urandom(3 * PAGE)
    driver.write(base, sent)
    assert driver.read(base, 3 * PAGE) == sent
    driver.ok(driver.mem_unmap(0, base + PAGE, PAGE))
    stream = driver.stream()
    assert driver.fill(stream, base, 1, PAGE + 1, None) == hal.INVALID_VALUE
    driver.ok(driver.fill(stream, base + 2 * PAGE, 1, PAGE, None))
    driver.ok(driver.sync(stream)[0])
    assert driver.read(base, PAGE) == sent[:PAGE] and driver.read(base + 2 * PAGE, PAGE) == bytes([1]) * PAGE
    for page in (0, 2):
        driver.ok(driver.mem_unmap(0, base + page * PAGE, PAGE))
    driver.ok(driver.mem_unreserve(0, base))


def test_what_is_no_page_of_a_reservation_is_refused(driver):
    base = reserve(driver, 4 * PAGE)
    driver.ok(driver.mem_map(0, base + PAGE, PAGE))
    block = driver.alloc(PAGE)
    before = driver.memory()
    for address, bytes in [(base + PAGE, PAGE), (base, 2 * PAGE), (base + PAGE, 2 * PAGE), (base + 4 * PAGE, PAGE), (base + 3 * PAGE, 2 * PAGE),
                           (base - PAGE, PAGE), (base, 0), (base, 100), (base + 100, PAGE), (base, 2**64 - PAGE), (block, PAGE), (12345, PAGE)]:
        assert driver.mem_map(0, address, bytes) == hal.INVALID_VALUE, (address - base, bytes)
    for address, bytes in [(base, PAGE), (base, 2 * PAGE), (base + PAGE, 2 * PAGE), (base + PAGE, 0), (base + PAGE, 100), (block, PAGE),
                           (base + PAGE, 2**64 - PAGE)]:
        assert driver.mem_unmap(0, address, bytes) == hal.INVALID_VALUE, (address - base, bytes)
    assert driver.mem_free(0, base) == driver.mem_free(0, base + PAGE) == hal.INVALID_VALUE
    assert driver.mem_unreserve(0, base) == hal.INVALID_VALUE, "a page is mapped"
    assert driver.mem_unreserve(0, base + PAGE) == driver.mem_unreserve(0, block) == hal.INVALID_VALUE
    out = c.c_void_p(3)
    assert driver.mem_reserve(0, 0, c.byref(out)) == driver.mem_reserve(0, 100, c.byref(out)) == hal.INVALID_VALUE
    assert driver.mem_reserve(0, PAGE, None) == hal.INVALID_VALUE and out.value == 3
    assert driver.memory() == before
    driver.ok(driver.mem_unmap(0, base + PAGE, PAGE))
    driver.ok(driver.mem_unreserve(0, base))
    assert driver.mem_unreserve(0, base) == hal.INVALID_VALUE
    driver.ok(driver.mem_free(0, block))


def test_the_capacity_and_the_addresses_are_limits(driver):
    free, total = driver.memory()
    base = reserve(driver, 2 * total)
    assert driver.mem_map(0, base, total + PAGE) == hal.OUT_OF_MEMORY and "used up" in driver.message()
    driver.ok(driver.mem_map(0, base, total))
    out = c.c_void_p()
    assert driver.mem_alloc(0, 1, c.byref(out)) == hal.OUT_OF_MEMORY
    driver.ok(driver.mem_unmap(0, base, total))
    driver.ok(driver.mem_unreserve(0, base))
    assert driver.mem_reserve(0, 2**60, c.byref(out)) == hal.OUT_OF_MEMORY and "addresses" in driver.message()
    assert driver.memory() == (free, total)


def test_unmapped_pages_go_back_to_the_system_and_come_back_empty(start_sim):
    driver = start_sim(memory="256MiB")
    base = reserve(driver, 128 << 20)
    stream = driver.stream()

    def resident():
        return sum(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssShmem"))

    before = resident()
    driver.ok(driver.mem_map(0, base, 128 << 20))
    driver.ok(driver.fill(stream, base, 7, 128 << 20, None))
    driver.ok(driver.sync(stream)[0])
    assert resident() - before > 120 << 10
    driver.ok(driver.mem_unmap(0, base, 128 << 20))
    assert resident() - before < 8 << 10
    driver.ok(driver.mem_map(0, base, PAGE))
    assert driver.read(base, PAGE) == bytes(PAGE), "the simulator's new pages are zero"


def test_processes_with_memory_are_counted(driver):
    def own_bytes():
        count = c.c_uint32(0)
        driver.ok(driver.device_processes(0, None, c.byref(count)))
        found = (hal.Process * (count.value + 8))()
        count = c.c_uint32(len(found))
        driver.ok(driver.device_processes(0, found, c.byref(count)))
        own = [entry.bytes for entry in found[: count.value] if entry.pid == os.getpid()]
        assert len(own) <= 1
        return sum(own)

    before = own_bytes()  # of other drivers that tests have loaded into this process
    address = driver.alloc(3 << 20)
    assert own_bytes() - before == 3 << 20
    assert driver.device_processes(0, None, None) == hal.INVALID_VALUE
    driver.ok(driver.mem_free(0, address))


def test_another_process_is_seen(start_sim, sim_path):
    driver = start_sim()
    program = textwrap.dedent(f"""
        import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})
        import hal
        driver = hal.Driver({str(sim_path)!r}).start(memory="64MiB")
        driver.alloc(5 << 20)
        print("ready", flush=True)
        sys.stdin.read()
    """)
    other = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "ready\n"
        found, count = (hal.Process * 64)(), c.c_uint32(64)
        driver.ok(driver.device_processes(0, found, c.byref(count)))
        assert [entry.bytes for entry in found[: count.value] if entry.pid == other.pid] == [5 << 20]
    finally:
        other.communicate("")
