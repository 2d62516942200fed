"""README.md keeps its promises: the example prints what the page shows, and the table is what its script makes.

A ```text block right behind a ```python block is the block's output. Needs the built package for the example.
"""

import re

import generate_support
import pytest
from generate_support import README

EXAMPLE = re.compile(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run_of(*rows):
    """Rows of results.jsonl, as (op, dtype, mode, outcome)."""
    return [dict(zip(("op", "dtype", "mode", "outcome"), row), device="openreg:0") for row in rows]


@pytest.mark.parametrize("schedule", ["eager", "lazy"])
def test_the_example_prints_what_the_page_shows(schedule, python):
    examples = EXAMPLE.findall(README.read_text())
    assert examples
    for code, shown in examples:
        assert len(code.splitlines()) <= 24
        assert python(code, env={"OPENREG_SCHEDULE": schedule}).stdout == shown


def test_the_table_counts_what_the_cpu_can_run():
    rows = run_of(
        ("fft.fft", "float32", "forward", "pass"),
        ("fft.fft", "float32", "gradient", "mismatch"),
        ("fft.hfft", "float32", "forward", "cpu-cannot"),
        ("add", "int64", "forward", "pass"),
        ("add", "float32", "forward", "crash"),
        ("mul", "float32", "forward", "skip"),
    )
    assert generate_support.table(rows).splitlines() == [
        "| operators | float32 | float32 gradients | int64 |",
        "|---|---:|---:|---:|",
        "| `torch.fft` | 1 / 1 | 0 / 1 |  |",
        "| `torch`, `torch.Tensor` | 0 / 1 |  | 1 / 1 |",
        "| all | 1 / 2 | 0 / 1 | 1 / 1 |",
    ]


def test_the_script_replaces_the_table_and_nothing_else():
    rows = run_of(("add", "float32", "forward", "pass"))
    page = f"before\n{generate_support.BEGIN}old\n{generate_support.END}after\n"
    written = generate_support.rewrite(page, rows)
    assert written.startswith("before\n") and written.endswith("after\n") and "old" not in written
    assert generate_support.rewrite(written, rows) == written
    with pytest.raises(SystemExit):
        generate_support.rewrite("no marks\n", rows)


def test_the_support_page_has_a_table_for_each_mode():
    rows = run_of(("add", "float32", "forward", "pass"), ("add", "int64", "out", "mismatch"), ("fft.fft", "float32", "out", "pass"))
    page = generate_support.page([{**row, "samples_run": 2} for row in rows])
    forward, out = page.partition("## out\n")[::2]
    assert "| all | 1 / 1 |\n" in forward
    assert out.splitlines()[1] == "| operators | float32 | int64 |" and "| all | 1 / 1 | 0 / 1 |\n" in out
    assert "3 rows and 6\nsamples" in out


def test_the_support_page_has_a_table_for_each_database():
    rows = run_of(("add", "float32", "forward", "pass"), ("optim.SGD", "float32", "foreach", "pass"), ("optim.SGD", "float64", "fused", "crash"))
    modes, databases = generate_support.page([{**row, "samples_run": 1} for row in rows]).partition("## database optim\n")[::2]
    assert "| all | 1 / 1 |\n" in modes and "foreach" not in modes
    assert databases.splitlines()[1] == "| mode | float32 | float64 |"
    assert "| foreach | 1 / 1 |  |\n| fused |  | 0 / 1 |\n| all | 1 / 1 | 0 / 1 |\n" in databases


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


def test_the_table_names_its_outcomes_as_the_conformance_run_does():
    from torch_openreg.testing.conformance.result import FAILING, OUTCOMES

    assert generate_support.FAILING == set(FAILING) and "pass" in OUTCOMES
