"""Fixtures for all tests: a second process with its own environment, every device, and the check that a test
leaves the current device, the current streams, the devices' errors and their memory, the environment and sys.path as it found them,
and that the sanitizer, where OPENREG_SANITIZE switches it on, finds nothing in it.

Needs pytest only, so that tests/driver runs without torch; the check is active once torch_openreg is loaded.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from fork_server import ForkServer, package_root

os.environ.setdefault("OPENREG_DEVICES", "2")
os.environ.pop("CI", None)  # asks torch's runner in the programs of tests for XML reports, which need a package of their own
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell starts jobs in the background; the programs of tests would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

FAILED = pytest.StashKey[bool]()
SET_BY_OTHERS = {"PYTEST_CURRENT_TEST", "TORCHINDUCTOR_CACHE_DIR"}


@pytest.fixture(params=[0, 1], ids=["openreg:0", "openreg:1"])
def device(request):
    """Each device in turn, as torch.device; device 0 is the current one. Devices are in use: statistics are there."""
    import torch

    torch.openreg.init()
    return torch.device("openreg", request.param)


@pytest.fixture(scope="module")
def one_thread():
    """One intra-op thread for the tests of a module, so that device and CPU add up in the same order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def eager():
    """Work runs as soon as it can during the test, also when the suite runs under another schedule."""
    import torch

    with torch.openreg.schedule("eager"):
        yield


@pytest.fixture(scope="session")
def program_server(tmp_path_factory):
    """The process that `python` forks, started by the first test that needs it."""
    servers = []

    def server():
        if not servers:
            servers.append(ForkServer(tmp_path_factory.mktemp("programs")))
        return servers[0]

    yield server
    for started in servers:
        started.stop()


@pytest.fixture
def python(tmp_path, program_server):
    """Runs pieces of Python code, one after the other, in a process of its own: python(code, ..., env={...}, timeout=120).

    OPENREG_* variables are those of `env` only, and torch_openreg is the one under test. With `check` a non-zero
    exit status fails the test with the output. Returns subprocess.CompletedProcess with text output. The process is a fork of one that has
    imported torch and torch_openreg; with `fresh`, and for variables of anybody else, it is a new one.
    """

    def run(*pieces, env=None, timeout=120, check=True, fresh=False):
        code, changes = "\n".join(map(textwrap.dedent, pieces)), env or {}
        if fresh or not all(key.startswith("OPENREG_") for key in changes):
            environment = {key: value for key, value in os.environ.items() if not key.startswith("OPENREG_")}
            environment["PYTHONPATH"] = os.pathsep.join([package_root(), environment.get("PYTHONPATH", "")])
            result = subprocess.run(
                [sys.executable, "-c", code], env=environment | changes, cwd=tmp_path, capture_output=True, text=True, timeout=timeout
            )
        else:
            result = program_server().run(code, changes, folder=tmp_path, timeout=timeout)
        if check and result.returncode != 0:
            pytest.fail(f"exit status {result.returncode}\n{result.stdout}\n{result.stderr}", pytrace=False)
        return result

    return run


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    schedule = os.environ.get("OPENREG_SCHEDULE", "eager")
    if report.failed and schedule != "eager":
        report.sections.append(("schedule", f"OPENREG_SCHEDULE={schedule} runs the same order again, in a process of its own (-n 0)."))
    return report


