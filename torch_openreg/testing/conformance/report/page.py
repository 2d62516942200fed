"""report.html: one file with its data, style and script in it. It loads nothing, and its policy forbids it to.

The template writes what is read from top to bottom and escapes every text; the script draws the map of operators and dtypes from
the data that stands in the page. See Note [What the page leaves out].
"""

import json
from pathlib import Path

from ..levels import LEVELS
from ..result import FAILING, OUTCOMES
from . import diff as diffs
from .cause import cause, failure_groups, repro_command
from .printable import printable
from .score import dtype_order, family, level, mode, tallies, tally

_FOLDER = Path(__file__).parent

# Note [What the page leaves out]
# A full run has tens of thousands of rows, and a device that does nothing right fails them all, each with a message and a sample. The
# page has the outcome of every row, but whole messages and samples only of the first FULL rows of each cause; the other rows name the
# cause. CAUSES and CHANGES limit what the lists show. Each list says how much it leaves out and that results.jsonl has it.

FULL = 10
CAUSES = 100
IDS = 40  # rows named below a cause
CHANGES = 100
RANKED = 50  # causes to fix first
GAPS = ("", "covered", "unexpected pass")


def text(results, facts, *, baseline=None, ranking=(), work=()) -> str:
    """The HTML text for ordered results. For the baseline see `write_files`.

    ranking: what to fix first, as (text, COUNT of rows, COUNT of models). work: lines about the order of work.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    total = tally(results)
    counted = tallies(results, level)
    groups = failure_groups(results)
    # In a script element only "<" can end or open anything.
    data = json.dumps(_data(results, groups, facts), separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    return printable(environment.get_template("page.html").render(
        facts=facts.facts, total=total, missing=facts.rows - total.rows, planned=facts.rows, exit_problems=facts.exit_problems,
        levels=[(name, entry.title, counted.get(name)) for name, entry in LEVELS.items()],
        tables=[("family", tallies(results, lambda r: f"{level(r)} {family(r)}")), ("mode", tallies(results, mode)),
                ("dtype", dict(sorted(tallies(results, lambda r: r.dtype).items(), key=lambda item: dtype_order(item[0]))))],
        ranking=ranking, work=work, shown=RANKED, failing=sum(len(members) for _, members in groups), more_causes=groups[CAUSES:],
        causes=[_cause(members, facts.repro_options) for _, members in groups[:CAUSES]],
        unexpected=[result for result in results if result.gap == "unexpected pass"],
        diff=_diff(results, baseline), not_counted=_not_counted(results), outcomes=OUTCOMES,
        style=(_FOLDER / "page.css").read_text(encoding="utf-8"), script=(_FOLDER / "page.js").read_text(encoding="utf-8"), data=data,
    ))  # fmt: skip


def _cause(members, options: str) -> dict:
    """What the page says about rows that fail alike."""
    first = members[0]
    families = tallies(members, family)
    return {"count": len(members), "first": first, "command": repro_command(first, options), "ids": [m.id for m in members[:IDS]],
            "more": len(members) - IDS, "families": ", ".join(f"{name} {t.rows}" for name, t in families.items())}


def _diff(results, baseline) -> dict | None:
    """The counts, and for each kind its meaning, its first lines, and how many more there are."""
    if baseline is None:
        return None
    found = diffs.compare(baseline, results)
    kinds = [(kind, meaning, [diffs.line(*pair) for pair in getattr(found, kind)[:CHANGES]], len(getattr(found, kind)) - CHANGES)
             for kind, meaning in diffs.KINDS.items()]
    return {"counts": found.counts, "kinds": kinds}


def _not_counted(results) -> list[tuple[str, str, int]]:
    """(outcome, reason, COUNT) of the rows that stay out of the score, and of those that the gap file covers, largest first."""
    reasons: dict[tuple[str, str], int] = {}
    for result in results:
        if not result.scored or result.gap == "covered":
            key = ("gap file", result.gap_reason) if result.gap == "covered" else (result.outcome, cause(result).partition(": ")[2])
            reasons[key] = reasons.get(key, 0) + 1
    return sorted(((*key, count) for key, count in reasons.items()), key=lambda entry: -entry[2])


def _data(results, groups, facts) -> dict:
    """What the script draws: for each operator its rows as [dtype, mode, outcome, gap, detail], which are places in the lists; detail is -1
    for a row without a message."""
    full = {result.id for _, members in groups for result in members[:FULL]}
    dtypes = sorted({result.dtype for result in results}, key=dtype_order)
    modes = list(dict.fromkeys(result.mode for result in results))
    details: dict[tuple, int] = {}
    operators: dict[str, list] = {}
    for result in results:
        entry = operators.setdefault(result.op, [level(result), family(result), []])
        entry[2].append([dtypes.index(result.dtype), modes.index(result.mode), OUTCOMES.index(result.outcome), GAPS.index(result.gap),
                         details.setdefault(_detail(result, full), len(details)) if result.outcome != "pass" or result.gap else -1])  # fmt: skip
    return {"options": facts.repro_options, "outcomes": OUTCOMES, "failing": FAILING, "dtypes": dtypes, "modes": modes, "gaps": GAPS,
            "details": list(details), "operators": [[name, *entry] for name, entry in operators.items()]}  # fmt: skip


def _detail(result, full) -> tuple:
    """(sentence, index of the sample or None, the sample, the gap file's reason)."""
    if result.id in full:
        return result.sentence, result.sample, result.sample_summary, result.gap_reason
    return cause(result).partition(": ")[2], result.sample, "", result.gap_reason
