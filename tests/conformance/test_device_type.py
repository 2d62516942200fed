"""PyTorch's device-generic tests on openreg: a file that knows no device runs with environment variables alone, and
torch_openreg/testing/device_type.py finds what a test leaves behind.

The file under test is written as PyTorch writes its own. Each test runs it in processes of their own.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(importlib.util.find_spec("torch_openreg").origin).parent.parent
TEST_BASE = str(ROOT / "torch_openreg" / "testing" / "device_type.py")

GENERIC = """
import torch
from torch.testing import make_tensor
from torch.testing._internal.common_device_type import (
    deviceCountAtLeast, dtypes, dtypesIfPRIVATEUSE1, expectedFailure, instantiate_device_type_tests, onlyAccelerator, onlyCPU, onlyCUDA,
    onlyNativeDeviceTypes, onlyPRIVATEUSE1, ops, skipPRIVATEUSE1,
)
OP_DB
from torch.testing._internal.common_utils import TEST_ACCELERATOR, TestCase, noncontiguous_like, parametrize, run_tests

class TestFirst(TestCase):
    @dtypes(torch.float32, torch.int64)
    @dtypesIfPRIVATEUSE1(torch.float16)
    def test_values(self, device, dtype):
        x = make_tensor((3, 4), device=device, dtype=dtype, low=1, high=5)
        self.assertEqual(noncontiguous_like(x) * 2, x + x)
        self.assertEqual(x.device, torch.device(device))

    @onlyNativeDeviceTypes
    @parametrize("size", [0, 3])
    def test_sizes(self, device, size):
        self.assertEqual(torch.ones(size, device=device).sum().item(), size)

    @onlyAccelerator
    @deviceCountAtLeast(2)
    def test_two_devices(self, devices):
        self.assertEqual(len(set(devices)), len(devices))
        self.assertEqual(torch.ones(2, device=devices[0]).to(devices[1]).tolist(), [1, 1])

    @onlyCPU
    def test_only_cpu(self, device):
        self.assertEqual(torch.device(device).type, "cpu")

    @onlyPRIVATEUSE1
    def test_only_privateuse1(self, device):
        self.assertTrue(TEST_ACCELERATOR)

    @skipPRIVATEUSE1
    def test_not_on_privateuse1(self, device):
        self.assertEqual(torch.device(device).type, "cpu")

    @expectedFailure("openreg")
    def test_fails_there(self, device):
        self.assertEqual(torch.device(device).type, "cpu")

    @ops([op for op in op_db if op.name in ("add", "sort")], allowed_dtypes=[torch.float32])
    def test_operators(self, device, dtype, op):
        for sample in op.sample_inputs(device, dtype):
            result = op(sample.input, *sample.args, **sample.kwargs)
            self.assertEqual(result[0].device if isinstance(result, tuple) else result.device, torch.device(device))

class TestSecond(TestCase):
    def test_device(self, device):
        self.assertEqual(torch.ones(1, device=device).device, torch.device(device))

class TestForCuda(TestCase):
    def test_device(self, device):
        self.assertNotEqual(torch.device(device).type, "cpu")

instantiate_device_type_tests(TestFirst, globals())
instantiate_device_type_tests(TestSecond, globals(), except_for="xla")
instantiate_device_type_tests(TestForCuda, globals(), only_for="cuda")

if __name__ == "__main__":
    run_tests()
"""

LEAVING = """
import torch
from torch.testing._internal.common_device_type import instantiate_device_type_tests, onlyAccelerator
from torch.testing._internal.common_utils import TestCase, run_tests, skipCUDAMemoryLeakCheckIf

kept = []

