"""`run --update`: the gap file that fits a run is sorted, narrow, keeps reasons, and is the same whenever the results are. Needs no device."""

import pytest

from torch_openreg.testing.conformance import gap_update, gaps
from torch_openreg.testing.conformance.gaps import Gap
from torch_openreg.testing.conformance.result import RowResult


def row(op, dtype, mode, outcome, message=""):
    return RowResult(op, dtype, mode, "mychip", outcome, message)


RUN = [
    row("add", "float32", "forward", "pass"),
    row("add", "int64", "forward", "pass"),
    row("svd", "float32", "forward", "unsupported", "NotImplementedError: no kernel"),
    row("svd", "complex64", "forward", "unsupported", "NotImplementedError: no kernel"),
    row("mm", "float32", "forward", "pass"),
    row("mm", "float32", "gradient", "mismatch", "gradient[0]: not close, 0.25 against 0.5 at 0x7f00"),
    row("mm", "int64", "forward", "error", "RuntimeError: int64 is not there"),
    row("sum", "float32", "forward", "pass"),
    row("sum", "float32", "out", "crash", "the process ends with SIGABRT; its last words: x"),
    row("sum", "int64", "out", "crash", "the process ends with SIGABRT; its last words: y"),
    row("sum", "int64", "forward", "pass"),
    row("check.stream.wait", "none", "check", "mismatch", "the second stream read 1"),
    row("cos", "float32", "forward", "cpu-cannot", "x"),
]


def accepted(entries, results=RUN):
    marked = [gaps.apply(entries, RowResult(**vars(result))) for result in results]
    return not any(result.gap == "unexpected pass" or (result.failing and result.gap != "covered") for result in marked)


def test_a_new_file_covers_the_run_with_few_entries_and_reasons():
    update = gap_update.updated([], RUN)
    assert accepted(update.entries) and update.removed == [] and update.added == update.entries
    assert [(gap.op, gap.dtype, gap.mode, gap.kind, gap.reason) for gap in update.entries] == [
        ("check.stream.wait", "*", "*", "expected_failure", "mismatch: the second stream read 1"),
        ("mm", "float32", "gradient", "expected_failure", "mismatch: gradient[0]: not close, x against x at an address"),
        ("mm", "int64", "*", "expected_failure", "error: RuntimeError: int64 is not there"),
        ("sum", "*", "out", "expected_failure", "crash: the process ends with SIGABRT"),
        ("svd", "*", "*", "unsupported", "unsupported: NotImplementedError: no kernel"),
    ]


def test_a_given_reason_is_that_of_every_new_entry():
    assert {gap.reason for gap in gap_update.updated([], RUN, "bring-up of revision B").entries} == {"bring-up of revision B"}


def test_a_second_update_changes_nothing(tmp_path):
    path = tmp_path / "gaps.toml"
    gap_update.write(path, gap_update.updated([], RUN).entries)
    first = path.read_bytes()
    again = gap_update.updated(gaps.read(path), RUN)
    assert (again.added, again.removed) == ([], [])
    gap_update.write(path, list(again.entries))
    assert path.read_bytes() == first


def test_entries_of_rows_that_did_not_run_stay():
    other = Gap("linalg.*", kind="unsupported", reason="no LAPACK")
    test = Gap("", test="TestCommon.test_out", kind="expected_failure", reason="a test")
    assert {other, test} <= set(gap_update.updated([other, test], RUN).entries)


def test_an_entry_whose_rows_pass_goes():
    old = Gap("add", kind="expected_failure", reason="old")
    update = gap_update.updated([old], RUN)
    assert update.removed == [old] and old not in update.entries


def test_an_entry_whose_rows_pass_in_part_is_narrowed_and_keeps_its_reason():
    wide = Gap("m*", kind="expected_failure", reason="matrix engine")
    update = gap_update.updated([wide], RUN)
    assert accepted(update.entries) and wide in update.removed
    assert {(gap.dtype, gap.mode) for gap in update.entries if gap.reason == "matrix engine"} == {("float32", "gradient"), ("int64", "*")}


def test_a_wrong_value_is_not_hidden_by_unsupported():
    """The permanent entry goes on covering what it may cover; the new outcome has an entry of its own."""
    entry = Gap("mm", dtype="int64", kind="unsupported", reason="no int64")
    update = gap_update.updated([entry], RUN)
    assert accepted(update.entries)
    assert any(gap.op == "mm" and gap.dtype == "int64" and gap.kind == "expected_failure" for gap in update.entries)


@pytest.mark.parametrize("text", ['say "no"', "back\\slash", "tab\there", "Ünïcode", "del\x7f"])
def test_any_reason_survives_the_file(tmp_path, text):
    path = tmp_path / "gaps.toml"
    gap_update.write(path, [Gap("add", kind="unsupported", reason=text)])
    assert [gap.reason for gap in gaps.read(path)] == [text]


def test_the_comment_at_the_top_stays(tmp_path):
    path = tmp_path / "gaps.toml"
    path.write_text('# Revision B.\n# Second line.\n\n[[gap]]\nop = "add"\nkind = "unsupported"\nreason = "x"\n')
    gap_update.write(path, gaps.read(path))
    assert path.read_text() == '# Revision B.\n# Second line.\n\n[[gap]]\nop = "add"\nkind = "unsupported"\nreason = "x"\n'


def test_the_shipped_file_is_as_update_writes_it(tmp_path):
    path = gaps.SHIPPED / "openreg.toml"
    copy = tmp_path / "openreg.toml"
    copy.write_text(path.read_text())
    gap_update.write(copy, sorted(gaps.read(path)))
    assert copy.read_text() == path.read_text()
