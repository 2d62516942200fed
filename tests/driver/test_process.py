"""What happens at the edges of a process: fork, exit with work queued, signals, tasks that do not end. Any driver where a
variant is named, else the simulator."""

import ctypes as c
import os
import time

import hal
import pytest
import conftest


def test_a_forked_child_is_refused(variant, run_script):
    stem, schedule = variant
    code = """
stream = d.stream(); a = d.alloc(4096)
d.call(stream, lambda: None)
pid = os.fork()
if pid == 0:
    out = c.c_int32(0)
    statuses = {d.device_count(c.byref(out)), d.init(None, 0), d.shutdown(0), d.stream_query(stream), d.stream_destroy(stream),
                d.device_synchronize(0, 0, None), d.mem_free(0, a), d.host_free(None), d.event_query(None), d.launch_host_func(stream, 1, None, 0, None)}
    print(statuses, d.message(), flush=True)
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
d.ok(d.sync(stream)[0])
d.ok(d.shutdown(hal.NEVER))
print('parent fine')
"""
    result = run_script(conftest.driver_path(stem), code, conftest.start_options(stem, schedule))
    assert result.returncode == 0, result.stderr
    assert "{7} " in result.stdout and "forked" in result.stdout and "parent fine" in result.stdout


def test_sim_stale_pointers_fault_in_a_forked_child(sim_path, run_script):
    code = """
a = d.alloc(4096); delta = d.delta(); d.write(a, b'secret')
for address in (a, a + delta):
    pid = os.fork()
    if pid == 0:
        c.string_at(address, 1)
        os._exit(0)
    print(os.waitpid(pid, 0)[1] & 127)
"""
    result = run_script(sim_path, code, {"memory": "16MiB"})
    assert result.stdout.split() == ["11", "11"], result.stderr


def test_fork_before_init_leaves_the_child_free(variant, run_script):
    stem, schedule = variant
    code = f"""
pid = os.fork()
if pid == 0:
    d.start(**{conftest.start_options(stem, schedule)!r}); a = d.alloc(64); d.write(a, b'x'); assert d.read(a, 1) == b'x'
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""
    result = run_script(conftest.driver_path(stem), code)
    assert result.returncode == 0, result.stderr


def test_exit_with_work_queued_neither_hangs_nor_aborts(variant, run_script, tasks):
    stem, schedule = variant
    code = """
for device in range(d.devices):
    for _ in range(4):
        stream = d.stream(device)
        for _ in range(200):
            d.launch(stream, tasks.append_slowly, conftest.AppendArgs(c.addressof(log), 1))
print('leaving', flush=True)
"""
    log = "log = conftest.Log(); c.pythonapi.Py_IncRef(c.py_object(log))  # tasks outlive the interpreter\n"
    result = run_script(conftest.driver_path(stem), log + code, conftest.start_options(stem, schedule),
                        tasks_path=tasks.library._name, timeout=30)
    assert (result.returncode, result.stdout.strip()) == (0, "leaving"), result.stderr


def test_sim_exit_while_a_task_never_ends(sim_path, run_script, tasks):
    code = ("stream = d.stream(); gate = tasks.gate(d, stream)\nfor word in (gate.entered, gate.opened): c.pythonapi.Py_IncRef(c.py_object(word))\n"
            "while not gate.entered.value: time.sleep(0.001)\nprint('leaving', flush=True)")
    start = time.monotonic()
    result = run_script(sim_path, code, {"memory": "16MiB"}, tasks_path=tasks.library._name, timeout=30)
    assert (result.returncode, result.stdout.strip()) == (0, "leaving"), result.stderr
    assert time.monotonic() - start < 20


def test_sim_exit_prints_an_error_that_nobody_asked_for(sim_path, run_script, tasks):
    code = "stream = d.stream(); tasks.fail(d, stream, b'unheard', name=b'op')\nwhile d.stream_query(stream): pass"
    result = run_script(sim_path, code, {"memory": "16MiB"}, tasks_path=tasks.library._name)
    assert result.returncode == 0 and result.stderr.count("unheard") == 1


def test_sim_shutdown_drops_what_does_not_fit_its_time(start_sim, tasks):
    for schedule in ("eager", "lazy", "random:3"):
        d = start_sim(schedule=schedule)
        cleaned, log, stream = c.c_uint64(0), tasks.log(), d.stream()
        for value in range(50):
            d.launch(stream, tasks.append_slowly, conftest.AppendArgs(c.addressof(log), value))
            d.launch(stream, tasks.nothing, c.c_uint64(c.addressof(cleaned)), cleanup=tasks.count_cleanup)
        d.record(stream)
        assert d.shutdown(0) == hal.NOT_READY
        assert cleaned.value == 50 and log.count < 50
        assert d.device_count(c.byref(c.c_int32())) == hal.NOT_INITIALIZED


def test_sim_shutdown_leaves_a_task_that_never_ends(sim_path, run_script, tasks):
    code = """
stream = d.stream(); gate = tasks.gate(d, stream)
a = d.alloc(4096)
while not gate.entered.value: time.sleep(0.001)
print(d.shutdown(10_000_000))
d.start(memory='16MiB')
d.write(d.alloc(64), b'new life')
gate.open(); time.sleep(0.05)
print(d.shutdown(hal.NEVER))
"""
    result = run_script(sim_path, code, {"memory": "16MiB"}, tasks_path=tasks.library._name)
    assert result.returncode == 0 and result.stdout.split() == ["1", "0"], result.stderr
    assert "does not end" in result.stderr


@pytest.mark.parametrize("schedule", ["lazy", "random:1"])
def test_sim_shutdown_leaves_a_task_that_a_waiting_thread_runs(sim_path, run_script, tasks, schedule):
    code = """
import threading
stream = d.stream(); gate = tasks.gate(d, stream)
statuses = []
thread = threading.Thread(target=lambda: statuses.append(d.stream_synchronize(stream, hal.NEVER, None)))
thread.start()
while not gate.entered.value: time.sleep(0.001)
print(d.shutdown(0))
d.start(memory='16MiB')
d.write(d.alloc(64), b'new life')
gate.open()
thread.join()
print(len(statuses), d.shutdown(hal.NEVER))
"""
    result = run_script(sim_path, code, {"memory": "16MiB", "schedule": schedule}, tasks_path=tasks.library._name)
    assert result.returncode == 0 and result.stdout.split() == ["1", "1", "0"], result.stderr
    assert "does not end" in result.stderr


def test_sim_workers_leave_signals_to_the_program(start_sim, tasks):
    d = start_sim()
    stream = d.stream()
    gate = tasks.gate(d, stream)
    while gate.entered.value == 0:
        time.sleep(0.001)
    for thread in os.listdir("/proc/self/task"):
        status = open(f"/proc/self/task/{thread}/status").read()
        if status.startswith("Name:\topenreg-0"):
            blocked = int(next(line for line in status.splitlines() if line.startswith("SigBlk")).split()[1], 16)
            assert blocked & (1 << (2 - 1)) and not blocked & (1 << (11 - 1))  # SIGINT is blocked, SIGSEGV is not
            break
    else:
        raise AssertionError("no worker thread has the device's name")
    gate.open()
    d.ok(d.sync(stream)[0])
