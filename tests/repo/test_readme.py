"""README.md keeps its promises: the example prints what the page shows, and the table is what its script makes.

A ```text block right behind a ```python block is the block's output. Needs the built package for the example.
"""

import re

import generate_support
import pytest
from generate_support import README

from torch_openreg.testing.conformance import RowResult

EXAMPLE = re.compile(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("schedule", ["eager", "lazy"])
def test_the_example_prints_what_the_page_shows(schedule, python):
    examples = EXAMPLE.findall(README.read_text())
    assert examples
    for code, shown in examples:
        assert len(code.splitlines()) <= 24
        assert python(code, env={"OPENREG_SCHEDULE": schedule}).stdout == shown


def test_the_script_replaces_the_table_and_nothing_else():
    rows = [RowResult("add", "float32", "forward", "openreg:0", "pass")]
    page = f"before\n{generate_support.BEGIN}old\n{generate_support.END}after\n"
    written = generate_support.rewrite(page, rows)
    assert written.startswith("before\n") and written.endswith("after\n") and "old" not in written
    assert generate_support.rewrite(written, rows) == written
    with pytest.raises(SystemExit):
        generate_support.rewrite("no marks\n", rows)


def test_the_page_has_a_table_by_the_script():
    shown = README.read_text().partition(generate_support.BEGIN)[2].partition(generate_support.END)[0]
    lines = [line for line in shown.splitlines() if line.startswith("|")]
    assert lines and lines[-1].startswith("| all |")
    totals = re.findall(r"(\d+) / (\d+)", lines[-1])
    assert len(totals) == lines[0].count("|") - 2 and len(lines) > 3
    sums = [[0, 0] for _ in totals]
    for line in lines[2:-1]:
        for place, cell in enumerate(line.split("|")[2:-1]):
            for number, value in enumerate(re.findall(r"\d+", cell)):
                sums[place][number] += int(value)
    assert [[int(a), int(b)] for a, b in totals] == sums
