"""The pytest plugin on small test files of a library: its options, fixtures, mark, checks and strict mode. Each runs pytest in a process of its own."""

import importlib.metadata
import os
import textwrap
from pathlib import Path

import pytest
import torch_openreg

pytest_plugins = "pytester"

INSTALLED = any(point.name == "openreg" for point in importlib.metadata.entry_points(group="pytest11"))
PLUGIN = [] if INSTALLED else ["-p", "torch_openreg.testing.pytest_options"]


@pytest.fixture
def run(pytester, monkeypatch):
    """run(source of a test file, *options): pytest's result."""
    for name in [name for name in os.environ if name.startswith(("OPENREG_", "PYTEST_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", str(Path(torch_openreg.__file__).resolve().parents[1]))

    def run(source, *options):
        pytester.makepyfile(textwrap.dedent(source))
        return pytester.runpytest_subprocess("-p", "no:xdist", "-p", "no:cacheprovider", *PLUGIN, *options, timeout=300)

    return run


def test_without_an_option_nothing_is_loaded_and_device_tests_are_skipped(run):
    result = run(
        """
        import sys

        def test_of_something_else():
            assert "torch" not in sys.modules or "torch_openreg.testing.pytest_plugin" not in sys.modules

        def test_on_the_device(openreg_device):
            raise AssertionError("not reached")
        """,
        "-rs",
    )
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines("*run pytest with --openreg")


def test_the_options_set_up_the_machine(run):
    result = run(
        """
        import torch

        def test_fixtures(openreg_device, openreg_devices):
            assert openreg_device == openreg_devices[0] == torch.device("openreg", 0)
            assert len(openreg_devices) == torch.openreg.device_count() == 4
            assert torch.openreg.mem_get_info(3)[1] == 1 << 30
            assert torch.openreg.current_schedule() == "lazy"
        """,
        "--openreg-devices=4", "--openreg-memory=1GiB", "--openreg-schedule=lazy",
    )  # fmt: skip
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines("openreg: devices 4, memory 1073741824, schedule lazy")


def test_what_a_test_leaves_behind_fails_it(run):
    result = run(
        """
        import pytest, torch

        kept = []

        def test_leaks(openreg_device):
            kept.append(torch.ones(1000, device=openreg_device))

        def test_changes_the_device(openreg_devices):
            torch.openreg.set_device(1)

        def test_changes_the_stream(openreg_device):
            torch.openreg.set_stream(torch.openreg.Stream())

        def test_fails_late(openreg_device):
            x = torch.arange(3.0, device=openreg_device)
            for index in (1, 7):  # the first call of an operator waits
                x[torch.tensor([index], device=openreg_device)]

        @pytest.mark.openreg(check=False)
        def test_is_not_checked(openreg_device):
            kept.append(torch.ones(1000, device=openreg_device))

        @pytest.fixture(scope="module")
        def weights():
            return torch.ones(1000, device="openreg")

        def test_uses_what_a_fixture_keeps(weights):
            assert torch.openreg.current_device() == 0 and torch.openreg.current_stream().stream_id == 0
            assert (weights * 2).sum().item() == 2000
        """,
        "--openreg",
    )
    result.assert_outcomes(passed=3, failed=3, errors=1)  # memory is looked at once the test's fixtures have ended
    result.stdout.no_fnmatch_line("During handling of the above exception*")
    result.stdout.fnmatch_lines_random(
        ["*test_leaks leaked device memory: 4096 bytes on openreg:0*", "*test_changes_the_device left openreg:1*", "*test_changes_the_stream left openreg:0 (streams*", "*aten::index.Tensor failed on openreg:0*"]
    )


def test_what_a_test_gives_to_its_fixtures_is_no_leak(run):
    result = run(
        """
        import unittest
        import pytest, torch

        kept = []

        @pytest.fixture(scope="session")
        def weights():
            return torch.ones(1000, device="openreg")

        @pytest.fixture(scope="module", params=[100, 50])
        def batch(request):
            return torch.ones(request.param, 100, device="openreg")

        @pytest.fixture
        def model(openreg_device):
            return torch.nn.Linear(30, 30, device=openreg_device)

        def test_trains_a_model_of_a_fixture(model, weights, openreg_device):
            optimizer = torch.optim.Adam(model.parameters())
            model(torch.ones(2, 30, device=openreg_device)).sum().backward()
            optimizer.step()
            model.result = weights * 2

        def test_asks_for_a_batch(batch):
            assert batch.sum() > 0

        def test_asks_for_a_fixture_in_its_body(request):
            request.getfixturevalue("late")

        @pytest.fixture(scope="session")
        def late():
            return torch.ones(1000, device="openreg")

        class TestCase(unittest.TestCase):
            def setUp(self):
                self.x = torch.ones(1000, device="openreg")

            def test_keeps_in_the_instance(self):
                self.y = self.x * 2

        class TestOfPytest:
            @pytest.fixture(autouse=True)
            def prepare(self):
                self.x = torch.ones(1000, device="openreg")

            def test_keeps_in_the_instance(self):
                self.y = self.x * 2

        @pytest.mark.parametrize("size", [3000, 30])
        def test_leaks(request, size, openreg_device):
            request.getfixturevalue("model")
            kept.append(torch.ones(size, device=openreg_device))
        """,
        "--openreg",
    )
    result.assert_outcomes(passed=8, errors=2)
    result.stdout.fnmatch_lines_random(["*leaked device memory: 12288 bytes on openreg:0*", "*leaked device memory: 512 bytes on openreg:0*"])


def test_a_mark_limits_the_memory_and_chooses_the_schedule(run):
    result = run(
        """
        import pytest, torch

        @pytest.mark.openreg(memory="64MiB", schedule="lazy")
        def test_small(openreg_device):
            assert torch.openreg.current_schedule() == "lazy"
            torch.empty(60 << 20, dtype=torch.uint8, device=openreg_device)
            with pytest.raises(torch.OutOfMemoryError):
                torch.empty(65 << 20, dtype=torch.uint8, device=openreg_device)

        def test_large(openreg_device):
            assert torch.openreg.current_schedule() == "eager"
            torch.empty(65 << 20, dtype=torch.uint8, device=openreg_device)
        """,
        "--openreg",
    )
    result.assert_outcomes(passed=2)


@pytest.mark.parametrize("mark", ["'64MiB'", "memory='lots'", "memroy='64MiB'"])
def test_a_wrong_mark_stops_the_run(run, mark):
    result = run(f"import pytest\n@pytest.mark.openreg({mark})\ndef test_one():\n    pass\n", "--openreg")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines("*test_one*")


@pytest.mark.parametrize("option", ["--openreg-memory=lots", "--openreg-devices=0", "--openreg-schedule=soon", "--openreg-sanitize=everything"])
def test_a_wrong_option_stops_the_run(run, option):
    result = run("def test_one():\n    pass\n", option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(f"*{option.split('=')[0]} *")


def test_the_sanitizer_fails_a_test_with_a_missing_wait(run):
    result = run(
        """
        import torch

        def test_races(openreg_device):
            x = torch.zeros(1000, device=openreg_device)
            with torch.openreg.stream(torch.openreg.Stream()):
                x.add_(1)
        """,
        "--openreg-sanitize=races",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines("*SanitizerError*")


def test_options_that_come_too_late_are_refused(run, pytester):
    pytester.makeconftest("import torch, torch_openreg; torch.ones(1, device='openreg')")
    result = run("def test_one():\n    pass\n", "--openreg-memory=1GiB")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines("*--openreg-memory cannot be followed*")


STRICT = """
    import pytest, torch

    def best_device(x):
        return "cuda" if x.is_cuda else "cpu"

    def test_asks_for_cuda(openreg_device):
        best_device(torch.ones(2, device=openreg_device))

    @pytest.mark.openreg(hot=True)
    def test_reads_a_number(openreg_device):
        x = torch.ones(2, device=openreg_device)
        if x.sum() > 1:
            x = x + 1

    def test_reads_in_a_section(openreg_device, openreg_hot):
        x = torch.ones(2, device=openreg_device)
        x.sum().item()
        with openreg_hot():
            x.cpu()

    def test_computes_on_the_cpu(openreg_device, openreg_hot):
        x = torch.ones(2, device=openreg_device)
        with openreg_hot():
            x + torch.arange(2.0).to(openreg_device, non_blocking=True)

    def test_is_clean(openreg_device, openreg_hot):
        x = torch.ones(4, device=openreg_device, requires_grad=True)
        with openreg_hot():
            (x * 2).softmax(0).sum().backward()
        assert x.grad.shape == (4,)
    """


def test_strict_mode_fails_what_a_gpu_would_forgive(run):
    result = run(STRICT, "--openreg-strict")
    result.assert_outcomes(passed=1, failed=4)
    result.stdout.fnmatch_lines_random(
        [
            "*Lines that name cuda ran*",
            '*in best_device: return "cuda" if x.is_cuda else "cpu"*',
            "*aten::_local_scalar_dense makes the host wait*",
            "*openreg::copy_to_host makes the host wait*",
            "*aten.arange.* ran on the CPU in a hot section*",
            "*if x.sum() > 1:*",
        ]
    )


def test_without_strict_mode_the_same_tests_pass(run):
    run(STRICT, "--openreg").assert_outcomes(passed=5)


@pytest.mark.skipif(not INSTALLED, reason="the package is built in place, so pytest does not find its entry point")
def test_the_entry_point_imports_neither_torch_nor_the_package(run):
    result = run(
        """
        import sys

        def test_nothing_is_loaded():
            assert "torch_openreg_pytest" in sys.modules
            assert "torch" not in sys.modules and "torch_openreg" not in sys.modules
        """
    )
    result.assert_outcomes(passed=1)
