"""The benchmark program runs: every line gives finite figures on tiny sizes, and the counts of scale.py are right.

No figure is judged here, because timing is no test. Needs the built package.
"""

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

import idle
import kernels
import memory
import operators
import run
import scale
import table
import timing
import traces

PROGRAM = Path(run.__file__)


def benchmark(*arguments):
    return subprocess.run([sys.executable, PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=120)


def test_a_tiny_run_gives_finite_ratios_and_tables_of_every_line(tmp_path):
    """Everything but the counts, in one run, because each is a process of seconds."""
    file = tmp_path / "figures.json"
    result = benchmark("--tiny", "--rounds", 2, "--only", ",".join(row.name for row in run.ROWS), "--json", file, "--markdown")
    assert result.returncode == 0, result.stdout + result.stderr
    figures = json.loads(file.read_text())["results"]
    assert sorted(figure["name"] for figure in figures) == sorted(row.name for row in run.ROWS)
    for figure in figures:
        for field in ("ratio", "device_seconds", "cpu_seconds", "cpu_time_ratio", "two_threads_ratio"):
            value = figure[field]
            assert value is None or (math.isfinite(value) and value > 0), (figure["name"], field, value)
    # The training lines and no others show what the second core does.
    assert [figure["name"] for figure in figures if figure["cpu_time_ratio"] is not None] == [row.name for row in run.training.ROWS]
    assert [row.title for row in run.ROWS if f"| {row.title} |" not in result.stdout] == []


def test_unknown_names_are_refused():
    result = benchmark("--only", "add-launch,adds")
    assert result.returncode == 2 and "unknown: adds" in result.stderr


def test_names_are_unique():
    names = [row.name for row in run.ROWS]
    assert len(set(names)) == len(names) and not {run.SCALE, run.OPERATORS} & set(names)


def test_samples_alternate_and_neither_side_always_follows():
    order = []
    sides = [timing.Side(lambda name=name: order.append(name)) for name in "ab"]
    timing.alternate(*sides, rounds=4)
    assert "".join(order) == "abbaabba"


def test_the_docs_page_keeps_its_text_around_the_tables(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    for _ in range(2):
        table.write_docs(page, "new")
    assert page.read_text() == f"before\n{table.BEGIN}\n\nnew\n\n{table.END}\nafter\n"
    page.write_text("no markers")
    with pytest.raises(ValueError, match="once each"):
        table.write_docs(page, "new")


def test_the_docs_page_has_the_lines_of_this_program():
    text = run.PAGE.read_text()
    assert [row.title for row in run.ROWS if f"| {row.title} |" not in text] == []


def test_many_tensors_streams_and_devices_work_with_a_thread_per_stream_in_use():
    assert [dataclasses.asdict(check) for check in scale.checks() if not check.met] == []


def test_an_idle_process_runs_no_thread():
    assert [dataclasses.asdict(check) for check in idle.checks() if not check.met] == []


def test_a_hundred_thousand_tensors_live_and_memory_goes_back_to_the_system():
    assert [dataclasses.asdict(check) for check in memory.checks() if not check.met] == []


def test_every_trace_gives_finite_ratios():
    lines = memory.overheads(tiny=True)
    assert [line.name for line in lines] == list(memory.TRACES)
    for line in lines:
        assert line.allocations >= 5_000 and 1 <= line.ratio < math.inf and 1 <= line.expandable_ratio < math.inf
    text = table.markdown([], [], [], lines)
    assert all(f"| {title} |" in text for title in memory.TRACES.values())


@pytest.mark.parametrize("name", memory.TRACES)
def test_a_trace_frees_what_it_allocates_once(name):
    trace = traces.random_trace(7, 5000) if name == "random" else traces.recorded_trace(name)
    made, freed = 0, set()
    for entry in trace:
        if entry > 0:
            made += 1
        else:
            assert 1 <= -entry <= made and -entry not in freed
            freed.add(-entry)
    assert len(freed) == made > 1000
    assert name != "random" or trace == traces.random_trace(7, 5000)


def test_the_operator_database_gives_finite_ratios_by_family():
    import torch_openreg  # noqa: F401

    measured = list(operators.calls({"add", "sum", "nn.functional.linear"}, samples=2, rounds=2, tiny=True))
    lines = operators.families(measured)
    assert {line.name for line in lines} == {"binary", "reductions", "nn.functional", "all"}
    assert all(math.isfinite(line.ratio) and line.ratio > 0 for line in lines) and lines[-1].calls == len(measured)


@pytest.mark.usefixtures("one_thread")  # large tensors are the CPU kernels' with more
@pytest.mark.parametrize("name", [row.name for row in kernels.ROWS])
def test_a_comparison_of_a_kernel_with_the_engine_takes_both_ways(name):
    import torch
    import torch_openreg  # noqa: F401

    (row,) = [row for row in kernels.ROWS if row.name == name]
    ways = []
    for side in row.sides(True):
        torch.openreg.reset_op_stats()
        side.work()
        counts = torch.openreg.op_stats()
        ways.append({way for way in ("native", "engine") if any(count[way] for count in counts.values())})
    assert ways[0] == {"native"} and "engine" in ways[1]  # core makes some of these operators of several, a few of them native
