"""The files that a run leaves beside its rows: JUnit XML, the support table, the badge; levels in the summary; files that are no results."""

import dataclasses
import io
import json
from pathlib import Path
from xml.etree import ElementTree as xml

import pytest
from report_rows import facts, row, some_of_everything

from torch_openreg.testing.conformance import RowResult, report
from torch_openreg.testing.conformance.report import badge, junit, score, summary, support

ROWS = some_of_everything()


@pytest.fixture
def written(tmp_path):
    names = report.write_files(tmp_path, ROWS, facts(20, exit_problems=["a worker ended with SIGABRT after its last row"]))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names) == ["badge.json", "junit.xml", "report.html", "support.md"]
    return tmp_path


def test_every_file_is_in_the_documentation():
    page = (Path(__file__).parents[2] / "docs" / "conformance-reports.md").read_text()
    for name in ("results.jsonl", "run.json", "report.html", "junit.xml", "support.md", "badge.json", "ranking.json"):
        assert f"\n| `{name}` | " in page, name
    for field in dataclasses.fields(RowResult):
        assert f"`{field.name}`" in page, field.name


def test_junit_has_a_suite_for_each_level_and_family_and_counts_that_agree(written):
    root = xml.parse(written / "junit.xml").getroot()
    assert root.tag == "testsuites" and [suite.tag for suite in root] == ["testsuite"] * len(root)
    assert [suite.get("name") for suite in root] == ["L2.stream", "L3.linalg", "L3.module", "L3.optim", "L3.torch", "workers"]
    for element in [root, *root]:
        cases = list(element.iter("testcase"))
        of = lambda tag: sum(case.find(tag) is not None for case in cases)  # noqa: E731
        counts = [int(element.get(name)) for name in ("tests", "failures", "errors", "skipped")]
        assert counts == [len(cases), of("failure"), of("error"), of("skipped")]
        assert float(element.get("time")) == sum(float(case.get("time")) for case in cases)
    for suite in root:
        first, *cases = suite
        assert first.tag == "properties" and {p.get("name"): p.get("value") for p in first}["torch"] == "2.13.0"
        assert all(case.tag == "testcase" and case.get("classname") == suite.get("name") and len(case) <= 1 for case in cases)
    assert root.get("tests") == str(len(ROWS) + 1)


def test_junit_says_what_became_of_each_row(written):
    cases = {case.get("name"): case for case in xml.parse(written / "junit.xml").iter("testcase")}
    found = {name: (case[0].tag, case[0].get("type"), case[0].get("message")) for name, case in cases.items() if len(case)}
    assert found["add:int64:forward"] == ("failure", "mismatch", "output: 3 / 4 elements are not close")
    assert "openreg conformance repro 'add:int64:forward#2' --device mychip --import torch_mychip" in cases["add:int64:forward"][0].text
    assert found["add:float32:gradient"][:2] == ("failure", "error") and "</script><b>&\"'` ?[31m ?" in found["add:float32:gradient"][2]
    assert found["linalg.svd:float32:forward"] == ("skipped", None, "expected failure: the chip is young & <small>")
    assert found["linalg.svd:float32:gradient"] == ("failure", "unexpected pass", "passes, and the gap file says: once it failed")
    assert found["linalg.qr:float32:forward"] == ("error", "crash", "the process ends with SIGSEGV; its last words: ??")
    assert found["linalg.eigh:float32:forward"][:2] == ("error", "timeout")
    assert found["jiterator_unary:float32:forward"] == ("skipped", None, "the CPU cannot run it: RuntimeError: CUDA only")
    assert found["module.nn.Linear:float32:memory_format"] == ("skipped", None, "the entry has no samples")
    assert found["worker 1"] == ("error", "crash", "a worker ended with SIGABRT after its last row")
    assert not {"add:float32:forward", "optim.SGD:float32:foreach"} & set(found)


def test_the_same_rows_give_the_same_files_in_any_order():
    assert junit.text(ROWS, properties={}, options="") == junit.text(ROWS[::-1], properties={}, options="")


@pytest.mark.parametrize("passed, failed, message, color", [
    (20000, 0, "100.00% of 20,000 rows", "brightgreen"), (19999, 1, "99.99% of 20,000 rows", "green"), (9, 1, "90.00% of 10 rows", "yellowgreen"),
    (3, 1, "75.00% of 4 rows", "yellow"), (1, 1, "50.00% of 2 rows", "orange"), (0, 1, "0.00% of 1 rows", "red"),
])  # fmt: skip
def test_the_badge_is_an_endpoint_of_shields(passed, failed, message, color):
    found = json.loads(badge.text([row("add:float32:forward")] * passed + [row("mul:float32:forward", "crash")] * failed, "mychip:0"))
    assert found == {"schemaVersion": 1, "label": "mychip conformance", "message": message, "color": color}


