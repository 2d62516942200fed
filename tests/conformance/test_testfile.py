"""`openreg conformance testfile`: a device-generic test file on the CPU and on a device, and what it says of differences."""

import pytest

FILE = '''
import os, time, unittest
import torch
from torch.testing._internal.common_device_type import dtypes, instantiate_device_type_tests, onlyCPU
from torch.testing._internal.common_utils import TestCase

class TestMine(TestCase):
    @dtypes(torch.float32, torch.int64)
    def test_agrees(self, device, dtype):
        self.assertEqual(torch.ones(3, dtype=dtype, device=device) + 1, torch.full((3,), 2, dtype=dtype, device=device))

    def test_wants_the_cpu(self, device):
        self.assertEqual(torch.ones(3, device=device).device.type, "cpu", msg="it is elsewhere")

    def test_fails_everywhere(self, device):
        self.fail("as it should")

    def test_is_skipped(self, device):
        self.skipTest("too early")

    @onlyCPU
    def test_of_the_cpu(self, device):
        pass

    def test_index_is_checked_by_the_call(self, device):
        x = torch.arange(3, device=device)[torch.tensor([3], device=device) - (3 if device == "cpu" else 0)]

    def test_ends_the_process(self, device):
        if device != "cpu":
            os.abort()

    def test_hangs(self, device):
        if device != "cpu":
            time.sleep(600)

class TestPlain(TestCase):
    def test_without_device(self):
        self.fail("never runs")

instantiate_device_type_tests(TestMine, globals())
'''


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "test_mine.py"
    path.write_text(FILE)
    return path


def test_what_passes_on_the_cpu_and_not_on_the_device_is_told_with_the_reason(openreg, file):
    done = openreg("conformance", "testfile", file, "--timeout", "5s")
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == ["cpu: 9 tests, 7 pass", "openreg: of these 2 pass, 4 do not, 1 are skipped, 0 do not exist"]
    told = {line.split(":")[0].strip(): line for line in lines[2:]}
    assert set(told) == {
        "failed  TestMine.test_wants_the_cpu", "failed  TestMine.test_index_is_checked_by_the_call", "crash   TestMine.test_ends_the_process",
        "timeout TestMine.test_hangs", "skipped 1",
    }  # fmt: skip
    assert "AssertionError" in told["failed  TestMine.test_wants_the_cpu"]
    assert "index 3 is out of bounds" in told["failed  TestMine.test_index_is_checked_by_the_call"]
    assert "SIGABRT" in told["crash   TestMine.test_ends_the_process"]
    assert "Only runs on cpu" in told["skipped 1"]


def test_chosen_tests_of_another_device_index(openreg, file):
    done = openreg("conformance", "testfile", file, "--device", "openreg:1", "--tests", "*agrees*,*skipped")
    assert (done.returncode, done.stdout.splitlines()) == (
        0, ["cpu: 3 tests, 2 pass", "openreg:1: of these 2 pass, 0 do not, 0 are skipped, 0 do not exist"],
    )  # fmt: skip


def test_a_device_of_another_module(openreg, file):
    done = openreg("conformance", "testfile", file, "--device", "fakechip", "--import", "fakechip", "--tests", "*wants_the_cpu")
    assert done.returncode == 1 and "failed  TestMine.test_wants_the_cpu" in done.stdout, done.stdout + done.stderr


def test_refusals(openreg, file, tmp_path):
    missing = openreg("conformance", "testfile", tmp_path / "missing.py")
    assert missing.returncode == 2 and "there is no file" in missing.stderr
    unknown = openreg("conformance", "testfile", file, "--device", "nosuchdevice")
    assert unknown.returncode == 2 and "nosuchdevice" in unknown.stderr
    broken = tmp_path / "broken.py"
    broken.write_text("import no_such_module")
    done = openreg("conformance", "testfile", broken)
    assert done.returncode == 2 and "no_such_module" in done.stderr
    nothing = openreg("conformance", "testfile", file, "--tests", "nothing*")
    assert nothing.returncode == 2 and "no device-generic test that fits" in nothing.stderr
