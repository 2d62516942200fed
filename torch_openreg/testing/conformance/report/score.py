"""Counting: rows by outcome, for a whole run or for each level, family or mode of it. See Note [What the score counts]."""

import functools
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from .. import databases, levels
from ..result import FAILING, RowResult
from ..rows import DTYPES, Row

# Note [What the score counts]
# The score is the rows that pass, divided by the rows that the CPU itself can run. Rows with the outcome `cpu-cannot` or `skip` are
# in neither number. A row that the gap file covers counts as the failure that it is: the file decides whether a run is accepted, and
# the score says where the device stands. Percentages are rounded down, so that only a score without a failure reads 100%.


@dataclass
class Tally:
    """Rows by outcome, and of the failing ones how many the gap file covers."""

    outcomes: Counter = field(default_factory=Counter)
    covered: int = 0

    def add(self, result: RowResult) -> None:
        self.outcomes[result.outcome] += 1
        self.covered += result.gap == "covered"

    @property
    def rows(self) -> int:
        return self.outcomes.total()

    @property
    def passed(self) -> int:
        return self.outcomes["pass"]

    @property
    def failing(self) -> int:
        return sum(self.outcomes[name] for name in FAILING)

    @property
    def counted(self) -> int:
        return self.passed + self.failing

    @property
    def percent(self) -> str:
        return percent(self.passed, self.counted)


def percent(passed: int, counted: int) -> str:
    """`99.98%`, rounded down; `-` when nothing counts."""
    if not counted:
        return "-"
    hundredths = 10000 * passed // counted
    return f"{hundredths // 100}.{hundredths % 100:02}%"


def tally(results) -> Tally:
    total = Tally()
    for result in results:
        total.add(result)
    return total


def tallies(results, key) -> dict:
    """key(result) -> Tally of the rows with this key, in the order in which keys appear."""
    found = defaultdict(Tally)
    for result in results:
        found[key(result)].add(result)
    return dict(found)


@functools.cache
def _places(op: str) -> tuple[str, str, databases.Database]:
    """The level, family and database of a row's name."""
    return levels.of(op), Row(op, "", "").family, databases.of(op)


def level(result: RowResult) -> str:
    return _places(result.op)[0]


def family(result: RowResult) -> str:
    return _places(result.op)[1]


def mode(result: RowResult) -> str:
    """The mode, after the database's name where that is neither the default one nor the mode itself."""
    name = _places(result.op)[2].name
    return result.mode if name in (databases.DEFAULT, result.mode) else f"{name}/{result.mode}"


def _order(result: RowResult) -> tuple:
    place, name, database = _places(result.op)
    return place, name, result.op, database.modes.index(result.mode), dtype_order(result.dtype)


def ordered(results) -> list[RowResult]:
    """By level, family, operator, mode and dtype: the same for every order in which rows finished."""
    return sorted(results, key=_order)


def dtype_order(dtype: str) -> tuple[int, str]:
    return (DTYPES.index(dtype) if dtype in DTYPES else len(DTYPES), dtype)


def accepted(results, exit_problems=()) -> bool:
    """Whether nothing fails but what the gap file covers, nothing passes that it calls a failure, and every worker ended well."""
    bad = any((result.failing and result.gap != "covered") or result.gap == "unexpected pass" for result in results)
    return not bad and not exit_problems
