"""A run that was interrupted or killed goes on where it was and ends as a whole one does. Workers are stubs: this is about the parent."""

import json
import os
import select
import shutil
import signal
from pathlib import Path

import pytest
import stub_worker

from torch_openreg.testing.conformance.report import read_results

ROWS = {f"op{number}": "mismatch" if number == 2 else "pass" for number in range(10)}
HELD = {**ROWS, **{f"op{number}": "wait" for number in range(4, 10)}}
RUN = ("run", "--device", "cpu", "--workers", "1", "--out", "out")


def finished(process):
    out, error = process.communicate(timeout=60)
    return process.returncode, out, error


def run(folder, *more, rows=ROWS, env=None):
    return finished(stub_worker.start(*RUN, *more, rows=rows, folder=folder, env=env))


def stopped_in_the_middle(folder, how, *more):
    """A run whose fifth row does not end, stopped by a signal when four rows are there."""
    process = stub_worker.start(*RUN, *more, rows=HELD, folder=folder)
    seen = [next(process.stderr) for _ in range(4)]
    assert seen[-1].startswith("4/10 rows, score 75.00%, 1 failing")
    workers = [os.pidfd_open(int(pid)) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    process.send_signal(how)
    ended = finished(process)
    for worker in workers:  # a worker that hangs ends with the run, however that ends
        assert select.select([worker], [], [], 20)[0], "a worker lives on"
        os.close(worker)
    assert workers
    return ended


def everything(folder):
    """What is in the folder, without what depends on time."""
    results = sorted(json.dumps({**result.to_json(), "seconds": 0}) for result in read_results(folder / "out"))
    return results, (folder / "out" / "junit.xml").read_text().count("<testcase"), (folder / "out" / "badge.json").read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    status, _, _ = run(folder)
    assert status == 1
    return everything(folder)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=["interrupted", "terminated"])
def test_an_interrupted_run_leaves_its_reports_and_goes_on(how, tmp_path, whole):
    status, out, error = stopped_in_the_middle(tmp_path, how)
    assert (status, len(read_results(tmp_path / "out"))) == (130, 4)
    assert "interrupted; 6 of 10 rows have no result; --resume continues" in error
    assert "3 of 4 rows that the CPU can run pass" in out
    assert "6 of 10 rows have no result" in (tmp_path / "out" / "report.html").read_text()
    # Rows that are there do not run again: op0 would crash now.
    status, out, _ = run(tmp_path, "--resume", "--workers", "2", rows={**ROWS, "op0": "crash"})
    assert status == 1 and "9 of 10 rows that the CPU can run pass" in out
    assert everything(tmp_path) == whole


def test_a_killed_run_goes_on_after_half_a_line(tmp_path, whole):
    status, _, _ = stopped_in_the_middle(tmp_path, signal.SIGKILL)
    assert status == -signal.SIGKILL and not (tmp_path / "out" / "report.html").exists()
    with (tmp_path / "out" / "results.jsonl").open("a") as file:
        file.write('{"id": "op4:float32:forw')
    assert run(tmp_path, "--resume")[0] == 1
    assert everything(tmp_path) == whole


def test_what_a_time_budget_left_out_runs_when_resumed(tmp_path, whole):
    status, out, _ = run(tmp_path, "--time-budget", "0.0001s")
    assert status == 0 and {result.message for result in read_results(tmp_path / "out")} == {"the time budget is used up"}
    assert run(tmp_path, "--resume")[0] == 1
    assert everything(tmp_path) == whole


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped")
    stopped_in_the_middle(folder, signal.SIGINT)
    return folder


@pytest.mark.parametrize("other, env, words", [
    (("--seed", "3", "--dtypes", "int64", "--shard", "1/2"), {}, 'dtypes none, now ["int64"], seed 0, now 3, shard none, now [1, 2]'),
    ((), {"OPENREG_SCHEDULE": "lazy"}, 'environment none, now {"OPENREG_SCHEDULE": "lazy"}'),
], ids=["options", "environment"])
def test_another_plan_is_refused(other, env, words, stopped):
    before = (stopped / "out" / "results.jsonl").read_text()
    status, out, error = run(stopped, "--resume", *other, env=env)
    assert (status, out) == (2, "") and words in error and "was started by `openreg conformance run --device cpu" in error
    assert (stopped / "out" / "results.jsonl").read_text() == before


def test_the_gap_file_of_the_last_part_counts(stopped, tmp_path):
    shutil.copytree(stopped / "out", tmp_path / "out")
    (tmp_path / "gaps.toml").write_text('[[gap]]\nop = "op2"\nkind = "expected_failure"\nreason = "not yet"\n')
    status, out, _ = run(tmp_path, "--resume", "--gaps", "gaps.toml")
    assert status == 0 and "1 failing rows are covered" in out


def test_a_folder_without_a_run_begins_one_and_one_with_rows_alone_is_refused(tmp_path):
    rows = {"op0": "pass"}
    assert run(tmp_path, "--resume", rows=rows)[0] == 0
    (tmp_path / "out" / "run.json").unlink()
    status, _, error = run(tmp_path, "--resume", rows=rows)
    assert status == 2 and "out has rows and no run.json" in error


def test_shards_make_one_report(tmp_path, whole):
    for part in ("1", "2"):
        finished(stub_worker.start(*RUN[:-1], f"shard-{part}", "--shard", f"{part}/2", rows=ROWS, folder=tmp_path))
    status, out, error = finished(stub_worker.start("report", "shard-1", "shard-2", "--out", "out", rows={}, folder=tmp_path))
    assert status == 1 and "9 of 10 rows that the CPU can run pass" in out, error
    assert everything(tmp_path) == whole
    status, _, error = finished(stub_worker.start("report", "shard-1", "nowhere", "--out", "out", rows={}, folder=tmp_path))
    assert status == 2 and "nowhere has no run.json" in error


def test_a_run_is_compared_with_the_one_in_its_own_folder(tmp_path):
    rows = {"op0": "pass", "op1": "pass"}
    assert run(tmp_path, rows=rows)[0] == 0
    status, out, _ = run(tmp_path, "--baseline", "out", rows={**rows, "op1": "mismatch"})
    assert status == 1 and "since out: 1 broken, 0 fixed, 0 changed, 0 new, 0 gone" in out
    assert "op1:float32:forward  pass -&gt; mismatch" in (tmp_path / "out" / "report.html").read_text()


def test_a_folder_that_cannot_be_one_is_refused(tmp_path):
    (tmp_path / "out").write_text("a file")
    status, _, error = run(tmp_path, rows={"op0": "pass"})
    assert status == 2 and error == "out cannot be written: File exists\n"
