"""`run --update`: the gap file that fits what a run has found. No torch.

Entries keep their place in the file's order, which is sorted, and their reasons, so that two runs with the same results write the same bytes.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from .gaps import PREFIXES, TEST, Gap
from .result import RowResult

REASON_LENGTH = 160


@dataclass(frozen=True)
class Update:
    """entries: what the file has now, sorted. added, removed: compared with what it had; a narrowed entry counts as both."""

    entries: list[Gap]
    added: list[Gap]
    removed: list[Gap]


def updated(gaps: Iterable[Gap], results: Iterable[RowResult], reason: str = "") -> Update:
    """The entries that make a run with these results acceptable.

    An entry that matches no row of the run stays. One whose rows all pass goes. One whose rows pass in part is replaced by narrower ones
    with its reason. Rows that fail and that nothing covers get new entries, with `reason` or what the device said.
    """
    before, scored = sorted(set(gaps)), [result for result in results if result.scored]
    kept: set[Gap] = set()
    for gap in before:
        matched = [result for result in scored if gap.matches(result)]
        if all(result.failing for result in matched):
            kept.add(gap)
        else:
            kept.update(_entries([result for result in matched if gap.allows(result)], scored, gap.kind, gap.reason))
    groups: dict[tuple[str, str], list[RowResult]] = {}
    for result in scored:
        if result.failing and not any(gap.matches(result) and gap.allows(result) for gap in kept):
            kind = "unsupported" if result.outcome == "unsupported" else "expected_failure"
            groups.setdefault((kind, reason or cause(result)), []).append(result)
    for (kind, why), failing in groups.items():
        kept.update(_entries(failing, scored, kind, why))
    return Update(sorted(kept), sorted(kept - set(before)), sorted(set(before) - kept))


def cause(result: RowResult) -> str:
    """What the device said, as a reason: the first sentence, without values and addresses, which change from run to run."""
    text = re.sub(r"0x[0-9a-fA-F]+", "an address", result.message or result.outcome)
    text = re.sub(r"\s+", " ", re.split(r"; its last words|\. (?=[A-Z])|\n", text)[0])
    text = re.sub(r"[-+]?\d+\.\d+(e[-+]?\d+)?", "x", text).strip()
    return f"{result.outcome}: {text[:REASON_LENGTH].rstrip()}"


def _entries(failing: list[RowResult], scored: list[RowResult], kind: str, reason: str) -> set[Gap]:
    """The fewest entries without globs in names that match these rows and no other row of the run."""
    found: set[Gap] = set()
    for op in {result.op for result in failing}:
        rows = {(result.dtype, result.mode) for result in scored if result.op == op}
        left = {(result.dtype, result.mode) for result in failing if result.op == op}
        gap = Gap(op, kind=kind, reason=reason)
        if left == rows:
            found.add(gap)
            continue
        for mode in sorted({mode for _, mode in left}):
            same = {row for row in rows if row[1] == mode}
            if same <= left and len(same) > 1:
                found.add(replace(gap, mode=mode))
                left -= same
        for dtype in sorted({dtype for dtype, _ in left}):
            same = {row for row in rows if row[0] == dtype}
            if same <= left:
                found.add(replace(gap, dtype=dtype))
                left -= same
        found.update(replace(gap, dtype=dtype, mode=mode) for dtype, mode in left)
    return found


def write(path: Path, entries: list[Gap]) -> None:
    """Writes the entries; the comment at the top of the file stays."""
    head = _head(path.read_text(encoding="utf-8")) if path.exists() else "# Known failures, each with a reason: docs/conformance.md describes the format.\n"
    path.write_text(head + "".join("\n" + _text(gap) for gap in entries), encoding="utf-8")


def _head(text: str) -> str:
    lines = []
    for line in text.splitlines(keepends=True):
        if not line.startswith("#"):
            break
        lines.append(line)
    return "".join(lines)


def _text(gap: Gap) -> str:
    subject = next((key for key, prefix in PREFIXES.items() if prefix and gap.op.startswith(prefix)), "op")
    fields = {TEST: gap.test} if gap.test else {subject: gap.op.removeprefix(PREFIXES[subject])}
    fields |= {key: value for key, value in (("dtype", gap.dtype), ("mode", gap.mode)) if value != "*"}
    fields |= {"kind": gap.kind, "reason": gap.reason}
    return "[[gap]]\n" + "".join(f"{key} = {_quoted(value)}\n" for key, value in fields.items())


def _quoted(text: str) -> str:
    """A TOML basic string. JSON's escapes are TOML's, but JSON leaves DEL as it is."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
