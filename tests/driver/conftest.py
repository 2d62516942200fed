"""Builds the drivers from source and hands them to the tests, started and stopped around each.

Needs pytest and g++ only. OPENREG_TEST_DRIVER=/path/to/driver.so tests that driver instead of the two in this tree.
"""

import ctypes
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile

import pytest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))

import exceptions  # noqa: E402
import hal  # noqa: E402

CSRC = ROOT / "csrc"
BASE_FLAGS = ["-std=c++20", "-Wall", "-Wextra", "-fPIC", "-pthread", f"-I{CSRC}"]
SMALL = {"memory": "64MiB"}
SCHEDULES = {"eager": "eager", "lazy": "lazy", "random": "random:1"}


def build(name, sources, flags, inputs=()):
    """Compiles once per content: the result's folder is named by a hash of everything that goes in."""
    digest = hashlib.sha256(repr(flags).encode())
    for path in sorted([*sources, *inputs]):
        digest.update(str(path).encode() + path.read_bytes())
    folder = pathlib.Path(tempfile.gettempdir()) / f"openreg-driver-tests-{os.getuid()}" / digest.hexdigest()[:20]
    target = folder / name
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        scratch = folder / f"{name}.{os.getpid()}"
        subprocess.run(["g++", *BASE_FLAGS, *flags, *map(str, sorted(sources)), "-o", str(scratch), "-ldl"], check=True)
        os.replace(scratch, target)
    return target


def build_driver(stem, flags=("-O2", "-g1")):
    folder = CSRC / "driver" / stem
    link = ["-shared", "-fvisibility=hidden", f"-Wl,--version-script={folder / 'exports.map'}", "-Wl,-z,nodelete"]
    return build(f"libopenreg_{stem}.so", list(folder.glob("*.cpp")), [*flags, *link],
                 [*folder.glob("*.h"), *CSRC.glob("hal/*.h"), *CSRC.glob("driver/sim/sim_kernel.h")])


def given_driver():
    return os.environ.get("OPENREG_TEST_DRIVER")


def driver_path(stem):
    return pathlib.Path(given_driver()) if given_driver() else build_driver(stem)


def variants():
    """(driver stem, schedule) pairs that the `driver` fixture runs over."""
    if given_driver():
        name = hal.Driver(given_driver()).name
        return [(name, schedule) for schedule in SCHEDULES] if name == "sim" else [(name, None)]
    return [("sim", schedule) for schedule in SCHEDULES] + [("null", None)]


def pytest_generate_tests(metafunc):
    if "variant" in metafunc.fixturenames:
        metafunc.parametrize("variant", variants(), ids=lambda v: "-".join(filter(None, v)), scope="function")


def pytest_collection_modifyitems(items):
    for item in items:
        variant = getattr(item, "callspec", None) and item.callspec.params.get("variant")
        if not variant or HERE not in pathlib.Path(item.fspath).parents:
            continue
        name = f"{item.path.name}::{item.originalname}"
        if reason := exceptions.UNSUPPORTED.get(variant[0], {}).get(name):
            item.add_marker(pytest.mark.skip(reason=reason))
        if reason := exceptions.EXPECTED_FAILURES.get(variant[0], {}).get(name):
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True))


def start_options(stem, schedule, **more):
    return {**SMALL, "schedule": SCHEDULES[schedule], **more} if stem == "sim" else {}


@pytest.fixture
def driver(variant):
    """Every driver, under every schedule that it has, started with two devices where it has them."""
    stem, schedule = variant
    with hal.Driver(driver_path(stem)).started(**start_options(stem, schedule)) as started:
        started.schedule = schedule
        yield started


@pytest.fixture
def stopped_driver(variant):
    """The same, not started; `options` are what the driver fixture would start it with."""
    stem, schedule = variant
    stopped = hal.Driver(driver_path(stem))
    stopped.options = start_options(stem, schedule)
    yield stopped
    stopped.table.shutdown(0)
    stopped.keep.clear()


@pytest.fixture
def sim_path():
    path = driver_path("sim")
    if given_driver() and hal.Driver(path).name != "sim":
        pytest.skip(f"this tests the simulator's own options, and OPENREG_TEST_DRIVER is {path}")
    return path


@pytest.fixture
def start_sim(sim_path):
    """start_sim(**options): a simulator with these options, stopped after the test."""
    started = hal.Driver(sim_path)

    def start(**options):
        started.start(**{**SMALL, **options})
        started.schedule = options.get("schedule", "eager").split(":")[0]
        return started

    yield start
    started.table.shutdown(5 * 10**9)
    started.keep.clear()


class Log(ctypes.Structure):
    _fields_ = [("count", ctypes.c_uint64), ("values", ctypes.c_uint64 * 8192)]

    def list(self):
        return list(self.values[: self.count])


class AppendArgs(ctypes.Structure):
    _fields_ = [("log", ctypes.c_void_p), ("value", ctypes.c_uint64)]


class GateArgs(ctypes.Structure):
    _fields_ = [("entered", ctypes.c_void_p), ("open", ctypes.c_void_p)]


class FailArgs(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_int32), ("message", ctypes.c_char * 60)]


class Gate:
    """Holds a stream: its task waits until open() where tasks run by themselves; elsewhere the queue itself holds it."""

    def __init__(self, tasks, driver, stream):
        self.entered, self.opened = ctypes.c_uint64(0), ctypes.c_uint64(0)
        if driver.schedule == "eager":
            driver.launch(stream, tasks.gate, GateArgs(ctypes.addressof(self.entered), ctypes.addressof(self.opened)), name=b"gate")

    def open(self):
        self.opened.value = 1


class Tasks:
    """tasks.cpp, with shorthands."""

    def __init__(self, path):
        self.library = ctypes.CDLL(str(path))

    def __getattr__(self, name):
        return getattr(self.library, name)

    def log(self):
        return Log()

    def append(self, driver, stream, log, value, slowly=False, **desc):
        function = self.library.append_slowly if slowly else self.library.append
        driver.keep.append(log)
        driver.launch(stream, function, AppendArgs(ctypes.addressof(log), value), **desc)

    def fail(self, driver, stream, message=b"broken", kind=3, **desc):
        driver.launch(stream, self.library.fail, FailArgs(kind, message), **desc)

    def gate(self, driver, stream):
        driver.keep.append(Gate(self.library, driver, stream))
        return driver.keep[-1]


@pytest.fixture(scope="session")
def tasks():
    return Tasks(build("libtasks.so", [HERE / "tasks.cpp"], ["-O2", "-shared"], [CSRC / "hal" / "openreg_hal.h"]))


@pytest.fixture
def run_script(tmp_path):
    """run_script(path, code, options): runs code in a new interpreter with `d` (started driver), `hal` and ctypes as `c`."""
    def run(path, code, options=None, tasks_path=None, timeout=60):
        prelude = (f"import ctypes as c, os, sys, signal, time\nsys.path.insert(0, {str(HERE)!r})\nimport hal\n"
                   f"d = hal.Driver({str(path)!r})\n")
        if tasks_path:
            prelude += f"import conftest\ntasks = conftest.Tasks({str(tasks_path)!r})\nd.schedule = 'eager'\n"
        if options is not None:
            prelude += f"d.start(**{options!r})\n"
        return subprocess.run([sys.executable, "-c", prelude + code], capture_output=True, text=True, timeout=timeout, cwd=tmp_path)

    return run
