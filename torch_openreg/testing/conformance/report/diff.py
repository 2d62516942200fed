"""Two runs compared row by row: what broke, what is fixed, what is new, gone, or fails in another way."""

from dataclasses import dataclass, field

from ..result import RowResult
from .cause import cause

SHOWN = 50  # rows of a kind in the text
KINDS = {
    "broken": "passed before and fail now",
    "fixed": "failed before and pass now",
    "changed": "fail in another way",
    "new": "have a result only now",
    "gone": "had a result only before",
}


@dataclass
class Diff:
    """Pairs (before, now) by kind. A row has a result when it counts in the score; on the side where it has none stands what was there, or None."""

    broken: list[tuple[RowResult, RowResult]] = field(default_factory=list)
    fixed: list[tuple[RowResult, RowResult]] = field(default_factory=list)
    changed: list[tuple[RowResult, RowResult]] = field(default_factory=list)
    new: list[tuple[RowResult | None, RowResult]] = field(default_factory=list)
    gone: list[tuple[RowResult, RowResult | None]] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        return {kind: len(getattr(self, kind)) for kind in KINDS}


def compare(before: list[RowResult], now: list[RowResult]) -> Diff:
    """Rows are the same when their ids are, whichever device they ran on. Pairs are sorted by id."""
    old, new = ({result.id: result for result in results} for results in (before, now))
    diff = Diff()
    for id_ in sorted(old | new):
        pair = old.get(id_), new.get(id_)
        if kind := _kind(*pair):
            getattr(diff, kind).append(pair)
    return diff


def _kind(before: RowResult | None, now: RowResult | None) -> str:
    counted_before, counted_now = (result is not None and result.scored for result in (before, now))
    if not counted_before or not counted_now:
        return "new" if counted_now else "gone" if counted_before else ""
    if before.failing != now.failing:
        return "broken" if now.failing else "fixed"
    return "changed" if now.failing and cause(before) != cause(now) else ""


def line(before: RowResult | None, now: RowResult | None) -> str:
    """One row of the text: its id, and what it was and is where that says something."""
    if now is None or not now.scored:
        return f"{before.id}  was {before.outcome}" + (f", now {now.outcome}: {now.sentence[:200]}" if now else "")
    if not now.failing:
        return now.id if before is None or not before.failing else f"{now.id}  was {before.outcome}"
    was = f"{before.outcome} -> " if before is not None and before.outcome != now.outcome else ""
    return f"{now.id}  {was}{now.outcome}: {now.sentence[:200]}"


def sentence(diff: Diff) -> str:
    """The counts as one line."""
    return ", ".join(f"{count} {kind}" for kind, count in diff.counts.items())


def text(diff: Diff) -> str:
    """The counts, then the rows of each kind; all that broke, and the first of the others."""
    parts = [sentence(diff)]
    for kind, meaning in KINDS.items():
        pairs = getattr(diff, kind)
        shown = pairs if kind == "broken" else pairs[:SHOWN]
        if pairs:
            parts.append(f"\n{kind}: {len(pairs)} rows {meaning}")
            parts += [f"  {line(*pair)}" for pair in shown]
        if len(pairs) > len(shown):
            parts.append(f"  and {len(pairs) - len(shown)} more")
    return "\n".join(parts)


def to_json(diff: Diff) -> dict:
    """Counts, and for every kind a list of {"id", "before", "now"} with outcome and message, or null."""
    return {"counts": diff.counts, **{kind: [_record(*pair) for pair in getattr(diff, kind)] for kind in KINDS}}


def _record(before: RowResult | None, now: RowResult | None) -> dict:
    sides = {name: side and {"outcome": side.outcome, "message": side.sentence} for name, side in (("before", before), ("now", now))}
    return {"id": (now or before).id, **sides}