class TestLeaving(TestCase):
    def test_a_kept_tensor(self, device):
        kept.append(torch.ones(1000, device=device))

    def test_b_kept_on_self_and_on_another_device(self, device):
        self.kept = [torch.ones(3000, device="openreg:0"), torch.ones(10, device="openreg:1")]

    def test_c_cycle(self, device):
        cycle = [torch.ones(1000, device=device)]
        cycle.append(cycle)

    @skipCUDAMemoryLeakCheckIf(True)
    def test_d_allowed(self, device):
        kept.append(torch.ones(1000, device=device))

    def test_e_late_error(self, device):
        x = torch.arange(5, device=device)
        for index in (1, 77):
            x.gather(0, torch.tensor([index], device=device))

    def test_f_current_device(self, device):
        torch.accelerator.set_device_index(1)

    def test_g_current_stream(self, device):
        torch.accelerator.set_stream(torch.Stream(device))

    def test_h_frees_what_an_earlier_test_kept(self, device):
        kept.clear()
        self.assertEqual(torch.accelerator.current_device_index(), 0)

    def test_i_fails_with_a_late_error_behind_it(self, device):
        x = torch.arange(5, device=device)
        x.gather(0, torch.tensor([78], device=device))
        raise ValueError("of the test")

    def test_j_passes(self, device):
        self.assertEqual((torch.ones(2, device=device) + 1).tolist(), [2, 2])

class TestAllowed(TestCase):
    _do_openreg_memory_leak_check = False

    def test_k_kept(self, device):
        kept.append(torch.ones(1000, device=device))

instantiate_device_type_tests(TestLeaving, globals(), only_for="openreg")
instantiate_device_type_tests(TestAllowed, globals(), only_for="openreg")

if __name__ == "__main__":
    run_tests()
"""


class Outcomes(dict):
    """Outcome of each test, by class and name: {"TestFirstOPENREG.test_values_openreg_float16": "ok"}."""

    output = ""


@pytest.fixture
def run_file(tmp_path):
    """run_file(code, env) runs a test file as PyTorch does, and tells the outcome of each of its tests."""
    metadata = tmp_path / "torch_openreg-0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: torch_openreg\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text("[torch.backends]\nopenreg = torch_openreg:_autoload\n")

    def run(code, env, *arguments):
        file = tmp_path / "test_generic.py"
        file.write_text(code.replace("\nOP_DB\n", "\nfrom torch.testing._internal.common_methods_invocations import op_db\n"))
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("OPENREG_", "PYTORCH_TEST", "TORCH_"))}
        # torch's stock class knows its device from the first test that asks for one, and torch makes tests in the order of a set.
        environment["PYTHONHASHSEED"] = "0"
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(tmp_path), environment.get("PYTHONPATH", "")])
        result = subprocess.run(
            [sys.executable, str(file), "-v", *arguments], env={**environment, **env}, cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        outcomes = Outcomes()
        for name, place, outcome in re.findall(r"^(test_\w+) \(__main__\.(\w+)\.?\w*\) \.\.\. (?:.*\n)*?(ok|skipped|FAIL|ERROR)\b", result.stderr, re.MULTILINE):
            outcomes[f"{place}.{name}"] = outcome
        outcomes.output = result.stdout + result.stderr
        return outcomes

    return run


def of(outcomes, device):
    return {name: outcome for name, outcome in outcomes.items() if f"_{device}" in name}


OPENREG = {
    "test_values_openreg_float16": "ok", "test_sizes_size_0_openreg": "ok", "test_sizes_size_3_openreg": "ok", "test_two_devices_openreg": "ok",
    "test_only_cpu_openreg": "skipped", "test_only_privateuse1_openreg": "ok", "test_not_on_privateuse1_openreg": "skipped",
    "test_fails_there_openreg": "ok", "test_operators_add_openreg_float32": "ok", "test_operators_sort_openreg_float32": "ok",
    "test_device_openreg": "ok",
}  # fmt: skip


def without_classes(outcomes):
    return {name.partition(".")[2]: outcome for name, outcome in outcomes.items()}


def test_a_generic_file_runs_unmodified_on_cpu_and_openreg(run_file):
    outcomes = run_file(GENERIC, {})
    assert without_classes(of(outcomes, "openreg")) == OPENREG, outcomes.output
    cpu = of(outcomes, "cpu")
    assert cpu["TestFirstCPU.test_only_cpu_cpu"] == "ok" and cpu["TestSecondCPU.test_device_cpu"] == "ok"
    assert not [name for name in outcomes if "ForCuda" in name]


def test_the_variables_of_torch_choose_devices_by_their_name(run_file):
    choose = f"""