@pytest.fixture(autouse=True)
def state_is_unchanged(request):
    """Starts every test with the same seed, and fails one that leaves another current device or stream, an error
    that nobody has seen, or device memory in use."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
    before, used_before = _current_state(), _memory_in_use()
    process_before = _process_state()
    with _sanitized(request.node) as report:
        yield
        lost = _bring_back_lost()  # before anybody waits for them
    if lost:
        pytest.fail(f"The test left devices lost: {lost}.", pytrace=False)
    changed = _restore_process(process_before)
    if changed:
        pytest.fail(f"The test changed the environment or sys.path: {changed}.", pytrace=False)
    after = _current_state()
    if after is None:
        return
    import torch

    if before is not None and before != after:
        _restore(before)
        pytest.fail(f"The test changed the current device or streams from {before} to {after}.", pytrace=False)
    for index in range(torch.openreg.device_count()):
        torch.openreg.synchronize(index)
    if report is not None:
        _judge(report, request.node)
    request.node.funcargs.clear()  # what fixtures made is not left over
    leaked = _memory_leaked(used_before)
    if any(leaked) and not request.node.stash.get(FAILED, False):  # a failure's traceback keeps its tensors
        pytest.fail(f"The test left device memory in use, in bytes per device: {leaked}.", pytrace=False)


@contextlib.contextmanager
def _sanitized(node):
    """A report that collects what the sanitizer finds, None where it is off. Without the modes that the mark `unsanitized` names."""
    if "torch_openreg" not in sys.modules or not hasattr(sys.modules.get("torch"), "openreg"):
        yield None
        return
    sanitizer = sys.modules["torch"].openreg.sanitizer
    before = sanitizer.enabled()
    mark = node.get_closest_marker("unsanitized")
    modes = tuple(mode for mode in before if mark is None or mode not in mark.args)
    if modes != before:
        sanitizer.enable(modes)
    try:
        with sanitizer.collect() if modes else contextlib.nullcontext() as report:
            yield report
    finally:
        if modes != before:
            sanitizer.enable(before)


def _judge(report, node):
    """Fails a test in which the sanitizer found something; with the mark `findings`, one in which it did not."""
    import torch

    mark = node.get_closest_marker("findings")
    if mark is None or not set(mark.args) & set(torch.openreg.sanitizer.enabled()):
        if report:
            pytest.fail(str(report), pytrace=False)
    elif not report:
        pytest.fail(f"The sanitizer found nothing, and the test is marked with findings{mark.args}.", pytrace=False)


def _process_state():
    """What the processes that later tests start inherit: variables, and the path of those that multiprocessing spawns."""
    return {key: value for key, value in os.environ.items() if key not in SET_BY_OTHERS}, list(sys.path)


def _restore_process(before):
    """Takes back what differs from `before`, and returns it: variables, and folders. A package may add a folder at the end of the path."""
    (variables, path), now = before, _process_state()[0]
    changed = sorted(key for key in variables.keys() | now.keys() if variables.get(key) != now.get(key))
    for key in changed:
        os.environ.pop(key, None)
    os.environ.update({key: variables[key] for key in changed if key in variables})
    if sys.path[: len(path)] != path:
        changed += [entry for entry in sys.path if entry not in path] or ["the order of sys.path"]
        sys.path[:] = path
    return changed


def _bring_back_lost():
    """Resets the devices that are lost, and returns their numbers, so that one test that loses a device fails and not all after it."""
    if "torch_openreg" not in sys.modules or not hasattr(sys.modules.get("torch"), "openreg"):
        return []
    openreg = sys.modules["torch"].openreg
    lost = [index for index in range(openreg.device_count()) if openreg.is_lost(index)] if openreg.is_initialized() else []
    for index in lost:
        openreg.reset(index)
    return lost


def _current_state():
    if "torch_openreg" not in sys.modules or not hasattr(sys.modules.get("torch"), "openreg"):
        return None
    import torch

    if not torch.openreg.is_initialized():
        return None
    streams = [torch.openreg.current_stream(index).stream_id for index in range(torch.openreg.device_count())]
    return torch.openreg.current_device(), streams


def _memory_in_use():
    if _current_state() is None:
        return None
    import torch

    return [torch.openreg.memory_allocated(index) for index in range(torch.openreg.device_count())]


def _memory_leaked(used_before):
    """How much more is in use than before. Garbage in cycles, and what autograd's threads still hold, goes first."""
    leaked = []
    for attempt in range(10):
        used = _memory_in_use()
        leaked = [max(0, now - then) for now, then in zip(used, used_before or [0] * len(used))]
        if not any(leaked):
            break
        gc.collect()
        time.sleep(0.01 * attempt)
    return leaked


def _restore(state):
    import torch

    device, streams = state
    device_type = int(torch._C._autograd.DeviceType.PrivateUse1)
    for index, stream_id in enumerate(streams):
        stream = torch.Stream(stream_id=stream_id, device_index=index, device_type=device_type)
        torch.openreg.set_stream(stream)
    torch.openreg.set_device(device)
