"""Many threads against the sanitizer layer around each driver through stress.cpp, plain and under sanitizers of the compiler. Needs no torch.

The sanitizer runs are `pytest tests/layers -m sanitizer`.
"""

import pytest

THREAD = ("-O1", "-g", "-fsanitize=thread")
ADDRESS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer")
EVERYTHING = 31  # all modes but poison

DRIVERS = [
    ("sim", ["memory=64MiB", "schedule=eager", "devices=2"]),
    ("sim", ["memory=64MiB", "schedule=random:1", "devices=2"]),
    ("null", []),
]


@pytest.fixture(params=DRIVERS, ids=["sim-eager", "sim-random", "null"])
def driver(request):
    return request.param


def test_stress(run_stress, driver):
    stem, options = driver
    run_stress(stem, EVERYTHING, [*options, "steps=300"])


@pytest.mark.sanitizer
def test_stress_under_thread_sanitizer(run_stress, driver):
    stem, options = driver
    run_stress(stem, EVERYTHING, [*options, "steps=300"], THREAD, {"TSAN_OPTIONS": "halt_on_error=1"})


@pytest.mark.sanitizer
def test_stress_under_address_sanitizer(run_stress, driver):
    stem, options = driver
    run_stress(stem, EVERYTHING, [*options, "steps=300"], ADDRESS, {"ASAN_OPTIONS": "detect_leaks=1"})
