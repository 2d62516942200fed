"""`openreg doctor` tells what is wrong and survives it. Runs the command; needs a C compiler for one test."""

import json
import shutil
import subprocess

import pytest


def doctor(openreg, **environment):
    done = openreg("doctor", "--json", env=environment)
    assert "Traceback" not in done.stderr
    report = json.loads(done.stdout)
    assert done.returncode == (1 if report["problems"] else 0)
    return report


def test_a_good_installation_has_no_problem(openreg):
    pytest.importorskip("torch_openreg._build_info", reason="torch_openreg is not built here")
    report = doctor(openreg, OPENREG_DEVICES="3", OPENREG_MEMORY="64MiB")
    assert report["problems"] == []
    assert report["driver"]["name"] == "sim" and report["driver"]["hal"].startswith("1.")
    assert [device["index"] for device in report["devices"]] == [0, 1, 2]
    assert {device["total_bytes"] for device in report["devices"]} == {64 << 20}
    assert report["environment"]["OPENREG_DEVICES"] == "3"
    assert report["versions"]["torch_found"].startswith(report["versions"]["torch_built_against"])


def test_the_text_ends_with_the_verdict(openreg):
    done = openreg("doctor", env={"OPENREG_DRIVER": "/nowhere/lib.so"})
    assert done.returncode == 1
    for title in ("versions", "driver", "devices", "environment", "limits"):
        assert f"\n{title}\n" in "\n" + done.stdout
    assert "what is wrong\n" in done.stdout
    assert "/nowhere/lib.so does not exist; unset OPENREG_DRIVER" in done.stdout


def test_a_bad_setting_is_named(openreg):
    assert "OPENREG_DEVICES" in "".join(doctor(openreg, OPENREG_DEVICES="many")["problems"])


def test_a_name_that_nothing_reads_is_a_note(monkeypatch):
    from torch_openreg.cli import doctor

    for name in ("OPENREG_DEVICE", "OPENREG_DEVICES", "OPENREG_TEST_MINE", "OPENREG_XYZZY"):
        monkeypatch.setenv(name, "4")
    report = {"problems": [], "notes": []}
    doctor._environment(report)
    about = [note for note in report["notes"] if note.startswith("OPENREG_")]
    assert about[0] == "OPENREG_DEVICE is set, and nothing reads it; OPENREG_DEVICES is the nearest name."
    assert about[1].startswith("OPENREG_XYZZY is set, and nothing reads it") and len(about) == 2


def test_a_library_that_is_no_driver_is_named(openreg):
    import torch

    library = f"{torch.__path__[0]}/lib/libc10.so"
    assert f"The driver library {library} cannot be used" in "".join(doctor(openreg, OPENREG_DRIVER=library)["problems"])


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler for a library that crashes")
def test_a_driver_that_crashes_while_loading_is_a_finding(openreg, tmp_path):
    (tmp_path / "crash.c").write_text("__attribute__((constructor)) static void f(void) { *(volatile int*)0 = 1; }\n")
    library = tmp_path / "crash.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "crash.c"], check=True)
    assert "SIGSEGV" in "".join(doctor(openreg, OPENREG_DRIVER=str(library))["problems"])


def test_a_torch_that_cannot_be_imported_is_a_finding(openreg, tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('this torch is broken')\n")
    report = doctor(openreg, PYTHONPATH=f"{tmp_path}:{_package_root()}")
    assert report["problems"], report
    if report["versions"]["torch_openreg"] != "not built":
        assert "torch cannot be imported: ImportError: this torch is broken." in report["problems"]


def _package_root():
    import importlib.util
    import os

    return os.path.dirname(os.path.dirname(importlib.util.find_spec("torch_openreg").origin))
