"""Support tables in Markdown: rows that pass, of those that the CPU itself can run, by family, mode and dtype.

A run writes them to support.md; tests/repo/generate_support.py writes those of README.md and docs/support.md.
"""

from .. import databases
from ..levels import CHECKS
from .score import dtype_order, family, tallies

# Titles of the families of operators (Row.family), in the order of the tables.
FAMILIES = {
    "nn.functional": "`torch.nn.functional`",
    "linalg": "`torch.linalg`",
    "fft": "`torch.fft`",
    "special": "`torch.special`",
    "masked": "`torch.masked`",
    "signal": "`torch.signal`",
    "torch": "`torch`, `torch.Tensor`",
}
EXPLANATION = "Rows of PyTorch's databases of tests that agree with the CPU, of those that the CPU itself can run, by dtype."


def title(result) -> str:
    """The title of an operator's family; the few operators outside of torch's modules are among torch's."""
    return FAMILIES.get(family(result), FAMILIES["torch"])


def table(results, head="operators", title_of=title, titles=tuple(FAMILIES.values()), column_of=lambda r: (r.mode, r.dtype)) -> str:
    """The Markdown table: a line for each title that has a row that counts, a column for each dtype and mode, each cell `pass / of`."""
    counted = [result for result in results if result.scored]
    cells = tallies(counted, lambda r: (title_of(r), column_of(r)))
    sums = tallies(counted, column_of)
    # float32 first: in whichever order rows finished, the table is the same.
    shown = sorted(set(map(column_of, results)), key=lambda column: (column[1] != "float32", column[0] != "forward", dtype_order(column[1])))
    lines = [
        f"| {head} | " + " | ".join(f"{dtype}{' gradients' if mode == 'gradient' else ''}" for mode, dtype in shown) + " |",
        "|---|" + "---:|" * len(shown),
    ]
    for name in titles:
        if any((name, column) in cells for column in shown):
            lines.append(f"| {name} | " + " | ".join(_cell(cells.get((name, column))) for column in shown) + " |")
    lines.append("| all | " + " | ".join(_cell(sums.get(column)) for column in shown) + " |")
    return "\n".join(lines) + "\n"


def _cell(tally) -> str:
    return f"{tally.passed} / {tally.counted}" if tally else ""


def text(results, explanation: str = EXPLANATION, source: str = "") -> str:
    """A table for each mode of the operator database and one for each other database, a column for each dtype."""
    parts = [f"# Support\n\n{explanation}\n"]
    by_dtype = dict(column_of=lambda r: ("", r.dtype))
    members: dict[str, list] = {}
    for result in results:
        members.setdefault(databases.of(result.op).name, []).append(result)
    operators = members.pop(databases.DEFAULT, [])
    for mode in sorted({result.mode for result in operators}):
        parts.append(f"## {mode}\n\n{table([r for r in operators if r.mode == mode], **by_dtype)}")
    for name in databases.DATABASES:
        if name == CHECKS and name in members:
            areas = dict.fromkeys(map(family, members[name]))
            parts.append(f"## checks\n\n{table(members[name], 'area', family, areas, lambda r: ('', 'checks'))}")
        elif name in members:
            modes = sorted({result.mode for result in members[name]})
            parts.append(f"## database {name}\n\n{table(members[name], 'mode', lambda r: r.mode, modes, **by_dtype)}")
    parts.append(source)
    return "\n".join(parts)
