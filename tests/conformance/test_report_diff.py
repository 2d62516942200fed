"""`openreg conformance diff`: what broke, is fixed, changed, new or gone between two runs. Needs no device."""

import json

import pytest
from report_rows import row

from torch_openreg.cli import main
from torch_openreg.testing.conformance.report import ResultFile, diff

BEFORE = [
    row("abs:float32:forward"), row("acos:float32:forward", "error", "RuntimeError: no"), row("add:float32:forward"),
    row("asin:float32:forward", "mismatch", "3 / 4 elements are not close"), row("atan:float32:forward", "mismatch", "3 / 4 elements are not close"),
    row("ceil:float32:forward"), row("cos:float32:forward"), row("exp:float32:forward", "cpu-cannot", "RuntimeError: no"),
    row("log:float32:forward", "skip", "the time budget is used up"),
]  # fmt: skip
NOW = [
    row("abs:float32:forward"), row("acos:float32:forward"), row("add:float32:forward", "crash", "the process ends with SIGABRT"),
    row("asin:float32:forward", "mismatch", "1 / 9 elements are not close"), row("atan:float32:forward", "unsupported", "NotImplementedError: atan"),
    row("cos:float32:forward", "skip", "the time budget is used up"), row("exp:float32:forward", "cpu-cannot", "RuntimeError: no"),
    row("log:float32:forward", "mismatch", "dtype torch.float64"), row("tan:float32:forward"),
]  # fmt: skip


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_OPENREG_DEFER_LOAD", "1")  # main() sets it for its process
    for name, rows in (("before", BEFORE), ("now", NOW)):
        with ResultFile(tmp_path / name, kept=rows):
            pass
    return tmp_path / "before", tmp_path / "now"


def ids(pairs):
    return [(now or before).op for before, now in pairs]


def test_every_row_that_changed_is_of_one_kind():
    found = diff.compare(BEFORE, NOW)
    assert {kind: ids(getattr(found, kind)) for kind in diff.KINDS} == {
        "broken": ["add"], "fixed": ["acos"], "changed": ["atan"], "new": ["log", "tan"], "gone": ["ceil", "cos"]}  # fmt: skip
    assert diff.compare(NOW, NOW).counts == dict.fromkeys(diff.KINDS, 0)


def test_the_text_names_the_rows_and_what_they_say(runs, capsys):
    assert main(["conformance", "diff", *map(str, runs)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "1 broken, 1 fixed, 1 changed, 2 new, 2 gone",
        "", "broken: 1 rows passed before and fail now", "  add:float32:forward  pass -> crash: the process ends with SIGABRT",
        "", "fixed: 1 rows failed before and pass now", "  acos:float32:forward  was error",
        "", "changed: 1 rows fail in another way", "  atan:float32:forward  mismatch -> unsupported: NotImplementedError: atan",
        "", "new: 2 rows have a result only now", "  log:float32:forward  skip -> mismatch: dtype torch.float64", "  tan:float32:forward",
        "", "gone: 2 rows had a result only before", "  ceil:float32:forward  was pass",
        "  cos:float32:forward  was pass, now skip: the time budget is used up",
    ]  # fmt: skip


def test_the_status_is_0_when_nothing_broke_and_2_when_there_is_nothing_to_compare(runs, tmp_path, capsys):
    assert main(["conformance", "diff", str(runs[0]), str(runs[0] / "results.jsonl")]) == 0
    assert main(["conformance", "diff", str(runs[0]), str(tmp_path / "nowhere")]) == 2
    assert "nowhere cannot be read" in capsys.readouterr().err


def test_json_has_the_counts_and_both_sides(runs, capsys):
    assert main(["conformance", "diff", "--json", *map(str, runs)]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["counts"]["broken"] == 1 and found["broken"] == [
        {"id": "add:float32:forward", "before": {"outcome": "pass", "message": ""}, "now": {"outcome": "crash", "message": "the process ends with SIGABRT"}}]
    assert found["new"][1]["before"] is None and found["gone"][0]["now"] is None


def test_many_rows_are_cut_short_but_not_those_that_broke():
    many = [row(f"op{number}:float32:forward") for number in range(80)]
    lines = diff.text(diff.compare([], many)).splitlines()
    assert len(lines) == 1 + 2 + diff.SHOWN + 1 and lines[-1] == "  and 30 more"
    failing = [row(f"op{number}:float32:forward", "error", "no") for number in range(80)]
    assert diff.text(diff.compare(many, failing)).count("pass -> error: no") == 80
