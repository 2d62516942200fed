"""The gap file with PyTorch's own test machinery: under pytest, and as the dictionaries of set_test_configs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from torch_openreg.testing.conformance import gaps
from torch_openreg.testing.conformance.gaps import Gap
from torch_openreg.testing.conformance.torch_tests import TorchTest, plain_name

ROOT = Path(gaps.__file__).parents[3]
TESTS = '''
import torch
import torch_openreg
from torch.testing._internal.common_device_type import PrivateUse1TestBase, instantiate_device_type_tests, ops
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_utils import TestCase, run_tests

try:
    from mychip_configs import CONFIGS
    PrivateUse1TestBase.set_test_configs(**CONFIGS)
except ImportError:
    pass

class TestCommon(TestCase):
    @ops([op for op in op_db if op.name in ("sin", "cos", "tan")], allowed_dtypes=(torch.float32, torch.int64))
    def test_compare_cpu(self, device, dtype, op):
        if op.name == "sin" and dtype == torch.int64:
            raise NotImplementedError("no integers")
        self.assertNotEqual(op.name, "cos")

    @ops([op for op in op_db if op.name in ("sin", "cos")], allowed_dtypes=(torch.float32,))
    def test_out(self, device, dtype, op):
        self.assertEqual(op.name, "cos")

    def test_plain(self, device):
        self.fail("always")

instantiate_device_type_tests(TestCommon, globals(), only_for="openreg")

if __name__ == "__main__":
    run_tests()
'''
GAPS = """
[[gap]]
op = "sin"
dtype = "int64"
kind = "unsupported"
reason = "the chip has no integers"

[[gap]]
op = "c*s"
mode = "forward"
kind = "expected_failure"
reason = "cosines are due in May"

[[gap]]
op = "sin"
mode = "out"
kind = "expected_failure"
reason = "out is due in June"

[[gap]]
test = "TestCommon.test_plain"
kind = "expected_failure"
reason = "always fails"
"""
STALE = """
[[gap]]
op = "tan"
kind = "expected_failure"
reason = "tangents are due in April"
"""


@pytest.fixture
def run(tmp_path):
    """run(*words) in a folder with the test file and mychip.toml -> CompletedProcess."""
    (tmp_path / "test_mine.py").write_text(TESTS)
    (tmp_path / "mychip.toml").write_text(GAPS)

    def call(*words):
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("OPENREG_", "PYTEST"))}
        # torch's own class makes the first test of a process before it knows the device's name: op_overrides do not reach that one (torch 2.13).
        environment["TORCH_TEST_DEVICES"] = str(Path(gaps.__file__).parents[1] / "device_type.py")
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(tmp_path)])
        return subprocess.run([sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)

    call.folder = tmp_path
    return call


PYTEST = ("-m", "pytest", "-p", "torch_openreg.testing.conformance.pytest_gaps", "--device-gaps", "mychip.toml", "-p", "no:cacheprovider", "-q", "-rx", "test_mine.py")


def test_pytest_expects_what_the_gap_file_says_and_tells_of_entries_whose_tests_pass(run):
    """Under xdist, where the process that decides is not the one that runs the tests."""
    (run.folder / "mychip.toml").write_text(GAPS + STALE)
    done = run(*PYTEST, "-n", "1")
    assert done.returncode == 1 and "2 passed, 5 xfailed, 2 xpassed" in done.stdout
    assert "the chip has no integers" in done.stdout and "cosines are due in May" in done.stdout
    assert "unexpected pass: all 2 tests of tan pass (mychip.toml says: tangents are due in April)" in done.stdout


def test_unsupported_covers_no_other_failure_under_pytest(run):
    (run.folder / "mychip.toml").write_text(GAPS.replace("expected_failure", "unsupported"))
    done = run(*PYTEST)
    assert done.returncode == 1 and "4 failed" in done.stdout and "1 xfailed" in done.stdout


def test_a_wrong_file_stops_pytest(run):
    (run.folder / "mychip.toml").write_text('[[gap]]\nop = "add"\nkind = "unsupported"\n')
    done = run(*PYTEST)
    assert done.returncode == 4 and "mychip.toml: entry 1 (add): has no reason" in done.stderr


def test_torch_takes_the_dictionaries(run):
    made = run("-m", "torch_openreg", "conformance", "gaps", "mychip.toml", "--test-configs", "mychip_configs.py")
    assert made.returncode == 0, made.stderr
    done = run("test_mine.py", "-v")
    assert done.returncode == 0, done.stderr
    assert "Ran 8 tests" in done.stderr, "test_plain is excluded"
    assert "expected failures=3" in done.stderr and "skipped=1" in done.stderr
    assert "the chip has no integers" in done.stderr


def test_globs_that_torch_cannot_take_are_refused(run):
    (run.folder / "mychip.toml").write_text(GAPS.replace("TestCommon.test_plain", "TestCommon.test_p*"))
    made = run("-m", "torch_openreg", "conformance", "gaps", "mychip.toml", "--test-configs", "mychip_configs.py")
    assert made.returncode == 2 and "torch's test_exclusions has names" in made.stderr
    assert not (run.folder / "mychip_configs.py").exists()


@pytest.mark.parametrize(
    "gap, covered",
    [
        (Gap("linalg.svd"), True),
        (Gap("linalg.*", dtype="float*"), True),
        (Gap("linalg.svd", dtype="int64"), False),
        (Gap("linalg.svd", mode="out"), True),
        (Gap("linalg.svd", mode="gradient"), False),
        (Gap("svd"), False),
        (Gap("", test="TestCommon.test_out"), True),
        (Gap("", test="TestCommon.test_out_linalg_svd_float32"), True),
        (Gap("", test="TestCommon.test_out_linalg_*"), True),
        (Gap("", test="TestCommon.test_errors"), False),
    ],
)
def test_an_entry_finds_its_tests(gap, covered):
    test = TorchTest("TestCommon.test_out", "TestCommon.test_out_linalg_svd_float32", "linalg.svd", "float32")
    assert test.covered_by(gap) == covered


def test_names_lose_the_device():
    assert plain_name("TestMinePRIVATEUSE1", "test_x_mychip_float32", ("mychip", "privateuse1")) == "TestMine.test_x_float32"
