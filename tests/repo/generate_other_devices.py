"""Writes the table of docs/conformance-other-devices.md from the results of runs on other people's backends.

    python tests/repo/generate_other_devices.py 'torch-opencl 0.1.0=DIR/results.jsonl,DIR2/results.jsonl' 'OTHER=...'

One column for each backend, one line for each level: rows that pass / rows that count, and the rows that cost a process. Needs no torch.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":  # the package's sources are enough
    os.environ.setdefault("TORCH_OPENREG_DEFER_LOAD", "1")
    sys.path.append(str(ROOT))

from torch_openreg.testing.conformance import levels  # noqa: E402
from torch_openreg.testing.conformance.report import read_results  # noqa: E402
from torch_openreg.testing.conformance.report.score import tally  # noqa: E402

PAGE = ROOT / "docs" / "conformance-other-devices.md"
ENDS = {"crash": "crash", "timeout": "over time"}  # outcomes that cost a process -> what the table says of them
BEGIN, END = "<!-- other-devices:begin -->\n", "<!-- other-devices:end -->\n"


def cell(results):
    """The text for the rows of one level on one backend."""
    total = tally(results)
    if not total.counted:
        return ""
    ends = "".join(f", {total.outcomes[name]} {words}" for name, words in ENDS.items() if total.outcomes[name])
    return f"{total.passed} / {total.counted}{ends}"


def table(runs):
    """runs: the backend's name -> its results."""
    lines = [["", *runs], ["---", *("---:" for _ in runs)]]
    for name, level in levels.LEVELS.items():
        cells = [cell([result for result in results if levels.of(result.op) == name]) for results in runs.values()]
        if any(cells):
            lines.append([f"{name} {level.title}", *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def rewrite(text, runs):
    """The page with its table replaced."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{PAGE.name} has no lines {BEGIN.strip()} and {END.strip()}")
    return head + BEGIN + "\n" + table(runs) + "\n" + END + tail


def main():
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    runs = {}
    for argument in sys.argv[1:]:
        name, _, files = argument.partition("=")
        runs[name] = list({result.id: result for file in files.split(",") for result in read_results(Path(file))}.values())
    PAGE.write_text(rewrite(PAGE.read_text(), runs))


if __name__ == "__main__":
    main()
