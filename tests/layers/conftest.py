"""Builds the simulator and the sanitizer layer around it from source. Needs pytest and g++ only, and no torch."""

import importlib.util
import os
import pathlib
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
DRIVER_TESTS = HERE.parent / "driver"
sys.path[:0] = [str(HERE), str(DRIVER_TESTS)]

import layered  # noqa: E402

_spec = importlib.util.spec_from_file_location("driver_conftest", DRIVER_TESTS / "conftest.py")
driver_conftest = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(driver_conftest)
CSRC = driver_conftest.CSRC


def layered_path(flags=("-O2",)):
    layers = CSRC / "layers"
    inputs = [*layers.rglob("*.h"), CSRC / "hal" / "openreg_hal.h"]
    return driver_conftest.build("liblayered.so", [HERE / "layered.cpp", *layers.rglob("*.cpp")], [*flags, "-shared", "-fvisibility=hidden"], inputs)


@pytest.fixture(params=["eager", "lazy", "random:1"])
def device(request, monkeypatch):
    """The simulator with the sanitizer around it, looking for races and lifetimes, under every schedule."""
    monkeypatch.setenv("OPENREG_TEST_BELOW", os.fspath(driver_conftest.build_driver("sim")))
    layer = layered.Layered(layered_path())
    with layer.started(memory="64MiB", schedule=request.param):
        layer.library.sanitize(layered.RACES | layered.LIFETIME)
        yield layer
        layer.library.sanitize(0)
