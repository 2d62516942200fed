"""Eight threads on the allocator of two devices through allocator_stress.cpp, plain and under sanitizers.

The allocator's sources are compiled with the program, so that a sanitizer sees them. Needs g++, torch's headers and libc10, and the
sources of the drivers. All of it is `pytest tests/runtime/test_allocator_stress.py -m sanitizer`.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
SOURCES = """
    allocator_config block_table capture device device_allocator device_heap device_heap_segments driver error event expandable_segment
    fault_report faults free_blocks interpreter_lock launch memory_pool operands out_of_memory recovery sanitizer schedule stream watchdog
"""
FLAGS = ["-std=c++20", "-O1", "-g", "-pthread", f"-I{CSRC}", "-Wno-interference-size"]
SANITIZERS = {
    "thread": (["-fsanitize=thread"], {"TSAN_OPTIONS": "halt_on_error=1"}),
    "address": (["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"], {"ASAN_OPTIONS": "detect_leaks=0"}),
}
# Memory is short enough to run out of; the program's 8 threads hold up to 30 blocks of at most 4 MiB each.
OPTIONS = ["devices=2", "memory=128MiB"]


def compile(target, sources, *flags):
    subprocess.run(["g++", *FLAGS, *flags, *map(str, sources), "-o", str(target)], check=True, timeout=900)


@pytest.fixture(scope="module", params=SANITIZERS)
def stress(request):
    """Runs the program under one sanitizer: stress(schedule, steps)."""
    import torch

    sanitize, environment = SANITIZERS[request.param]
    libraries = Path(torch.__file__).parent / "lib"
    includes = [f"-I{libraries.parent / 'include'}"]
    with tempfile.TemporaryDirectory() as folder:
        driver, program = Path(folder) / "driver.so", Path(folder) / "stress"
        compile(driver, sorted(CSRC.glob("driver/sim/*.cpp")), *sanitize, "-fPIC", "-shared", "-fvisibility=hidden",
                f"-Wl,--version-script={CSRC / 'driver/sim/exports.map'}", "-Wl,-z,nodelete")
        sources = [Path(__file__).with_name("allocator_stress.cpp"), *(CSRC / "runtime" / f"{name}.cpp" for name in SOURCES.split()),
                   *sorted(CSRC.glob("layers/**/*.cpp"))]
        compile(program, sources, *sanitize, *includes, f"-L{libraries}", "-lc10", "-ldl", f"-Wl,-rpath,{libraries}")

        def run(schedule, steps):
            command = [program, driver, str(steps), f"schedule={schedule}", *OPTIONS]
            result = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=600)
            assert result.returncode == 0 and result.stdout == "ok\n", result.stdout + result.stderr[-6000:]

        yield run


@pytest.mark.sanitizer
@pytest.mark.parametrize("schedule", ["eager", "lazy"])
def test_eight_threads_on_two_devices(stress, schedule):
    stress(schedule, 1000)
