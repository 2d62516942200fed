"""Which drivers the loader takes and what it says of the others. Needs g++ and torch; each case is a process of its own."""

import os
import subprocess
import sys

import pytest

import torch_openreg

# Where the child finds the package under test: the working directory may hold sources that are not built.
PACKAGE_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(torch_openreg.__file__)))

SOURCE = """
#include <string.h>
#include "hal/openreg_hal.h"
static openreg_driver table;
static openreg_status count(int32_t* n) { *n = 1; return OPENREG_OK; }
extern "C" __attribute__((visibility("default"))) openreg_status ENTRY(uint32_t want, const openreg_driver** out) {
  if (want != MAJOR) return OPENREG_UNSUPPORTED;
  table.struct_size = sizeof(table);
  table.major = MAJOR;
  table.name = "half";
  table.device_count = count;
  *out = &table;
  return OPENREG_OK;
}
"""


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Builds a driver that has nothing but device_count, with the given macros; returns its path."""

    def compile_driver(**macros):
        folder = tmp_path_factory.mktemp("driver")
        (folder / "half.cpp").write_text(SOURCE)
        flags = [f"-D{name}={value}" for name, value in {"ENTRY": "openreg_get_driver", "MAJOR": 1, **macros}.items()]
        library = folder / "libhalf.so"
        subprocess.run(
            ["g++", "-shared", "-fPIC", "-I", torch_openreg.get_include(), *flags, str(folder / "half.cpp"), "-o", str(library)], check=True
        )
        return str(library)

    return compile_driver


def first_use(driver):
    """What the first use of a device says with this driver."""
    result = subprocess.run(
        [sys.executable, "-c", "import torch, torch_openreg; torch.ones(1, device='openreg')"],
        env={**os.environ, "OPENREG_DRIVER": str(driver)},
        cwd=PACKAGE_ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode != 0
    return result.stderr


def test_a_driver_without_a_required_entry_is_refused_by_the_entrys_name(build):
    library = build()
    said = first_use(library)
    assert f"The driver {library} lacks the required HAL entry 'init'" in said and "docs/hal.md" in said


def test_a_driver_of_another_major_version_is_refused(build):
    library = build(MAJOR=2)
    assert f"The driver {library} does not implement HAL version 1.x" in first_use(library)


def test_a_library_that_is_no_driver_is_refused(build):
    library = build(ENTRY="something_else")
    assert f"The library {library} is no openreg driver: it does not export openreg_get_driver" in first_use(library)


def test_a_file_that_is_no_library_is_refused(tmp_path):
    path = tmp_path / "text.so"
    path.write_text("not a library")
    assert f"The openreg driver cannot be loaded from {path}" in first_use(path)


def test_a_layer_that_does_not_exist_is_refused_by_name():
    result = subprocess.run(
        [sys.executable, "-c", "import torch, torch_openreg; torch.ones(1, device='openreg')"],
        env={**os.environ, "OPENREG_LAYERS": "nonsense"},
        cwd=PACKAGE_ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode != 0 and "OPENREG_LAYERS names the layer 'nonsense'" in result.stderr


@pytest.mark.parametrize("program", ["(torch.ones(3, device='openreg') + 1).cpu().sum().item() == 6",
                                     "torch.nn.Linear(2, 2).to('openreg')(torch.randn(4, 2, device='openreg')).sum().backward() is None"])
def test_the_smallest_driver_runs_operators_and_kernels(program):
    code = f"import torch, torch_openreg; assert {program}; assert torch_openreg._C.driver_info()['name'] == 'null'"
    simulators = ("OPENREG_DEVICES", "OPENREG_MEMORY", "OPENREG_SCHEDULE")  # options that the smallest driver refuses
    environment = {name: value for name, value in os.environ.items() if name not in simulators}
    subprocess.run([sys.executable, "-c", code], env={**environment, "OPENREG_DRIVER": "null"}, cwd=PACKAGE_ROOT, check=True)
