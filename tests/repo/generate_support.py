"""Rewrites README.md's table of what works from a conformance run.

    openreg conformance run --out DIR
    python tests/repo/generate_support.py DIR/results.jsonl

Each cell is "rows that pass / rows that the CPU itself can run". Needs no torch.
"""

import json
import sys
from collections import Counter
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"
BEGIN, END = "<!-- support:begin -->\n", "<!-- support:end -->\n"
FAILING = {"mismatch", "unsupported", "error", "crash", "timeout"}

# Families of operators, by the beginning of their names in the database; the first that fits.
FAMILIES = {
    "nn.functional.": "`torch.nn.functional`",
    "linalg.": "`torch.linalg`",
    "fft.": "`torch.fft`",
    "special.": "`torch.special`",
    "masked.": "`torch.masked`",
    "signal.": "`torch.signal`",
    "_refs.": "`torch._refs`",
    "": "`torch`, `torch.Tensor`",
}


def family(op):
    return next(title for prefix, title in FAMILIES.items() if op.startswith(prefix))


def columns(rows):
    """(mode, dtype) in the order in which they appear, float32 first."""
    found = list(dict.fromkeys((row["mode"], row["dtype"]) for row in rows))
    return sorted(found, key=lambda column: (column[1] != "float32", column[0] != "forward"))


def table(rows):
    """The Markdown table of a run's rows."""
    passed, counted = Counter(), Counter()
    for row in rows:
        if row["outcome"] == "pass" or row["outcome"] in FAILING:
            for title in (family(row["op"]), "all"):
                counted[title, row["mode"], row["dtype"]] += 1
                passed[title, row["mode"], row["dtype"]] += row["outcome"] == "pass"
    shown = columns(rows)
    lines = [
        "| operators | " + " | ".join(f"{dtype}{' gradients' if mode == 'gradient' else ''}" for mode, dtype in shown) + " |",
        "|---|" + "---:|" * len(shown),
    ]
    titles = [title for title in FAMILIES.values() if any(counted[title, *column] for column in shown)]
    for title in [*titles, "all"]:
        cells = [f"{passed[title, *c]} / {counted[title, *c]}" if counted[title, *c] else "" for c in shown]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def rewrite(text, rows):
    """The page with its table replaced."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    if not rest or END not in text:
        raise SystemExit(f"README.md has no lines {BEGIN.strip()} and {END.strip()}")
    devices = ", ".join(sorted({row["device"] for row in rows}))
    source = f"Generated from a run of `openreg conformance run` on {devices} by `tests/repo/generate_support.py`.\n"
    return head + BEGIN + "\n" + table(rows) + "\n" + source + "\n" + END + tail


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    rows = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
    README.write_text(rewrite(README.read_text(), rows))
    print(f"{README}: {len(rows)} rows")


if __name__ == "__main__":
    main()
