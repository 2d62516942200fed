"""How results are shown: lines for a terminal, and the Markdown tables that docs/performance.md quotes."""

from __future__ import annotations

import math
import os
import statistics
from pathlib import Path

import torch

import graph
import kernels
import large
import operators
from memory import Overhead
from operators import Family
from scale import Check
from timing import Result

BEGIN = "<!-- benchmark:begin -->"
END = "<!-- benchmark:end -->"


def line(entry: Result | Check | Family | Overhead) -> str:
    """One result, check, family or overhead for a terminal."""
    if isinstance(entry, Overhead):
        return (f"{entry.name:15} {entry.ratio:6.2f}   at most {entry.target:5.2f}  {_word(entry):6}  expandable segments "
                f"{entry.expandable_ratio:.2f}, {entry.allocations} allocations, {entry.allocated_mib:.0f} MiB")
    if isinstance(entry, Family):
        return f"{entry.name:15} {entry.ratio:6.2f}   {entry.calls:5} calls   worst: {entry.worst}"
    verdict = _word(entry)
    if isinstance(entry, Check):
        return f"{entry.name:15} {entry.found:6}   must be {entry.expected:5}  {verdict:6}  {entry.title}"
    times = f"{_time(entry.device_seconds)} against {_time(entry.cpu_seconds)}"
    if entry.cpu_time_ratio is not None:
        times += f", CPU time {entry.cpu_time_ratio:.2f}, cpu with two threads {entry.two_threads_ratio:.2f}"
    return f"{entry.name:15} {entry.ratio:6.2f}   at most {entry.target:5.2f}  {verdict:6}  {times}"


def conditions() -> str:
    """One sentence on what a run depends on."""
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    return f"Taken with torch {torch.__version__} on {cores} cores, at a load average of {load:.1f} (1.0 is this program alone)."


def markdown(results: list[Result], checks: list[Check], families: list[Family] = (), overheads: list[Overhead] = ()) -> str:
    """The tables of the documentation, without the tables that have no lines, and what they were taken with."""
    parts = [conditions()]
    steps = [result for result in results if result.cpu_time_ratio is not None]
    big = [result for result in results if result.name in {row.name for row in large.ROWS}]
    pairs = [result for result in results if result.name in {row.name for row in kernels.ROWS}]
    replays = [result for result in results if result.name in {row.name for row in graph.ROWS}]
    others = [result for result in results if result.cpu_time_ratio is None and result not in [*big, *pairs, *replays]]
    if steps:
        parts.append(
            _table(
                ["Training step", "openreg", "cpu", "Ratio", "Target", "", "CPU time", "cpu, two threads"],
                [[*_cells(step), f"{step.cpu_time_ratio:.2f}", f"{step.two_threads_ratio:.2f}"] for step in steps],
            )
        )
    if others:
        parts.append(_table(["Work", "openreg", "cpu", "Ratio", "Target", ""], [_cells(other) for other in others]))
    if replays:
        rows = [_cells(result) for result in replays]
        parts.append(_table(["Host time of a training step", "replay", "eager launch", "Ratio", "Target", ""], rows))
    if big:
        rows = [_cells(result) for result in big]
        if len(big) > 1:
            mean = math.exp(statistics.fmean(math.log(result.ratio) for result in big))
            verdict = "met" if mean <= large.TARGET else "**missed**"
            rows.append(["geometric mean", "", "", f"{mean:.2f}", f"{large.TARGET:.2f}", verdict])
        parts.append(_table(["Large tensors", "openreg", "cpu", "Ratio", "Target", ""], rows))
    if pairs:
        rows = [_cells(result) for result in pairs]
        parts.append(_table(["Device kernel", "kernel", "engine", "Ratio", "Target", ""], rows))
    if families:
        rows = [[family.name, str(family.calls), f"{family.ratio:.2f}", family.worst] for family in families]
        verdict = "met" if families[-1].ratio <= operators.TARGET else "missed"
        parts.append(_table(["Operator database", "Calls", "Ratio", "Largest ratio"], rows))
        parts.append(f"The geometric mean over all of them has a target of {operators.TARGET:.1f}: {verdict}.")
    if overheads:
        rows = [
            [entry.title, f"{entry.allocations:,}", f"{entry.allocated_mib:.0f} MiB", f"{entry.ratio:.2f}", f"{entry.target:.2f}",
             _verdict(entry), f"{entry.expandable_ratio:.2f}"]
            for entry in overheads
        ]
        head = ["Reserved to allocated memory, at the peak", "Allocations", "Allocated", "Ratio", "Target", "", "Expandable segments"]
        parts.append(_table(head, rows))
    if checks:
        rows = [[check.title, str(check.found), str(check.expected), _verdict(check)] for check in checks]
        parts.append(_table(["Count", "Found", "Must be", ""], rows))
    return "\n\n".join(parts)


def write_docs(page: Path, text: str) -> None:
    """Replaces what stands between the two markers of the page. Raises ValueError when they are not there once each."""
    old = page.read_text()
    if old.count(BEGIN) != 1 or old.count(END) != 1:
        raise ValueError(f"{page} must contain {BEGIN} and {END} once each")
    head, rest = old.split(BEGIN)
    tail = rest.split(END)[1]
    page.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}")


def _cells(result: Result) -> list[str]:
    times = [_time(result.device_seconds), _time(result.cpu_seconds)]
    return [result.title, *times, f"{result.ratio:.2f}", f"{result.target:.2f}", _verdict(result)]


def _word(entry: Result | Check | Overhead) -> str:
    return "met" if entry.met else "MISSED"


def _verdict(entry: Result | Check | Overhead) -> str:
    return "met" if entry.met else "**missed**"


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f} us"


def _table(head: list[str], rows: list[list[str]]) -> str:
    # Titles are left, numbers right.
    rule = ["---" if cell in ("", head[0]) else "---:" for cell in head]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, rule, *rows])
