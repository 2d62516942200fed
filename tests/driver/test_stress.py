"""Many threads against one driver through stress.cpp, plain and under sanitizers. Any driver; sanitizers need the sources.

The sanitizer runs are `pytest tests/driver -m sanitizer`.
"""

import os
import subprocess

import pytest

import conftest

THREAD = ["-O1", "-g", "-fsanitize=thread"]
ADDRESS = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]


def run_stress(driver, arguments, flags=("-O1", "-g"), environment=None, timeout=120):
    runner = conftest.build("stress", [conftest.HERE / "stress.cpp"], list(flags), [conftest.HERE / "stress.h", conftest.CSRC / "hal" / "openreg_hal.h"])
    result = subprocess.run([runner, driver, *arguments], capture_output=True, text=True, timeout=timeout, env={**os.environ, **(environment or {})})
    assert result.returncode == 0 and result.stdout == "ok\n", result.stdout + result.stderr[-6000:]
    return result


def options(variant, **more):
    return [f"{key}={value}" for key, value in conftest.start_options(*variant, **more).items()] if variant[0] == "sim" else []


@pytest.mark.parametrize("queue_bytes", ["4KiB", "1MiB"])
def test_stress(variant, queue_bytes):
    run_stress(conftest.driver_path(variant[0]), options(variant, queue_bytes=queue_bytes, devices=3, compute_units=2))


def test_stress_one_compute_unit(variant):
    run_stress(conftest.driver_path(variant[0]), options(variant, queue_bytes="16KiB", devices=1, compute_units=1))


@pytest.mark.parametrize("compute_units", [1, 2])
def test_stress_with_losses(variant, compute_units):
    run_stress(conftest.driver_path(variant[0]), options(variant, queue_bytes="16KiB", devices=3, compute_units=compute_units) + ["losses=1"])


def sanitized(variant, flags):
    if conftest.given_driver():
        pytest.skip("OPENREG_TEST_DRIVER gives a library, and a sanitizer needs the sources")
    return conftest.build_driver(variant[0], flags)


def sanitized_arguments(variant, *more):
    return options(variant, queue_bytes="16KiB", devices=3, compute_units=2) + ["steps=300", *more]


@pytest.mark.sanitizer
def test_stress_under_thread_sanitizer(variant):
    run_stress(sanitized(variant, THREAD), sanitized_arguments(variant), THREAD, {"TSAN_OPTIONS": "halt_on_error=1"})


@pytest.mark.sanitizer
def test_stress_under_address_sanitizer(variant):
    run_stress(sanitized(variant, ADDRESS), sanitized_arguments(variant), ADDRESS, {"ASAN_OPTIONS": "detect_leaks=1"})


@pytest.mark.sanitizer
def test_stress_with_losses_under_thread_sanitizer(variant):
    run_stress(sanitized(variant, THREAD), sanitized_arguments(variant, "losses=1"), THREAD, {"TSAN_OPTIONS": "halt_on_error=1"})


@pytest.mark.sanitizer
def test_stress_with_losses_under_address_sanitizer(variant):
    run_stress(sanitized(variant, ADDRESS), sanitized_arguments(variant, "losses=1"), ADDRESS, {"ASAN_OPTIONS": "detect_leaks=1"})
