"""The summary in the terminal: rows by mode and dtype, the score by level, and failures by cause with a command for each."""

import sys
from pathlib import Path

from .. import databases
from ..levels import LEVELS
from ..result import OUTCOMES, RowResult
from .cause import failure_groups, repro_command
from .score import Tally, level, mode, tallies, tally

GROUPS_SHOWN = 20


def summary_table(results) -> str:
    """Rows by mode and dtype, a column per outcome, and the score. The modes of other databases have their name before them."""
    groups = tallies(results, lambda result: (databases.of(result.op).name, result.mode, mode(result), result.dtype))
    header = ["mode", "dtype", "rows", *OUTCOMES, "score"]
    lines = [_table_line(shown, dtype, members) for (_, _, shown, dtype), members in sorted(groups.items(), key=_table_order)]
    lines.append(_table_line("total", "", tally(results)))
    return _layout(header, lines, left=2)


def level_table(results) -> str:
    """A line for each level that has rows."""
    groups = tallies(results, level)
    lines = [[name, LEVELS[name].title, str(t.passed), str(t.counted), str(t.rows - t.counted or "."), t.percent]
             for name, t in sorted(groups.items())]
    return _layout(["level", "", "pass", "of", "not counted", "score"], lines, left=2)


def _layout(header, lines, left: int) -> str:
    """A table whose last line is a total when the first column says so; the first columns are aligned to the left."""
    widths = [max(len(line[i]) for line in [header, *lines]) for i in range(len(header))]

    def layout(cells):
        return "  ".join(c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths))).rstrip()

    rule = "-" * len(layout(header))
    total = [rule, layout(lines.pop())] if lines[-1][0] == "total" else []
    return "\n".join([layout(header), rule, *map(layout, lines), *total])


def _table_order(group):
    """Databases and modes in their order; the dtypes that run without options first, in their order."""
    (name, mode_, _, dtype), _ = group
    database, chosen = databases.DATABASES[name], list(databases.DATABASES[name].chosen)
    place = chosen.index((mode_, dtype)) if (mode_, dtype) in chosen else len(chosen)
    return list(databases.DATABASES).index(name), database.modes.index(mode_), place, dtype


def _table_line(shown: str, dtype: str, members: Tally) -> list[str]:
    return [shown, dtype, str(members.rows), *(str(members.outcomes[name] or ".") for name in OUTCOMES), members.percent]


def print_summary(results: list[RowResult], *, options: str, path: Path, exit_problems=(), fix_first=(), stream=None) -> None:
    """Prints the tables, the failures with a command for each group, what to fix first, as lines, and where the rows are."""
    out = stream or sys.stdout
    emphasis = "\x1b[1m%s\x1b[0m" if out.isatty() else "%s"
    print(summary_table(results), file=out)
    if results:
        print("\n" + level_table(results), file=out)
    unexpected = [result for result in results if result.gap == "unexpected pass"]
    groups = failure_groups(results)
    if groups:
        print("\n" + emphasis % f"failures, by message ({sum(len(m) for _, m in groups)} rows)", file=out)
    for _, members in groups[:GROUPS_SHOWN]:
        first = members[0]
        print(f"\n  {len(members)} x {first.outcome}: {first.sentence[:300]}", file=out)
        print(f"      {', '.join(m.id for m in members[:4])}{', ...' if len(members) > 4 else ''}", file=out)
        print(f"      {repro_command(first, options)}", file=out)
    if len(groups) > GROUPS_SHOWN:
        print(f"\n  and {len(groups) - GROUPS_SHOWN} more messages in {path}", file=out)
    for number, line in enumerate(fix_first):
        print(line if number else "\n" + emphasis % line, file=out)
    for result in unexpected:
        print(f"\n  unexpected pass: {result.id} (the gap file says: {result.gap_reason})", file=out)
    for problem in exit_problems:
        print(f"\n  {problem}", file=out)
    total = tally(results)
    if total.covered:
        print(f"\n{total.covered} failing rows are covered by the gap file", file=out)
    share = f" ({total.percent})" if total.counted else ""
    print("\n" + emphasis % f"score: {total.passed} of {total.counted} rows that the CPU can run pass{share}", file=out)
    print(f"rows: {path}", file=out)
