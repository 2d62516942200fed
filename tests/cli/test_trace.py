"""`openreg trace`: what it runs, what it writes, and with which status it ends. Needs torch_openreg."""

import json
import os
import subprocess
import textwrap

import pytest

from torch_openreg import child

PROGRAM = """
import sys, torch
if "late" in sys.argv:
    source = torch.ones(5, device="openreg")
    source.gather(0, torch.tensor([1], device="openreg"))
    source.gather(0, torch.tensor([9], device="openreg"))
print(__name__, sys.argv[1:], (torch.ones(3, device="openreg") * 3).tolist() if "late" not in sys.argv else "")
import neighbour
if "raise" in sys.argv:
    raise LookupError("mine")
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def run(tmp_path):
    """run(*arguments): `openreg trace ...` in a folder with program.py and neighbour.py; the result, and the events or None."""
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "neighbour.py").write_text("")

    def run(*arguments, **environment):
        result = subprocess.run(
            child.command("torch_openreg", "trace", *arguments), cwd=tmp_path, capture_output=True, text=True, timeout=120,
            env={**os.environ, **environment},
        )  # fmt: skip
        file = tmp_path / "trace.json"
        return result, json.loads(file.read_text())["traceEvents"] if file.exists() else None

    return run


def names(events):
    return {event["name"] for event in events if event["ph"] == "X"}


def test_a_script_runs_as_main_with_its_arguments_and_status(run):
    result, events = run("program.py", "3", "-m", "--output")
    assert result.returncode == 3, result.stderr
    assert result.stdout == "__main__ ['3', '-m', '--output'] [3.0, 3.0, 3.0]\n"
    assert result.stderr.splitlines()[-1].endswith("trace.json") and "Traceback" not in result.stderr
    assert {"aten::mul.Tensor", "stream_synchronize"} <= names(events)


def test_a_module_runs_too_and_the_file_has_the_name_that_was_asked_for(run, tmp_path):
    result, events = run("-o", "other.json", "-m", "program", "0")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("__main__ ['0'] [3.0") and events is None
    assert "aten::mul.Tensor" in names(json.loads((tmp_path / "other.json").read_text())["traceEvents"])


def test_a_program_that_fails_has_its_traceback_and_its_trace(run):
    result, events = run("program.py", "0", "raise")
    assert result.returncode == 1
    assert "LookupError: mine" in result.stderr and "trace_child" not in result.stderr and "runpy" not in result.stderr
    assert "aten::mul.Tensor" in names(events)


def test_a_late_error_is_told_and_marked(run):
    result, events = run("program.py", "0", "late")
    assert "aten::gather failed on openreg:0" in result.stderr
    assert "failed" in {event["args"]["status"] for event in events if event["name"] == "aten::gather" and event["ph"] == "X"}


def test_a_program_without_a_device_has_an_empty_trace(run, tmp_path):
    (tmp_path / "idle.py").write_text("print('idle')")
    result, events = run("idle.py")
    assert result.returncode == 0 and result.stdout == "idle\n" and names(events) == set()


def test_stacks_name_the_line(run):
    _, events = run("--stacks", "program.py", "0")
    sites = {event["args"].get("site", "") for event in events if event["name"] == "aten::mul.Tensor"}
    assert any("program.py:7" in site for site in sites), sites


def test_what_cannot_run_is_one_sentence(run):
    for arguments, sentence in ((["missing.py"], "there is no file missing.py"), (["--max-events", "0", "program.py"], "--max-events")):
        result, events = run(*arguments)
        assert result.returncode == 2 and sentence in result.stderr and events is None


def test_records_beyond_the_limit_are_told(run):
    result, events = run("--max-events", "5", "program.py", "0")
    assert "records had no room" in result.stderr and len([event for event in events if event["ph"] == "X"]) == 5


def test_the_program_sees_no_setting_of_the_command(run, tmp_path):
    (tmp_path / "settings.py").write_text(textwrap.dedent("""
        import os, torch
        assert "TORCH_OPENREG_DEFER_LOAD" not in os.environ and torch.openreg.is_available()
    """))
    result, _ = run("settings.py")
    assert result.returncode == 0, result.stderr