import os, torch
variables = ("PYTORCH_TESTING_DEVICE_ONLY_FOR", "PYTORCH_TESTING_DEVICE_EXCEPT_FOR", "PYTORCH_TESTING_DEVICE_FOR_CUSTOM")
for only, but, custom in (("openreg", "", ""), ("privateuse1", "", ""), ("cpu,openreg", "", ""), ("", "openreg", ""), ("", "cpu", ""), ("openreg", "", "openreg")):
    os.environ.update(zip(variables, (only, but, custom)))
    scope = {{"__name__": "generic"}}
    exec(compile({GENERIC!r}, "generic", "exec"), scope)
    found = [name for cls in scope.values() if isinstance(cls, type) and cls.__name__.startswith("Test") for name in dir(cls)]
    print(only, but, custom, sorted({{kind for kind in ("cpu", "openreg") for name in found if name.startswith(f"test_values_{{kind}}")}}),
          sorted(name for name in scope if name.startswith("TestForCuda")), sep="|")
"""
    output = run_file(choose.replace("OP_DB", "from torch.testing._internal.common_methods_invocations import op_db"), {}).output
    assert [line.split("|")[3:] for line in output.splitlines() if "|" in line] == [
        ["['openreg']", "[]"], ["['openreg']", "[]"], ["['cpu', 'openreg']", "[]"], ["['cpu']", "[]"], ["['openreg']", "[]"], ["['openreg']", "['TestForCudaOPENREG']"],
    ], output  # fmt: skip


def test_the_test_base_takes_the_place_of_the_stock_one(run_file):
    environment = {
        "TORCH_TEST_DEVICES": TEST_BASE, "OPENREG_TEST_DEVICE": "openreg:1",
        "PYTORCH_TESTING_DEVICE_FOR_CUSTOM": "privateuse1", "PYTORCH_TESTING_DEVICE_ONLY_FOR": "openreg",
    }  # fmt: skip
    code = GENERIC.replace("torch.ones(1, device=device).device, torch.device(device)", "str(torch.ones(1, device=device).device), 'openreg:1'")
    outcomes = run_file(code, environment)
    assert without_classes(outcomes) == OPENREG, outcomes.output
    assert {name.partition(".")[0] for name in outcomes} == {"TestFirstOPENREG", "TestSecondOPENREG", "TestForCudaOPENREG"}


@pytest.mark.parametrize("base", [{}, {"TORCH_TEST_DEVICES": TEST_BASE}], ids=["torch's class", "the class of this package"])
def test_exclusions_and_restrictions_of_torchs_class_hold(base, run_file):
    """A backend's lists: tests left out, operators taken, and tests that ask for other devices made to run."""
    configured = GENERIC.replace(
        "class TestFirst(TestCase):",
        """from torch.testing._internal.common_device_type import PrivateUse1TestBase
PrivateUse1TestBase.set_test_configs(op_allowlist=["sort"], test_exclusions={"TestFirst": ["test_values", "test_two_devices"], "TestSecond": "*"})
PrivateUse1TestBase.bypass_device_restrictions = True

class TestFirst(TestCase):
    @onlyCUDA
    def test_only_cuda(self, device):
        self.assertNotEqual(torch.device(device).type, "cuda")
""",
        1,
    )
    outcomes = run_file(configured, {**base, "PYTORCH_TESTING_DEVICE_ONLY_FOR": "openreg"})
    found = without_classes(outcomes)
    assert found["test_only_cuda_openreg"] == "ok" and found["test_operators_sort_openreg_float32"] == "ok", outcomes.output
    assert found["test_only_cpu_openreg"] == "FAIL"  # it asks for the CPU, and now it runs
    left_out = ("test_values", "test_two_devices", "test_operators_add", "test_device")
    assert not [name for name in found if name.startswith(left_out)], outcomes.output


