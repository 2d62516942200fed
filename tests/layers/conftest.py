"""Builds the simulator and the layers around it from source. Needs pytest and g++ only, and no torch."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
DRIVER_TESTS = HERE.parent / "driver"
sys.path[:0] = [str(HERE), str(DRIVER_TESTS)]

import faulty as faults  # noqa: E402
import layered  # noqa: E402

_spec = importlib.util.spec_from_file_location("driver_conftest", DRIVER_TESTS / "conftest.py")
driver_conftest = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(driver_conftest)


def layered_path(flags=("-O2",)):
    """The library of the layer, built with these flags."""
    layers = driver_conftest.CSRC / "layers"
    inputs = [*layers.rglob("*.h"), driver_conftest.CSRC / "hal" / "openreg_hal.h"]
    return driver_conftest.build("liblayered.so", [HERE / "layered.cpp", *layers.rglob("*.cpp")], [*flags, "-shared", "-fvisibility=hidden"], inputs)


@pytest.fixture
def run_stress():
    """run_stress(driver stem, modes, arguments, flags, environment): stress.cpp against the layer around that driver, all built with the flags."""

    def run(stem, modes, arguments=(), flags=None, environment=None):
        runner = driver_conftest.build("stress", [HERE / "stress.cpp"], list(flags or ["-O1"]), [DRIVER_TESTS / "stress.h", driver_conftest.CSRC / "hal" / "openreg_hal.h"])
        below = driver_conftest.build_driver(stem, list(flags)) if flags else driver_conftest.build_driver(stem)  # those of the other tests
        environment = {**os.environ, "OPENREG_TEST_BELOW": os.fspath(below), **(environment or {})}
        command = [runner, layered_path(flags) if flags else layered_path(), str(modes), *arguments]
        result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
        assert result.returncode == 0 and result.stdout == "ok\n", result.stdout + result.stderr[-6000:]

    return run


@pytest.fixture
def staged(monkeypatch):
    """The simulator without a kernel view, in the layer."""
    monkeypatch.setenv("OPENREG_TEST_BELOW", os.fspath(driver_conftest.build_driver("sim")))
    layer = layered.Layered(layered_path())
    with layer.started(memory="64MiB", kernel_view="off"):
        yield layer


@pytest.fixture(params=["eager", "lazy", "random:1"])
def device(request, monkeypatch):
    """The simulator with the sanitizer around it, looking for races and lifetimes, under every schedule."""
    monkeypatch.setenv("OPENREG_TEST_BELOW", os.fspath(driver_conftest.build_driver("sim")))
    layer = layered.Layered(layered_path())
    with layer.started(memory="64MiB", schedule=request.param):
        layer.library.sanitize(layered.RACES | layered.LIFETIME)
        yield layer
        layer.library.sanitize(0)


@pytest.fixture(params=["eager", "lazy", "random:1"])
def faulty(request, monkeypatch):
    """The simulator with the fault layer around it, under every schedule."""
    monkeypatch.setenv("OPENREG_TEST_BELOW", os.fspath(driver_conftest.build_driver("sim")))
    monkeypatch.setenv("OPENREG_TEST_LAYER", "faults")
    driver = faults.Faulty(layered_path())
    with driver.started(memory="64MiB", schedule=request.param):
        driver.schedule = request.param.split(":")[0]
        yield driver


@pytest.fixture(scope="session")
def tasks():
    """Host functions of the driver tests."""
    return driver_conftest.Tasks(driver_conftest.build("libtasks.so", [DRIVER_TESTS / "tasks.cpp"], ["-O2", "-shared"], [driver_conftest.CSRC / "hal" / "openreg_hal.h"]))
