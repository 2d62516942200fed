"""The header is C11 and C++11, its released layout is frozen, and hal.py agrees with it. Needs gcc and g++."""

import ctypes
import re
import subprocess

import pytest

import hal
from conftest import CSRC, HERE, driver_path, variants

HEADER = CSRC / "hal" / "openreg_hal.h"


def compile_only(compiler, standard, source, tmp_path):
    return subprocess.run([compiler, f"-std={standard}", "-Wall", "-Wextra", "-pedantic", "-Werror", f"-I{CSRC}", "-c", str(source),
                           "-o", str(tmp_path / "out.o")], capture_output=True, text=True)


@pytest.mark.parametrize("compiler,standard,suffix", [("gcc", "c11", "c"), ("g++", "c++11", "cpp")])
@pytest.mark.parametrize("header", ["hal/openreg_hal.h", "driver/sim/sim_kernel.h"])
def test_header_compiles_alone(compiler, standard, suffix, header, tmp_path):
    source = tmp_path / f"alone.{suffix}"
    source.write_text(f'#include "{header}"\n#include "{header}"\nopenreg_status used(openreg_event event);\n')
    result = compile_only(compiler, standard, source, tmp_path)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("compiler,standard,suffix", [("gcc", "c11", "c"), ("g++", "c++11", "cpp")])
def test_released_layout_is_frozen(compiler, standard, suffix, tmp_path):
    source = tmp_path / f"abi_freeze.{suffix}"
    source.write_text((HERE / "abi_freeze.c").read_text())
    result = compile_only(compiler, standard, source, tmp_path)
    assert result.returncode == 0, result.stderr


def test_a_moved_entry_breaks_the_freeze(tmp_path):
    moved = HEADER.read_text()
    first, second = "openreg_status (*event_query)(openreg_event event);", "openreg_status (*event_destroy)(openreg_event event);"
    assert first in moved and second in moved
    (tmp_path / "hal").mkdir()
    (tmp_path / "hal" / "openreg_hal.h").write_text(moved.replace(first, "@").replace(second, first).replace("@", second))
    source = tmp_path / "abi_freeze.c"
    source.write_text((HERE / "abi_freeze.c").read_text())
    result = subprocess.run(["gcc", "-std=c11", f"-I{tmp_path}", "-c", str(source), "-o", str(tmp_path / "o")], capture_output=True, text=True)
    assert result.returncode != 0 and "event_destroy" in result.stderr


def test_every_entry_is_frozen_and_mirrored():
    entries = re.findall(r"\(\*(\w+)\)\(", HEADER.read_text().split("typedef struct openreg_driver {")[1].split("} openreg_driver;")[0])
    assert entries == [name for name, _ in hal.ENTRIES]
    assert entries == re.findall(r"^ENTRY\((\w+), \d+\);", (HERE / "abi_freeze.c").read_text(), re.M)


def test_python_mirror_has_the_frozen_sizes():
    frozen = dict(re.findall(r"^SIZE\(openreg_(\w+), (\d+)\);", (HERE / "abi_freeze.c").read_text(), re.M))
    mirror = {"error": hal.Error, "option": hal.Option, "device_info": hal.DeviceInfo, "stream_info": hal.StreamInfo,
              "process": hal.Process, "range": hal.Range, "operand": hal.Operand, "ipc_handle": hal.IpcHandle, "trace_record": hal.TraceRecord, "launch_desc": hal.LaunchDesc,
              "geometry": hal.Geometry}
    for name, structure in mirror.items():
        assert ctypes.sizeof(structure) == int(frozen[name]), name
    for name, field, offset in re.findall(r"^AT\(openreg_(\w+), (\w+), (\d+)\);", (HERE / "abi_freeze.c").read_text(), re.M):
        if name in mirror:
            assert getattr(mirror[name], field).offset == int(offset), (name, field)


@pytest.mark.parametrize("stem", sorted({stem for stem, _ in variants()}))
def test_table_is_complete(stem):
    driver = hal.Driver(driver_path(stem))
    assert (driver.table.major, driver.table.struct_size) == (1, ctypes.sizeof(hal.DriverTable))
    assert driver.name
    for name, _ in hal.ENTRIES:
        assert name in hal.OPTIONAL or ctypes.cast(getattr(driver.table, name), ctypes.c_void_p).value, f"{name} is null"


@pytest.mark.parametrize("stem", sorted({stem for stem, _ in variants()}))
def test_another_major_version_is_refused(stem):
    driver = hal.Driver(driver_path(stem))
    table = ctypes.POINTER(hal.DriverTable)()
    assert driver.library.openreg_get_driver(2, ctypes.byref(table)) == hal.UNSUPPORTED
    assert not table
    assert "version" in driver.message()
    assert driver.library.openreg_get_driver(1, None) == hal.INVALID_VALUE


@pytest.mark.parametrize("stem", sorted({stem for stem, _ in variants()}))
def test_only_the_entry_point_is_exported(stem):
    listed = subprocess.run(["nm", "-D", "--defined-only", str(driver_path(stem))], capture_output=True, text=True, check=True).stdout
    assert [line.split()[-1] for line in listed.splitlines()] == ["openreg_get_driver"]


def test_the_null_driver_names_every_entry_also_those_that_it_leaves_out():
    table = (CSRC / "driver" / "null" / "driver.cpp").read_text()
    assert re.findall(r"^    \.(\w+) = ", table, re.M)[5:] == [name for name, _ in hal.ENTRIES]
