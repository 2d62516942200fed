"""What to fix first: the causes of a run's failures, by the rows and the real models that each blocks, and an order of work. No torch here.

See Note [Causes] and Note [Order of work].
"""

import json
import re
from collections import Counter
from dataclasses import asdict, dataclass, field

from . import dependencies
from . import pack as packs

# Note [Causes]
# A failing row has one cause. Where the message names an operator without a kernel, that operator is it; whoever needs the kernels behind
# it needs it as well, since that is where this device looks. Otherwise it is looked for among
# the kernels that the row needs (dependencies.json): those that no passing row of the same dtype needs are suspects, and the suspect that
# has the row's name, or else that most failing rows need, is the cause. Without a suspect it is the row's own operator. A dtype of which
# many rows fail and none passes, while rows of others do, is a cause itself. A cause blocks the rows that it is the cause of,
# those that fail for want of a kernel and need this one as well, and the model packs whose calls need it.

# Note [Order of work]
# The order is greedy: each step takes the cause whose rows are nearest to passing, a row counting for one part in as many as it still
# waits for. It is not proven to be the shortest. Rows that fail for other reasons wait for their cause alone.

TARGETS = (50, 80, 95, 99)  # percent
SHOWN = 10
NAMES_SHOWN = 6
DTYPE_ROWS = 8  # failing rows of a dtype that tell something about the dtype
_NO_KERNEL = re.compile(r"(?:Could not run|not implemented|not currently implemented|no kernel|no such kernel)", re.IGNORECASE)
_OPERATOR = re.compile(r"\b[A-Za-z_]\w*::\w+(?:\.\w+)?")


@dataclass
class Cause:
    """name: an operator, as in aten::add.out, or a row's name, or a dtype. rows, models: COUNT of what it blocks.

    missing: the device has no kernel. needed_by: names of failing rows that need it, model rows left out. example: the id of a row.
    """

    name: str
    rows: int = 0
    models: int = 0
    missing: bool = False
    needed_by: list[str] = field(default_factory=list)
    model_names: list[str] = field(default_factory=list)
    example: str = ""
    message: str = ""

    @property
    def text(self) -> str:
        return f"{self.name}: {'no kernel' if self.missing else self.message[:120]}"


@dataclass
class Step:
    """Kernels that lift the share of rows, or of models, to a target, besides those of the steps before. percent: what they lift it to."""

    target: int
    percent: float
    fixes: list[str]


@dataclass
class Ranking:
    causes: list[Cause]
    row_steps: list[Step]
    model_steps: list[Step]
    rows_pass: int
    rows: int  # that the CPU can run
    models_pass: int
    models: int

    def entries(self) -> list[tuple[str, int, int]]:
        """(text, rows, models) of each cause, the first to fix first."""
        return [(cause.text, cause.rows, cause.models) for cause in self.causes]


def rank(results, kernels=(), pack_files=()) -> Ranking:
    """Ranks the failures of a run.

    kernels: what the device has registered, as the worker lists it. pack_files: model packs to count, names or paths; none means those that ship.
    Covered failures count: a gap is still a gap.
    """
    scored = [result for result in results if result.scored]
    named = {result.id: name for result in scored if result.failing and (name := _named(result))}
    table = dependencies.Kernels({*kernels, *named.values()})
    waits = _what_rows_wait_for(scored, table, frozenset(kernels), named)
    models = packs.chosen(pack_files)
    found: dict[str, Cause] = {}
    for result, (cause, missing, others) in waits:
        entry = found.setdefault(cause, Cause(cause, example=result.id, message=result.sentence))
        entry.missing = entry.missing or missing
        for name in {cause, *others}:
            other = found.setdefault(name, Cause(name, missing=True, example=result.id, message=result.sentence))
            other.rows += 1
            if not result.op.startswith("model."):
                other.needed_by.append(result.op)
    blocked = {pack.name: _causes_in(pack, found, table) for pack in models}
    for cause in found.values():
        cause.needed_by = sorted(set(cause.needed_by))
        cause.model_names = sorted(name for name, causes in blocked.items() if cause.name in causes)
        cause.models = len(cause.model_names)
    failing = max(1, sum(result.failing for result in scored))
    order = sorted(found.values(), key=lambda cause: (-(cause.rows / failing + cause.models / max(1, len(models))), cause.name))
    passing = sum(result.outcome == "pass" for result in scored)
    free = sum(not causes for causes in blocked.values())
    return Ranking(
        order,
        _steps([frozenset((cause, *others)) for _, (cause, _, others) in waits], passing),
        _steps([causes for causes in blocked.values() if causes], free),
        passing, len(scored), free, len(models),
    )  # fmt: skip


def _named(result) -> str:
    """The operator that the message says has no kernel, or nothing."""
    found = _OPERATOR.search(result.message) if result.outcome == "unsupported" or _NO_KERNEL.search(result.message) else None
    return found[0].removesuffix(".default") if found else ""


