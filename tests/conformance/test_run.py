"""`openreg conformance run` and `repro` on the CPU: files, table, exit statuses, refusals."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from torch_openreg.testing.conformance import RowResult, run_row
from torch_openreg.testing.conformance.report import read_results


WORDS = ("conformance", "run", "--device", "cpu", "--ops", "add,svd,zeros,arange,randn,empty,nn.functional.dropout,jiterator_unary",
         "--samples", "3", "--seed", "3", "--workers", "1")  # fmt: skip


@pytest.fixture(scope="module")
def cpu_run(openreg):
    return openreg(*WORDS, "--out", "results")


def results_of(run, folder="results"):
    return {result.id: result for result in read_results(run.folder / folder / "results.jsonl")}


def test_the_cpu_passes_against_itself(cpu_run):
    assert cpu_run.returncode == 0, cpu_run.stdout + cpu_run.stderr
    results = results_of(cpu_run)
    assert {r.outcome for r in results.values() if r.op != "jiterator_unary"} == {"pass"}
    assert results["svd:float32:gradient"].samples_run == 3
    assert results["add:float32:forward"].samples_total > 3


def test_what_the_cpu_cannot_run_is_counted_and_not_scored(cpu_run):
    row = results_of(cpu_run)["jiterator_unary:float32:forward"]
    assert row.outcome == "cpu-cannot" and "CUDA" in row.message and not row.scored


def test_every_line_of_the_result_file_is_a_row(cpu_run):
    lines = (cpu_run.folder / "results" / "results.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert len({record["id"] for record in records}) == len(lines)
    assert all(RowResult.from_json(record).to_json() == record for record in records)
    assert {record["seed"] for record in records} == {3}


def test_the_table_has_a_line_per_mode_and_dtype_and_the_score(cpu_run):
    lines = cpu_run.stdout.splitlines()
    assert lines[0].split() == ["mode", "dtype", "rows", "pass", "mismatch", "unsupported", "error", "crash", "timeout",
                                "cpu-cannot", "skip", "score"]  # fmt: skip
    assert any(line.startswith("gradient  float32") and line.endswith("100.00%") for line in lines)
    assert "\x1b" not in cpu_run.stdout + cpu_run.stderr, "no control characters where there is no terminal"


def test_every_file_of_a_run_is_there(cpu_run):
    assert {path.name for path in (cpu_run.folder / "results").iterdir()} == {
        "results.jsonl", "run.json", "report.html", "junit.xml", "support.md", "badge.json", "ranking.json"}
    assert (cpu_run.folder / "results" / "junit.xml").read_text().count("<testcase") == len(results_of(cpu_run))


def test_a_run_that_was_cut_short_is_resumed_to_the_same_end(openreg, cpu_run):
    folder = cpu_run.folder / "cut"
    shutil.copytree(cpu_run.folder / "results", folder)
    lines = (folder / "results.jsonl").read_text().splitlines(keepends=True)
    (folder / "results.jsonl").write_text("".join(lines[: len(lines) // 2]) + lines[-1][:20])
    done = openreg(*WORDS, "--out", folder, "--resume")
    assert done.returncode == 0, done.stdout + done.stderr
    plain = lambda found: {id_: replace(result, seconds=0) for id_, result in found.items()}  # noqa: E731
    assert plain(results_of(cpu_run, folder)) == plain(results_of(cpu_run))


def test_repro_runs_one_sample(openreg):
    done = openreg("conformance", "repro", "svd:float32:gradient#2", "--device", "cpu")
    assert done.returncode == 0
    assert "svd:float32:gradient on cpu: pass" in done.stdout and "sample 2 of" in done.stdout


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["run", "--device", "xla"], "device 'xla' cannot be tested"),
        (["run", "--device", "nochip"], "does not know the device 'nochip'"),
        (["run", "--device", "cpu", "--import", "no_such_module"], "cannot import 'no_such_module'"),
        (["run", "--device", "cpu", "--ops", "no_such_op", "--workers", "1"], "no row of the databases"),
        (["run", "--mode", "sideways"], "the modes are forward, gradient"),
        (["run", "--timeout", "soon"], "is not a time"),
        (["run", "--gaps", "missing.toml"], "missing.toml: cannot be read"),
        (["repro", "add"], "OP:DTYPE:MODE"),
        (["repro", "add:float32:forward#9999", "--device", "cpu"], "there is no sample 9999"),
    ],
)
def test_what_cannot_run_says_why_with_status_2(openreg, arguments, words):
    done = openreg("conformance", *arguments)
    assert done.returncode == 2
    assert words in done.stderr and "Traceback" not in done.stderr


def test_a_spent_time_budget_skips_the_rest(openreg):
    done = openreg("conformance", "run", "--device", "cpu", "--ops", "s*", "--time-budget", "0.01s", "--workers", "1")
    results = results_of(done, "openreg-conformance")
    assert done.returncode == 0
    assert {(r.outcome, r.message) for r in results.values()} == {("skip", "the time budget is used up")}


def test_a_row_runs_in_this_process():
    result = run_row("add", "float32", "gradient", "cpu", samples=2)
    assert (result.outcome, result.samples_run, result.device) == ("pass", 2, "cpu")
    assert run_row("add", "float32", "gradient", "cpu", only=1).samples_run == 1


def test_the_command_starts_without_torch(python):
    python(
        """
        import sys
        import torch_openreg.cli
        from torch_openreg.cli import conformance, doctor
        assert "torch" not in sys.modules
        """,
        env={"TORCH_OPENREG_DEFER_LOAD": "1"},
    )


def test_a_backend_that_loads_by_its_entry_point_needs_no_more_than_its_name(python, tmp_path):
    (tmp_path / "latechip.py").write_text("def _autoload():\n    import fakechip\n")
    (tmp_path / "latechip-1.0.dist-info").mkdir()
    (tmp_path / "latechip-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: latechip\nVersion: 1.0\n")
    (tmp_path / "latechip-1.0.dist-info" / "entry_points.txt").write_text("[torch.backends]\nlatechip = latechip:_autoload\n")
    root = Path(importlib.util.find_spec("torch_openreg").origin).parent.parent
    path = os.pathsep.join(map(str, (root, Path(__file__).parent, tmp_path)))
    python(
        """
        from torch_openreg.testing.conformance.device import DeviceUnderTest
        assert DeviceUnderTest("fakechip", "latechip").device.type == "fakechip"
        """,
        env={"PYTHONPATH": path, "TORCH_OPENREG_DEFER_LOAD": "1", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"},
    )


# The command as its script runs it, which does not look into the working directory.
SCRIPT = "import sys; sys.path.pop(0); from torch_openreg.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--device", "cpu", "--ops", "add", "--dtypes", "float32", "--samples", "1", "--workers", "1"),
        ("repro", "add:float32:forward#0", "--device", "cpu"),
    ],
    ids=["run", "repro"],
)
def test_unbuilt_sources_in_the_working_directory_do_not_matter(arguments, tmp_path):
    sources = tmp_path / "torch_openreg"
    sources.mkdir()
    (sources / "__init__.py").write_text("raise ImportError('these sources are not built')")
    root = str(Path(importlib.util.find_spec("torch_openreg").origin).parent.parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", SCRIPT, "conformance", *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "row, outcome",
    [
        ("add:float32:forward", "pass"),
        ("sum:float32:gradient", "pass"),
        ("nn.functional.dropout:float32:forward", "pass"),
        ("linalg.svd:float32:forward", "mismatch"),  # other strides than the CPU's
        ("masked_select:float32:forward", "unsupported"),  # the size of its result depends on values
        ("scatter:float32:errors", "pass"),
    ],
)
def test_meta_has_everything_but_values(row, outcome):
    op, dtype, mode = row.split(":")
    result = run_row(op, dtype, mode, "meta", samples=0)
    assert result.outcome == outcome, result.sentence
