"""A sample of the suite under the schedules that delay work. The whole suite under them is a command in CONTRIBUTING.md.

Needs the simulator.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
SAMPLE = {
    "lazy": ["runtime/test_event.py", "runtime/test_host_function.py"],
    "random:1": ["runtime/test_event.py", "aten/test_two_devices.py"],
}


def suite(schedule, *arguments, folder):
    """pytest in a process of its own, under this schedule from its beginning."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OPENREG_", "PYTEST_"))}
    command = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "-c", TESTS.parent / "pyproject.toml", "--rootdir", TESTS.parent, *arguments]
    return subprocess.run(command, env={**environment, "OPENREG_SCHEDULE": schedule}, cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("schedule", SAMPLE)
def test_the_suite_passes(schedule, tmp_path):
    result = suite(schedule, *(TESTS / name for name in SAMPLE[schedule]), folder=tmp_path)
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
    result = suite("random:7", tmp_path / "test_programs.py", folder=tmp_path)
    assert result.returncode == 1 and "1 failed, 2 passed" in result.stdout, result.stdout
    assert "OPENREG_SCHEDULE=random:7" in result.stdout
