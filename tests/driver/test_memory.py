"""Device memory: allocation, capacity, queries, and (simulator) the two views. Any driver unless it says sim."""

import ctypes as c
import mmap
import random

import hal


def test_allocations_are_aligned_disjoint_and_counted(driver):
    free, total = driver.memory()
    sizes = [1, 511, 512, 4096, 4097, 100_000, 2**20, 2**21, 3 * 2**21]
    blocks = [(driver.alloc(size), size) for size in sizes]
    assert all(address % 512 == 0 for address, _ in blocks)
    blocks.sort()
    assert all(a + size <= b for (a, size), (b, _) in zip(blocks, blocks[1:]))
    used = free - driver.memory()[0]
    granularity = driver.info().allocation_granularity_bytes
    assert used == sum(-(-size // granularity) * granularity for size in sizes)
    for address, _ in blocks:
        driver.ok(driver.mem_free(0, address))
    assert driver.memory() == (free, total)


def test_zero_bytes_are_refused(driver):
    out = c.c_void_p(3)
    assert driver.mem_alloc(0, 0, c.byref(out)) == hal.INVALID_VALUE and out.value == 3


def test_out_of_memory_names_the_numbers_and_changes_nothing(driver):
    free, total = driver.memory()
    out = c.c_void_p(3)
    for bytes in [total + 1, 2**63, 2**64 - 1, 2**64 - 4096]:
        assert driver.mem_alloc(0, bytes, c.byref(out)) == hal.OUT_OF_MEMORY
        assert str(bytes) in driver.message() and str(total) in driver.message()
    assert out.value == 3 and driver.memory() == (free, total)
    whole = driver.alloc(total)
    assert driver.memory() == (0, total)
    assert driver.mem_alloc(0, 1, c.byref(out)) == hal.OUT_OF_MEMORY
    driver.ok(driver.mem_free(0, whole))
    driver.ok(driver.mem_free(0, driver.alloc(total)))


def test_free_refuses_what_is_not_the_start_of_a_block(driver):
    address = driver.alloc(8192)
    for wrong in [address + 1, address + 4096, address - 512, 12345, None]:
        assert driver.mem_free(0, wrong) == hal.INVALID_VALUE
    driver.ok(driver.mem_free(0, address))
    assert driver.mem_free(0, address) == hal.INVALID_VALUE


def test_query_finds_the_block_around_an_address(driver):
    address = driver.alloc(5000)
    device, base, bytes = c.c_int32(-1), c.c_void_p(), c.c_uint64()
    for offset in [0, 1, 4999]:
        driver.ok(driver.mem_query(address + offset, c.byref(device), c.byref(base), c.byref(bytes)))
        assert (device.value, base.value) == (0, address) and bytes.value >= 5000
    driver.ok(driver.mem_query(address, None, None, None))
    assert driver.mem_query(address + bytes.value, None, None, None) == hal.INVALID_VALUE
    driver.ok(driver.mem_free(0, address))
    assert driver.mem_query(address, None, None, None) == hal.INVALID_VALUE
    assert driver.mem_query(c.addressof(device), None, None, None) == hal.INVALID_VALUE


def test_kernel_view_shows_the_bytes_of_the_device(driver):
    address = driver.alloc(4096)
    driver.write(address, b"seen by both")
    seen, delta = [], driver.delta()
    driver.call(driver.stream(), lambda: seen.append(c.string_at(address + delta, 12)))
    driver.ok(driver.device_synchronize(0, hal.NEVER, None))
    assert seen == [b"seen by both"]


def test_devices_have_their_own_memory(driver):
    free, total = driver.memory(0)
    first, second = driver.alloc(total, 0), driver.alloc(total, 1)
    device = c.c_int32()
    driver.ok(driver.mem_query(second, c.byref(device), None, None))
    assert device.value == 1
    assert driver.mem_free(0, second) == hal.INVALID_VALUE
    driver.ok(driver.mem_free(1, second))
    driver.ok(driver.mem_free(0, first))
    assert driver.delta(0) == driver.delta(0)


def test_random_allocations_keep_their_bytes(driver):
    rng, live = random.Random(3), {}
    for step in range(300):
        if live and rng.random() < 0.45:
            address = rng.choice(list(live))
            pattern, size = live.pop(address)
            assert driver.read(address, min(size, 64)) == pattern * min(size, 64)
            driver.ok(driver.mem_free(0, address))
        else:
            size = rng.choice([1, 700, 4096, 30_000, 2**20])
            out = c.c_void_p()
            if driver.mem_alloc(0, size, c.byref(out)) == hal.OK:
                pattern = bytes([step % 256])
                driver.write(out.value, pattern * size)
                live[out.value] = (pattern, size)
    for address in live:
        driver.ok(driver.mem_free(0, address))
    free, total = driver.memory()
    assert free == total


# ---- the simulator's two views ----


def resident_bytes():
    return int(open("/proc/self/statm").read().split()[1]) * mmap.PAGESIZE


def test_sim_freed_memory_goes_back_to_the_system(start_sim):
    d = start_sim(memory="256MiB")
    before = resident_bytes()
    address = d.alloc(128 * 2**20)
    stream = d.stream()
    d.ok(d.fill(stream, address, 1, 128 * 2**20, None))
    d.ok(d.sync(stream)[0])
    assert resident_bytes() - before > 120 * 2**20
    d.ok(d.mem_free(0, address))
    assert resident_bytes() - before < 16 * 2**20


def test_sim_large_segments_are_aligned_to_2_mib(start_sim):
    d = start_sim()
    d.alloc(4096)
    address = d.alloc(3 * 2**20)
    assert address % 2**21 == 0 and (address + d.delta()) % 2**21 == 0


def test_sim_many_segments_do_not_use_up_descriptors(sim_path, run_script):
    code = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
before = len(os.listdir('/proc/self/fd'))
blocks = [d.alloc(4096) for _ in range(5000)]
assert len(os.listdir('/proc/self/fd')) < 100
d.write(blocks[-1], b'x'); assert d.read(blocks[-1], 1) == b'x'
for block in blocks: d.ok(d.mem_free(0, block))
assert len(os.listdir('/proc/self/fd')) == before
"""
    result = run_script(sim_path, code, {"memory": "256MiB"})
    assert result.returncode == 0, result.stderr


def test_sim_every_device_shares_one_delta(start_sim):
    d = start_sim(devices=4)
    assert len({d.delta(device) for device in range(4)}) == 1


READ = """
address = d.alloc(8192)
try:
    {access}
except BaseException as e:
    print('survived', e)
print('survived')
"""


def died_of_fault(result):
    return result.returncode == -11 and "survived" not in result.stdout


def test_sim_host_read_dies_and_the_report_says_what_was_touched(sim_path, run_script):
    result = run_script(sim_path, READ.format(access="print(hex(address), flush=True); c.string_at(address + 100, 1)"), {"memory": "16MiB"})
    assert died_of_fault(result)
    address = int(result.stdout.strip(), 16)
    assert f"address {address + 100:#x} of device 0, allocation {address:#x}, offset 100, size 8192" in result.stderr
    assert "this is device memory; the host cannot touch it; copy it with .cpu()" in result.stderr


def test_sim_host_write_dies_on_any_thread_and_device(sim_path, run_script):
    code = ("import threading\naddress = d.alloc(4096, 1)\nt = threading.Thread(target=lambda: c.memset(address, 0, 1))\n"
            "t.start(); t.join(); print('survived')")
    result = run_script(sim_path, code, {"memory": "16MiB"})
    assert died_of_fault(result) and "of device 1" in result.stderr


def test_sim_use_after_free_dies_and_is_reported(sim_path, run_script):
    result = run_script(sim_path, READ.format(access="d.mem_free(0, address); c.string_at(address, 1)"), {"memory": "16MiB"})
    assert died_of_fault(result) and "in no live allocation" in result.stderr


def test_sim_task_that_leaves_its_memory_dies_and_is_reported(sim_path, run_script):
    access = "d.call(d.stream(), lambda: c.string_at(address + d.delta() + 8192, 1)); d.device_synchronize(0, hal.NEVER, None)"
    result = run_script(sim_path, READ.format(access=access), {"memory": "16MiB"})
    assert died_of_fault(result) and "a task reached outside of live device memory" in result.stderr


def test_sim_faults_elsewhere_keep_their_handler(sim_path, run_script):
    code = "import faulthandler\nfaulthandler.enable()\naddress = d.alloc(4096)\n{}\nprint('survived')"
    elsewhere = run_script(sim_path, code.format("c.string_at(8, 1)"), {"memory": "16MiB"})
    assert died_of_fault(elsewhere) and "Segmentation fault" in elsewhere.stderr and "openreg" not in elsewhere.stderr
    device = run_script(sim_path, code.format("c.string_at(address, 1)"), {"memory": "16MiB"})
    assert died_of_fault(device) and "Segmentation fault" in device.stderr and "copy it with .cpu()" in device.stderr
    sent = run_script(sim_path, "d.alloc(4096); os.kill(os.getpid(), 11); time.sleep(1); print('survived')", {"memory": "16MiB"})
    assert died_of_fault(sent)


def test_sim_small_address_space_shrinks_the_reservation_with_a_message(sim_path, run_script):
    code = ("import resource\nresource.setrlimit(resource.RLIMIT_AS, (2 * 2**30, -1))\nd.start(memory='64MiB')\n"
            "a = d.alloc(32 * 2**20); d.write(a, b'x'); print(d.read(a, 1))")
    result = run_script(sim_path, code)
    assert result.returncode == 0 and "b'x'" in result.stdout, result.stderr
    assert "address space is limited" in result.stderr


def test_sim_kernel_view_is_left_out_of_core_dumps(start_sim):
    d = start_sim()
    address = d.alloc(2**22) + d.delta()
    flags, inside = None, False
    for line in open("/proc/self/smaps"):
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            low, high = (int(x, 16) for x in first.split("-"))
            inside = low <= address < high
        elif inside and line.startswith("VmFlags:"):
            flags = line.split()[1:]
    assert {"dc", "dd"} <= set(flags)  # not copied on fork, not dumped
