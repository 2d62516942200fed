"""device_usage: how busy a device is, over all processes. Needs no torch.

The devices are the last two of 64, which only tests of this file use: one at a time, whatever process they run in.
"""

import ctypes as c
import fcntl
import os
import subprocess
import sys
import tempfile
import textwrap
import threading
import time

import hal
import pytest

MS = 1_000_000
A, B = 62, 63


@pytest.fixture(autouse=True)
def alone():
    with open(os.path.join(tempfile.gettempdir(), f"openreg-usage-tests-{os.getuid()}"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def usage(driver, device=A, window_ns=0):
    found = hal.Usage(struct_size=c.sizeof(hal.Usage))
    driver.ok(driver.device_usage(device, window_ns, c.byref(found)))
    return found


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline


def test_a_device_without_work_is_idle(start_sim):
    driver = start_sim(devices="64")
    assert usage(driver).busy_permille == 0
    assert usage(driver, B, 3 * MS).busy_permille == 0


def test_a_running_task_is_seen_and_its_end_too(start_sim):
    driver = start_sim(devices="64")
    stream, entered, go = driver.stream(A), threading.Event(), threading.Event()
    driver.call(stream, lambda: (entered.set(), go.wait()))
    assert entered.wait(60)
    assert usage(driver).busy_permille == 1000
    assert usage(driver, A, 3 * MS).busy_permille == 1000
    assert usage(driver, B).busy_permille == 0
    go.set()
    driver.ok(driver.sync(stream)[0])
    until(lambda: usage(driver).busy_permille == 0)  # the worker's slot goes back after its last task is visible


def test_streams_are_counted_while_they_live(start_sim):
    driver = start_sim(devices="64")
    before = usage(driver).streams, usage(driver, B).streams
    stream = driver.stream(B)
    assert (usage(driver).streams, usage(driver, B).streams) == (before[0], before[1] + 1)
    driver.ok(driver.stream_destroy(stream))
    until(lambda: usage(driver, B).streams == before[1])  # a stream that was never used goes at once, another one when its worker does


def test_wrong_arguments_are_refused(start_sim):
    driver = start_sim(devices="64")
    found = hal.Usage(struct_size=c.sizeof(hal.Usage))
    assert driver.device_usage(A, 0, None) == hal.INVALID_VALUE
    assert driver.device_usage(A, 10_000 * MS + 1, c.byref(found)) == hal.INVALID_VALUE
    assert driver.device_usage(64, 0, c.byref(found)) == hal.INVALID_DEVICE
    assert driver.device_usage(A, 0, c.byref(hal.Usage(struct_size=4))) == hal.INVALID_VALUE


def test_another_process_is_seen_until_it_ends(start_sim, sim_path):
    driver = start_sim(devices="64")
    before = usage(driver)
    program = textwrap.dedent(f"""
        import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})
        import hal, threading
        driver = hal.Driver({str(sim_path)!r}).start(devices="63")
        stream, go = driver.stream({A}), threading.Event()
        driver.call(stream, lambda: (print("ready", flush=True), go.wait()))
        sys.stdin.read()
        go.set()
        driver.sync(stream)
    """)
    other = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "ready\n"
        found = usage(driver, A, 3 * MS)
        assert (found.busy_permille, found.streams, found.processes) == (1000, before.streams + 1, before.processes + 1)
        assert usage(driver, B).processes == before.processes, "the other process has no such device"
    finally:
        other.communicate("")
    assert other.returncode == 0
    after = usage(driver)
    assert (after.streams, after.processes) == (before.streams, before.processes)


def test_a_forked_child_is_not_counted_again(start_sim):
    driver = start_sim(devices="64")
    before = usage(driver)
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    try:
        after = usage(driver)
        assert (after.streams, after.processes) == (before.streams, before.processes)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
