"""A sample of the suite under the schedules that delay work. The whole suite under them is a command in CONTRIBUTING.md.

Needs the simulator.
"""

import pytest
from inner_suite import TESTS, inner_suite

SAMPLE = {
    "lazy": ["runtime/test_event.py", "runtime/test_host_function.py"],
    "random:1": ["runtime/test_event.py", "aten/test_two_devices.py"],
}


@pytest.mark.parametrize("schedule", SAMPLE)
def test_the_suite_passes(schedule, tmp_path):
    result = inner_suite(*(TESTS / name for name in SAMPLE[schedule]), folder=tmp_path, env={"OPENREG_SCHEDULE": schedule})
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr[-2000:]


def test_a_failure_names_the_schedule_and_the_eager_fixture_leaves_it(tmp_path):
    (tmp_path / "conftest.py").write_text((TESTS / "conftest.py").read_text())
    (tmp_path / "test_programs.py").write_text("""
import torch, torch_openreg

def test_fails():
    assert torch.openreg.current_schedule() == "eager"

def test_passes(eager):
    assert torch.openreg.current_schedule() == "eager"

def test_comes_back():
    assert torch.openreg.current_schedule() == "random:7"
""")
    result = inner_suite(tmp_path / "test_programs.py", folder=tmp_path, env={"OPENREG_SCHEDULE": "random:7"})
    assert result.returncode == 1 and "1 failed, 2 passed" in result.stdout, result.stdout
    assert "OPENREG_SCHEDULE=random:7" in result.stdout
