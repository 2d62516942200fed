"""report.html: what stands in it, that nothing in a row can become markup, and what a browser draws. Needs Chromium for what is drawn; without
it those tests are skipped."""

import json

import pytest
from browser import assert_loads_nothing, browse, elements  # noqa: F401
from report_rows import NASTY, facts, row, some_of_everything

from torch_openreg.testing.conformance.report import ordered, page

ROWS = ordered(some_of_everything())
RANKING = [(f"aten::x {NASTY}", 12, 3)]


def html(rows=ROWS, planned=20, problems=(), **more):
    return page.text(rows, facts(planned, exit_problems=problems), **more)


def words(text):
    """The text of a page without its markup, style, script and data, with single spaces."""
    parsed = elements(text)
    return " ".join(" ".join(part for name, part in parsed.text.items() if name not in ("style", "script", "data")).split())


def test_the_page_is_one_file_that_may_load_nothing_and_has_no_markup_from_rows():
    text = html(problems=[f"a worker ended: {NASTY}"], baseline=[row("add:float32:forward", "error", NASTY)], ranking=RANKING)
    assert_loads_nothing(text)
    assert "http" not in text.replace("http-equiv", "")
    assert text.count("</script>") == 2 and "<b>&" not in text and "<small>" not in text
    data = json.loads(elements(text).text["data"])
    assert any(NASTY.split(" \x1b")[0] in detail[0] for detail in data["details"])


def test_the_page_says_where_the_device_stands():
    text = html(problems=["a worker ended with SIGABRT after its last row"])
    shown = words(text)
    assert elements(text).text["title"].strip() == "mychip:0: conformance 33.33%"
    for part in ("3 of 9 rows that the CPU can run pass", "6 fail, 1 of them covered", "9 of 20 rows have no result", "torch_mychip",
                 "a worker ended with SIGABRT after its last row", "the chip is young & <small>"):  # fmt: skip
        assert part in shown, part


def test_failures_are_grouped_and_each_group_has_its_command():
    many = [row(f"op{number}:float32:forward", "mismatch", f"{number} elements differ", sample=number, sample_summary="op(3)") for number in range(60)]
    text = html(many + [row("mul:int64:forward", "crash", "SIGSEGV")], planned=61)
    shown = words(text)
    assert "61 rows, those that say the same together" in shown and "and 20 more" in shown and "sample 0 of op0:float32:forward" in shown
    copied = [a["data-copy"] for _, a in elements(text).found if "data-copy" in a]
    assert copied == [f"openreg conformance repro '{id_}' --device mychip --import torch_mychip" for id_ in ("op0:float32:forward#0", "mul:int64:forward")]
    data = json.loads(elements(text).text["data"])
    assert sum(detail[2] == "op(3)" for detail in data["details"]) == page.FULL


def test_sections_that_have_nothing_to_say_are_not_there():
    ids = lambda text: {a.get("id") for tag, a in elements(text).found if tag == "section"}  # noqa: E731
    assert ids(html()) == {"top", "levels", "failures", "map", "left-out"}
    assert ids(html(baseline=[], ranking=RANKING)) == {"top", "levels", "failures", "map", "left-out", "ranking", "changes"}
    assert "did not come to its end" not in words(html(planned=len(ROWS)))
    assert "Nothing fails." in words(html([row("add:float32:forward")], planned=1))


def test_changes_since_the_earlier_run_are_told():
    shown = words(html(baseline=[row("add:int64:forward"), row("add:float32:forward", "error", "RuntimeError: no"), row("gone:float32:forward")]))
    assert "rows that passed before and fail now" in shown and "add:int64:forward pass -> mismatch: output: 3 / 4 elements" in shown
    assert "add:float32:forward was error" in shown and "gone:float32:forward was pass" in shown


@pytest.fixture
def report_file(tmp_path):
    file = tmp_path / "report.html"
    file.write_text(html(baseline=ROWS, ranking=RANKING))
    return file


def test_the_browser_draws_a_cell_for_each_operator_and_dtype(report_file, browse):  # noqa: F811
    seen = browse(report_file, script="""
        const filter = document.getElementById("filter");
        const cells = () => [...document.querySelectorAll("#grid .cell:not(.void)")].map(c =>
            `${c.dataset.op} ${c.dataset.dtype} ${c.className.replace("cell ", "").trim()}${c.textContent ? " " + c.textContent : ""}`).join("; ");
        const say = (id, text) => { const made = document.createElement("output"); made.id = id; made.textContent = text; document.body.append(made); };
        say("every", cells());
        filter.value = "LINALG grad"; filter.oninput();
        say("filtered", cells());
        filter.value = ""; document.getElementById("bad").click();
        say("failing", cells());
        document.getElementById("bad").click();
        const level = document.getElementById("level"); level.value = "L2"; level.onchange();
        say("level", cells());
    """)
    every = seen.text["every"].split("; ")
    assert len(every) == 11 - 2  # add and linalg.svd have two rows of one dtype
    assert {"add float32 error E", "add int64 mismatch M", "linalg.svd float32 pass unexpected-pass !", "linalg.qr float32 crash C",
            "jiterator_unary float32 cpu-cannot"} <= set(every)  # fmt: skip
    assert seen.text["filtered"] == "linalg.svd float32 pass unexpected-pass !"
    assert {entry.split()[0] for entry in seen.text["failing"].split("; ")} == {
        "add", "linalg.svd", "linalg.qr", "linalg.eigh", "check.stream.work_on_one_stream_runs_in_order"}  # fmt: skip
    assert seen.text["level"] .strip() == "check.stream.work_on_one_stream_runs_in_order none mismatch M"


def test_an_address_selects_a_row_and_a_click_an_operator(report_file, browse):  # noqa: F811
    seen = browse(report_file, "row=add:float32:gradient", script="""
        const details = () => document.getElementById("details").innerText;
        const say = (id, text) => { const made = document.createElement("output"); made.id = id; made.textContent = text; document.body.append(made); };
        say("first", details());
        document.querySelector("#grid .name[data-op=add]").click();
        say("second", details());
    """)
    assert "add, float32" in seen.text["first"] and "RuntimeError: " + NASTY[:16] in seen.text["first"] and "forward" not in seen.text["first"]
    assert "openreg conformance repro 'add:float32:gradient#0' --device mychip --import torch_mychip" in seen.text["first"]
    assert "float32 gradient" in seen.text["second"] and "int64 forward" in seen.text["second"] and "3 rows" in seen.text["second"]


def test_a_run_of_everything_stays_light(tmp_path, browse):  # noqa: F811
    dtypes = ("float32", "float64", "int64", "bool", "float16", "bfloat16", "complex64", "complex128", "uint8", "int8", "int16", "int32")
    rows = [row(f"op{number:04}:{dtype}:{mode}", "mismatch" if number % 7 == 0 else "pass", "a b c d " * 60, sample_summary="x" * 500)
            for number in range(900) for dtype in dtypes for mode in ("forward", "out", "layouts")]  # fmt: skip
    text = html(rows, planned=len(rows))
    assert len(text) < 1_200_000, f"{len(text)} characters for {len(rows)} rows"
    (tmp_path / "everything.html").write_text(text)
    seen = browse(tmp_path / "everything.html", script='document.body.append(document.getElementById("shown").textContent)')
    assert len([a for _, a in seen.found if a.get("class") == "line"]) == 150
    assert "Show 750 more" in seen.text["button"] and seen.text["shown"].strip() == "900 of 900 names"