def test_the_badge_of_nothing_is_an_error():
    assert json.loads(badge.text([row("add:float32:forward", "skip")], "mychip"))["isError"] is True


def test_the_support_table_counts_what_the_cpu_can_run():
    rows = [
        row("fft.fft:float32:forward"), row("fft.fft:float32:gradient", "mismatch"), row("fft.hfft:float32:forward", "cpu-cannot"),
        row("add:int64:forward"), row("add:float32:forward", "crash"), row("mul:float32:forward", "skip"), row("special.i0:float32:forward", "skip"),
    ]  # fmt: skip
    assert support.table(rows) == support.table(rows[::-1])
    assert support.table(rows).splitlines() == [
        "| operators | float32 | float32 gradients | int64 |",
        "|---|---:|---:|---:|",
        "| `torch.fft` | 1 / 1 | 0 / 1 |  |",
        "| `torch`, `torch.Tensor` | 0 / 1 |  | 1 / 1 |",
        "| all | 1 / 2 | 0 / 1 | 1 / 1 |",
    ]


def test_the_support_page_has_a_table_for_each_mode_and_database(written):
    parts = dict(part.split("\n\n", 1) for part in (written / "support.md").read_text().split("## ")[1:])
    assert list(parts) == ["forward", "gradient", "database module", "database optim", "checks"]
    assert "| operators | float32 | int64 |\n" in parts["forward"] and "| all | 1 / 4 | 0 / 1 |\n" in parts["forward"]
    assert "| mode | float32 |\n|---|---:|\n| foreach | 1 / 1 |\n" in parts["database optim"]
    assert "| area | checks |\n|---|---:|\n| stream | 0 / 1 |\n" in parts["checks"]
    assert parts["checks"].endswith("From 11 rows and 22 samples on mychip:0, torch 2.13.0.\n")


def test_the_summary_has_the_score_of_each_level(tmp_path):
    out = io.StringIO()
    summary.print_summary(ROWS, options="--device mychip", path=tmp_path, stream=out)
    lines = out.getvalue().splitlines()
    assert [line.split() for line in lines if line.startswith(("L2", "L3"))] == [
        [*"L2 memory, streams, events, errors 0 1 . 0.00%".split()], [*"L3 operators 3 8 2 37.50%".split()]]
    assert "score: 3 of 9 rows that the CPU can run pass (33.33%)" in lines


def test_a_score_is_rounded_down():
    assert [score.percent(*pair) for pair in ((1, 1), (99999, 100000), (2, 3), (0, 5), (0, 0))] == ["100.00%", "99.99%", "66.66%", "0.00%", "-"]


def test_the_progress_line_names_the_score_and_the_time_that_new_rows_take(monkeypatch):
    clock = iter((100, 110, 130, 190))
    monkeypatch.setattr(report.progress.time, "monotonic", lambda: next(clock))
    out = io.StringIO()
    progress = report.Progress(4, out, done=[row("add:float32:forward")])
    for outcome in ("pass", "mismatch", "skip"):
        progress.add(row("mul:float32:forward", outcome))
    assert out.getvalue().splitlines() == [
        "2/4 rows, score 100.00%, 0 failing, 0:10 gone, about 0:20 left",
        "3/4 rows, score 66.66%, 1 failing, 0:30 gone, about 0:15 left",
        "4/4 rows, score 66.66%, 1 failing, 1:30 gone, about 0:00 left",
    ]


def test_a_file_that_is_no_result_is_refused_and_half_a_last_line_is_not(tmp_path):
    good = json.dumps(row("add:float32:forward").to_json()) + "\n"
    (tmp_path / "results.jsonl").write_text(good + good + '{"op": "mul", ')
    assert [result.id for result in report.read_results(tmp_path)] == ["add:float32:forward"]
    for text in (good + "{}\n", "[1]\n" + good, '{"op": "mul", \n' + good):
        (tmp_path / "results.jsonl").write_text(text)
        with pytest.raises(report.ResultsError, match=r"results.jsonl: line \d is not a row"):
            report.read_results(tmp_path)
    for other in ("add:float32:sideways", "check.weather.is_fine:none:check"):
        (tmp_path / "results.jsonl").write_text(good + json.dumps(row(other).to_json()) + "\n")
        with pytest.raises(report.ResultsError, match="line 2: this version of the kit has no rows like"):
            report.read_results(tmp_path)
    with pytest.raises(report.ResultsError, match="nowhere cannot be read: No such file"):
        report.read_results(tmp_path / "nowhere")