@pytest.mark.parametrize(
    "environment,sentence",
    [
        ({"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}, "torch.testing was imported before the device openreg was registered"),
        ({"OPENREG_TEST_DEVICE": "openreg:9"}, "OPENREG_TEST_DEVICE is a device like openreg:1, not 'openreg:9'; there are 2."),
        ({"OPENREG_TEST_DEVICE": "cuda:0"}, "OPENREG_TEST_DEVICE is a device like openreg:1, not 'cuda:0'; there are 2."),
    ],
)
def test_what_cannot_be_tested_says_so(run_file, environment, sentence):
    outcomes = run_file(LEAVING, {"TORCH_TEST_DEVICES": TEST_BASE, **environment})
    assert not outcomes and sentence in outcomes.output, outcomes.output


def test_the_command_prints_where_the_test_base_is(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-m", "torch_openreg.testing.device_type"], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert result.stdout.strip() == TEST_BASE, result.stderr


def test_importing_the_test_base_changes_nothing():
    from torch.testing._internal import common_device_type

    before = list(common_device_type.device_type_test_bases)
    from torch_openreg.testing.device_type import OpenregTestBase

    assert common_device_type.device_type_test_bases == before
    assert issubclass(OpenregTestBase, common_device_type.PrivateUse1TestBase)


def test_a_test_that_leaves_something_behind_fails(run_file):
    outcomes = run_file(LEAVING, {"TORCH_TEST_DEVICES": TEST_BASE})
    assert {name.partition(".test_")[2].partition("_")[0]: outcome for name, outcome in outcomes.items()} == {
        "a": "FAIL", "b": "FAIL", "c": "ok", "d": "ok", "e": "ERROR", "f": "FAIL", "g": "FAIL", "h": "ok", "i": "ERROR", "j": "ok", "k": "ok",
    }, outcomes.output  # fmt: skip
    for sentence in (
        "test_a_kept_tensor_openreg leaked device memory: 4096 bytes on openreg:0 (",
        "test_b_kept_on_self_and_on_another_device_openreg leaked device memory: 12288 bytes on openreg:0 (",
        "), 512 bytes on openreg:1 (0 bytes in use before, 512 after).",
        "aten::gather failed on openreg:0, stream 1: RuntimeError: index 77 is out of bounds",
        "test_f_current_device_openreg left openreg:1 (streams {openreg:0: 0, openreg:1: 0}) current; before it, that was openreg:0",
        "test_g_current_stream_openreg left openreg:0 (streams {openreg:0:",
        "ValueError: of the test",
    ):
        assert sentence in outcomes.output, outcomes.output
    assert "78 is out of bounds" not in outcomes.output


def test_the_memory_check_can_be_switched_off(run_file):
    outcomes = run_file(LEAVING, {"TORCH_TEST_DEVICES": TEST_BASE, "OPENREG_TEST_LEAK_CHECK": "0"}, "-k", "kept", "-k", "test_f")
    assert {name.partition(".test_")[2].partition("_")[0]: outcome for name, outcome in outcomes.items()} == {"a": "ok", "b": "ok", "f": "FAIL", "h": "ok", "k": "ok"}


@pytest.mark.unsanitized("bounds", reason="guard zones make blocks larger than requested")
def test_the_check_serves_any_test_runner():
    import torch

    from torch_openreg.testing.device_check import DeviceCheck

    with DeviceCheck("clean"):
        torch.ones(1000, device="openreg").sum()
    kept = []
    with pytest.raises(AssertionError, match="leaky leaked device memory: 4096 bytes on openreg:1"):
        with DeviceCheck("leaky"):
            kept.append(torch.ones(1000, device="openreg:1"))
    with DeviceCheck("leaky", memory=False):
        kept.append(torch.ones(1000, device="openreg:1"))
    with pytest.raises(ZeroDivisionError), DeviceCheck("failing"):
        kept.append(torch.ones(1000, device="openreg:1"))
        1 / 0
    kept.clear()


@pytest.mark.parametrize(
    "chosen,variant",
    [
        ("autograd_engine or devices or views", {"OPENREG_TEST_DEVICE": "openreg:1", "OPENREG_SCHEDULE": "lazy"}),
        pytest.param("test", {"OPENREG_TEST_DEVICE": "openreg:1", "OPENREG_SCHEDULE": "lazy"}, marks=pytest.mark.slow),
        pytest.param("test", {"OPENREG_SCHEDULE": "random:3"}, marks=pytest.mark.slow),
    ],
    ids=["sample", "device 1, lazy", "random"],
)
def test_the_projects_own_generic_tests_leave_nothing_behind(chosen, variant):
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "TORCH_TEST_DEVICES": TEST_BASE, "PYTORCH_TESTING_DEVICE_ONLY_FOR": "openreg", "OPENREG_DEVICES": "2", **variant,
    }  # fmt: skip
    folder = Path(__file__).parent / "device_generic"
    command = [sys.executable, "-m", "pytest", str(folder), "-k", chosen, "-q", "-p", "no:cacheprovider"]
    result = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout[-5000:]
