"""What a run leaves behind: results.jsonl while it goes, a progress line, and the summary in the terminal."""

import json
import re
import shutil
import sys
import time
from collections import Counter
from pathlib import Path

from .result import OUTCOMES, RowResult
from . import databases

GROUPS_SHOWN = 20


class ResultFile:
    """DIR/results.jsonl: one RowResult per line, written as rows finish. A context manager."""

    def __init__(self, directory: Path):
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / "results.jsonl"
        self.file = self.path.open("w")

    def add(self, result: RowResult) -> None:
        self.file.write(json.dumps(result.to_json()) + "\n")
        self.file.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


def read_results(path: Path) -> list[RowResult]:
    return [RowResult.from_json(json.loads(line)) for line in Path(path).read_text().splitlines()]


class Progress:
    """One line that is rewritten on a terminal; on anything else a line for each tenth of the run."""

    def __init__(self, total: int, stream=None):
        self.total, self.stream = total, stream or sys.stderr
        self.done = self.failing = 0
        self.started = time.monotonic()
        self.live = self.stream.isatty()

    def add(self, result: RowResult) -> None:
        before, self.done = self.done * 10 // self.total, self.done + 1
        self.failing += result.failing and result.gap != "covered"
        if self.live or self.done * 10 // self.total != before:
            self._show()

    def _show(self) -> None:
        elapsed = time.monotonic() - self.started
        left = elapsed / self.done * (self.total - self.done)
        text = f"{self.done}/{self.total} rows, {self.failing} failing, {_clock(elapsed)} gone, about {_clock(left)} left"
        if self.live:
            width = max(10, min(30, shutil.get_terminal_size().columns - len(text) - 5))
            filled = self.done * width // self.total
            text = f"\r[{'#' * filled}{'.' * (width - filled)}] {text}\x1b[K"
        self.stream.write(text + ("" if self.live else "\n"))
        self.stream.flush()

    def close(self) -> None:
        if self.live and self.done:
            self.stream.write("\r\x1b[K")
            self.stream.flush()


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def score(results) -> tuple[int, int]:
    """(rows that pass, rows that the CPU itself can run)."""
    counted = [result for result in results if result.scored]
    return sum(result.outcome == "pass" for result in counted), len(counted)


def accepted(results, exit_problems=()) -> bool:
    """Whether nothing fails but what the gap file covers, nothing passes unexpectedly, and every worker ended well."""
    bad = any((result.failing and result.gap != "covered") or result.gap == "unexpected pass" for result in results)
    return not bad and not exit_problems


def summary_table(results) -> str:
    """Rows by mode and dtype, a column per outcome, and the score. The modes of other databases have their name before them."""
    groups: dict[tuple[str, str, str], list[RowResult]] = {}
    for result in results:
        groups.setdefault((databases.of(result.op).name, result.mode, result.dtype), []).append(result)
    header = ["mode", "dtype", "rows", *OUTCOMES, "score"]
    lines = [
        _table_line(mode if name == databases.DEFAULT else f"{name}/{mode}", dtype, members)
        for (name, mode, dtype), members in sorted(groups.items(), key=_table_order)
    ]
    lines.append(_table_line("total", "", results))
    widths = [max(len(line[i]) for line in [header, *lines]) for i in range(len(header))]

    def layout(cells):
        return "  ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths))).rstrip()

    rule = "-" * len(layout(header))
    return "\n".join([layout(header), rule, *map(layout, lines[:-1]), rule, layout(lines[-1])])


def _table_order(group):
    """Databases and modes in their order; the dtypes that run without options first, in their order."""
    (name, mode, dtype), _ = group
    database, chosen = databases.DATABASES[name], list(databases.DATABASES[name].chosen)
    place = chosen.index((mode, dtype)) if (mode, dtype) in chosen else len(chosen)
    return list(databases.DATABASES).index(name), database.modes.index(mode), place, dtype


def _table_line(mode: str, dtype: str, members) -> list[str]:
    counts = Counter(result.outcome for result in members)
    passed, counted = score(members)
    percent = f"{100 * passed / counted:.2f}%" if counted else "-"
    return [mode, dtype, str(len(members)), *(str(counts[name] or ".") for name in OUTCOMES), percent]


def failure_groups(results) -> list[tuple[str, list[RowResult]]]:
    """Failing rows that no gap covers, grouped by outcome and message with numbers and names left out, largest first."""
    groups: dict[str, list[RowResult]] = {}
    for result in results:
        if result.failing and result.gap != "covered":
            groups.setdefault(f"{result.outcome}: {_shape_of(result.message)}", []).append(result)
    return sorted(groups.items(), key=lambda group: -len(group[1]))


def _shape_of(message: str) -> str:
    """The message without what differs between rows of one cause."""
    text = re.sub(r"0x[0-9a-fA-F]+", "ADDRESS", message)
    text = re.sub(r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?%?", "N", text)
    return re.sub(r"(, N)+", ", N", text)[:160]


def repro_command(result: RowResult, options: str) -> str:
    sample = f"#{result.sample}" if result.sample is not None else ""
    return f"openreg conformance repro '{result.id}{sample}' {options}".rstrip()


def print_summary(results, *, options: str, path: Path, exit_problems=(), stream=None) -> None:
    """The table, the failures with a command for each group, and where the rows are."""
    out = stream or sys.stdout
    emphasis = "\x1b[1m%s\x1b[0m" if out.isatty() else "%s"
    print(summary_table(results), file=out)
    covered = sum(result.gap == "covered" for result in results)
    unexpected = [result for result in results if result.gap == "unexpected pass"]
    groups = failure_groups(results)
    if groups:
        print("\n" + emphasis % f"failures, by message ({sum(len(m) for _, m in groups)} rows)", file=out)
    for title, members in groups[:GROUPS_SHOWN]:
        first = members[0]
        print(f"\n  {len(members)} x {first.outcome}: {first.sentence[:300]}", file=out)
        print(f"      {', '.join(m.id for m in members[:4])}{', ...' if len(members) > 4 else ''}", file=out)
        print(f"      {repro_command(first, options)}", file=out)
    if len(groups) > GROUPS_SHOWN:
        print(f"\n  and {len(groups) - GROUPS_SHOWN} more messages in {path}", file=out)
    for result in unexpected:
        print(f"\n  unexpected pass: {result.id} (the gap file says: {result.gap_reason})", file=out)
    for problem in exit_problems:
        print(f"\n  {problem}", file=out)
    if covered:
        print(f"\n{covered} failing rows are covered by the gap file", file=out)
    passed, counted = score(results)
    percent = f" ({100 * passed / counted:.2f}%)" if counted else ""
    print("\n" + emphasis % f"score: {passed} of {counted} rows that the CPU can run pass{percent}", file=out)
    print(f"rows: {path}", file=out)