def _what_rows_wait_for(scored, table: dependencies.Kernels, present: frozenset[str], named: dict[str, str]):
    """(result, (its cause, whether a kernel is missing, the other kernels that it needs and the device does not have)) of failing rows."""
    works: dict[str, set[str]] = {}
    exists = set(present)
    for result in scored:
        needed = table.needed_by_row(result.op, result.mode) if result.outcome in ("pass", "mismatch") else ()
        exists.update(needed)  # also what gives wrong values is there
        if result.outcome == "pass":
            works.setdefault(result.dtype, set()).update(needed)
    failing = [result for result in scored if result.failing]
    needed = {id(result): table.needed_by_row(result.op, result.mode) for result in failing}
    popular = Counter(kernel for kernels in needed.values() for kernel in kernels)
    rows_of = Counter(result.dtype for result in failing)
    lacking = {dtype for dtype, count in rows_of.items() if count >= DTYPE_ROWS and works and dtype not in (*works, "none")}
    waits = []
    first_check: dict[str, str] = {}  # by what it says
    for result in failing:
        kernels = needed[id(result)]
        absent = kernels - exists if result.outcome == "unsupported" and result.dtype not in lacking else frozenset()
        if result.id in named:
            cause, missing = named[result.id], True
        elif result.dtype in lacking:
            cause, missing = result.dtype, False
        elif suspects := absent or kernels - works.get(result.dtype, set()):
            own = {dependencies.packet(name) for name in dependencies.own(result.op)}
            cause = max(suspects, key=lambda kernel: (dependencies.packet(kernel) in own, popular[kernel], kernel))
            missing = bool(absent or _NO_KERNEL.search(result.message))
        else:
            cause, missing = next(iter(dependencies.own(result.op)), result.op), False
            if result.op.startswith("check."):
                cause = first_check.setdefault(result.message, cause)
        waits.append((result, (cause, missing, absent - {cause})))
    return waits


def _causes_in(pack: packs.Pack, causes, table: dependencies.Kernels) -> frozenset[str]:
    """The causes that the program of a pack runs into."""
    reached = pack.operators.union(*(table.needed_by(operator) for operator in pack.operators)) | pack.dtypes
    return frozenset(name for name in causes if name in reached or reached.intersection(dependencies.own(name)))


def _steps(waiting: list[frozenset[str]], passing: int) -> list[Step]:
    """The order of work for things that wait for all of some causes each: the steps to each target, or none when nothing waits."""
    total = passing + len(waiting)
    groups = Counter(waiting)
    left = {wanted: set(wanted) for wanted in groups}
    of_cause: dict[str, list[frozenset[str]]] = {}
    worth: Counter = Counter()
    for wanted, count in groups.items():
        for cause in wanted:
            of_cause.setdefault(cause, []).append(wanted)
            worth[cause] += count / len(wanted)
    targets = [target for target in TARGETS if 100 * passing / total < target] if total else []
    steps, fixes = [], []
    while targets and worth:
        best = max(worth, key=lambda cause: (worth[cause], cause))
        del worth[best]
        fixes.append(best)
        for wanted in of_cause[best]:
            rest, count = left[wanted], groups[wanted]
            rest.discard(best)
            if not rest:
                passing += count
            for cause in rest:
                worth[cause] += count / len(rest) - count / (len(rest) + 1)
        percent = 100 * passing / total
        reached = [target for target in targets if percent >= target]
        if reached:
            steps.append(Step(reached[-1], round(percent, 2), fixes))
            targets, fixes = targets[len(reached) :], []
    return steps


def text(ranking: Ranking) -> str:
    """The text of ranking.json: the fields of Ranking, with the text of each cause."""
    document = asdict(ranking)
    for entry, cause in zip(document["causes"], ranking.causes):
        entry["text"] = cause.text
    return json.dumps(document, indent=1) + "\n"


def lines(ranking: Ranking) -> list[str]:
    """The summary for a terminal; empty when nothing fails."""
    if not ranking.causes:
        return []
    width = max(len(str(cause.rows)) for cause in ranking.causes)
    found = [f"what to fix first ({len(ranking.causes)} causes; rows and models that each blocks, of {ranking.models})"]
    for cause in ranking.causes[:SHOWN]:
        others = [name for name in cause.needed_by if name != dependencies.packet(cause.name)]
        needed = f"; needed by {_some(others)}" if cause.missing and others else ""
        found.append(f"  {cause.rows:>{width}} rows, {cause.models} models  {cause.text}{needed}")
    return found + work_lines(ranking)


def work_lines(ranking: Ranking) -> list[str]:
    """The order of work in lines, for rows and for models: where the device stands, then a line for each target."""
    found = []
    for what, steps, passing, total in (
        ("rows", ranking.row_steps, ranking.rows_pass, ranking.rows), ("models", ranking.model_steps, ranking.models_pass, ranking.models),
    ):  # fmt: skip
        if steps and total:
            found.append(f"{what}: {100 * passing / total:.1f}% now")
        for step in steps:
            found.append(f"  {len(step.fixes)} more for {step.percent:g}%: {_some(step.fixes)}")
    return found


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else "")
