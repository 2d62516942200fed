"""The table of docs/conformance-other-devices.md is made from results. Needs no torch."""

import importlib.util
from pathlib import Path

import pytest

from torch_openreg.testing.conformance import RowResult

SCRIPT = Path(__file__).parents[1] / "repo" / "generate_other_devices.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(op, outcome):
    return RowResult(op, "float32", "forward", "chip", outcome)


def test_a_line_has_the_rows_of_a_level_for_each_backend(script):
    chip = [row("add", "pass"), row("mul", "mismatch"), row("exp", "crash"), row("sin", "skip"), row("check.guard.x", "pass")]
    assert script.table({"chip 1": chip, "other": [row("add", "pass")]}).splitlines() == [
        "|  | chip 1 | other |",
        "| --- | ---: | ---: |",
        "| L1 device, guard, hooks, module | 1 / 1 |  |",
        "| L3 operators | 1 / 3, 1 crash | 1 / 1 |",
    ]


def test_the_table_takes_its_place_in_the_page(script):
    text = script.PAGE.read_text()
    assert "| L3 operators | 1 / 1 |" in script.rewrite(text, {"chip": [row("add", "pass")]})
    with pytest.raises(SystemExit, match="has no lines"):
        script.rewrite("a page without the lines", {})
