"""The gap file: what may stand in it, and what it does to a result. Needs no device."""

import pytest

from torch_openreg.testing.conformance import gaps, report
from torch_openreg.testing.conformance.result import RowResult

GOOD = '[[gap]]\nop = "linalg.*"\ndtype = "float*"\nkind = "{kind}"\nreason = "not yet written"\n'


def read(tmp_path, text):
    path = tmp_path / "gaps.toml"
    path.write_text(text)
    return gaps.read(path)


def applied(entries, outcome, op="linalg.svd", dtype="float32"):
    return gaps.apply(entries, RowResult(op, dtype, "forward", "cpu", outcome))


@pytest.mark.parametrize(
    "text, words",
    [
        ('[[gap]]\nop = "add"\nkind = "unsupported"\n', "has no reason"),
        ('[[gap]]\nop = "add"\nkind = "unsupported"\nreason = " "\n', "reason must be a text"),
        ('[[gap]]\nkind = "unsupported"\nreason = "x"\n', "has no op"),
        ('[[gap]]\nop = "add"\nkind = "flaky"\nreason = "x"\n', "kind is 'flaky'"),
        ('[[gap]]\nop = "add"\nkind = "unsupported"\nreason = "x"\nsince = "1"\n', "unknown key since"),
        ('[gaps]\nop = "add"\n', r"only \[\[gap\]\] entries"),
        ("op =", "is not TOML"),
        ('[[gap]]\nop = "add"\ncheck = "stream.*"\nkind = "unsupported"\nreason = "x"\n', "has op and check; an entry is about one"),
        ('[[gap]]\ntest = "TestCommon.test_out"\nmode = "out"\nkind = "unsupported"\nreason = "x"\n', "no dtype and no mode"),
    ],
)
def test_a_bad_file_is_refused_with_its_entry(tmp_path, text, words):
    with pytest.raises(gaps.GapFileError, match=words):
        read(tmp_path, text)


@pytest.mark.parametrize("text, words", [
    (b'# caf\xe9\n', "is not UTF-8, as TOML is: .* at byte 5"),
    (b"gap = [1]\n", r"entry 1 is 1; write \[\[gap\]\] with two brackets"),
    (b'[gap]\nop = "add"\nkind = "unsupported"\nreason = "x"\n', r"write \[\[gap\]\] with two brackets"),
])
def test_a_broken_file_is_a_sentence(tmp_path, text, words):
    path = tmp_path / "gaps.toml"
    path.write_bytes(text)
    with pytest.raises(gaps.GapFileError, match=words):
        gaps.read(path)


@pytest.mark.parametrize("key, value, words", [
    ("dtype", "flaot32", "unknown dtype 'flaot32'; the nearest are float32"),
    ("mode", "forwrd", "unknown mode 'forwrd'; the nearest are forward"),
    ("dtype", "zzz", "unknown dtype 'zzz'; the dtypes are bool, uint8"),
])
def test_a_name_without_a_glob_is_one_that_rows_have(tmp_path, key, value, words):
    entry = '[[gap]]\nop = "add"\n{} = "{}"\nkind = "unsupported"\nreason = "x"\n'
    with pytest.raises(gaps.GapFileError, match=rf"entry 1 \(add\): {words}"):
        read(tmp_path, entry.format(key, value))
    read(tmp_path, entry.format("dtype", "flaot*") + entry.format("dtype", "none") + entry.format("mode", "prims") + entry.format("dtype", "float8_e5m2"))


def test_a_dtype_of_the_command_line_is_one_that_rows_have():
    import argparse

    from torch_openreg.cli.conformance import options

    assert options.dtype_names("float32, torch.int64,none") == ("float32", "int64", "none")
    with pytest.raises(argparse.ArgumentTypeError, match="unknown dtype 'flaot16'; the nearest are float16"):
        options.dtype_names("float32,flaot16")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(gaps.GapFileError, match="cannot be read"):
        gaps.read(tmp_path / "none.toml")


def test_unsupported_covers_only_the_outcome_unsupported(tmp_path):
    entries = read(tmp_path, GOOD.format(kind="unsupported"))
    assert applied(entries, "unsupported").gap == "covered"
    assert applied(entries, "mismatch").gap == ""
    assert applied(entries, "unsupported", op="add").gap == ""
    assert applied(entries, "unsupported", dtype="int64").gap == ""


def test_an_expected_failure_covers_every_failure_and_no_pass(tmp_path):
    entries = read(tmp_path, GOOD.format(kind="expected_failure"))
    for outcome in ("mismatch", "unsupported", "error", "crash", "timeout"):
        assert applied(entries, outcome).gap == "covered"
    assert applied(entries, "pass").gap == "unexpected pass"
    assert applied(entries, "cpu-cannot").gap == ""


@pytest.mark.parametrize("key, name, op", [("module", "nn.Linear", "module.nn.Linear"), ("optim", "Ad*", "optim.AdamW"), ("check", "stream.*", "check.stream.wait")])
def test_an_entry_may_be_about_a_module_an_optimizer_or_a_check(tmp_path, key, name, op):
    entries = read(tmp_path, f'[[gap]]\n{key} = "{name}"\nkind = "expected_failure"\nreason = "not yet"\n')
    assert applied(entries, "error", op=op).gap == "covered"
    assert applied(entries, "error", op="nn.Linear").gap == ""


def test_the_order_of_entries_does_not_matter(tmp_path):
    one, two = GOOD.format(kind="unsupported"), '[[gap]]\nop = "linalg.svd"\nkind = "expected_failure"\nreason = "wrong signs"\n'
    for text in (one + two, two + one):
        result = applied(read(tmp_path, text), "mismatch")
        assert (result.gap, result.gap_reason) == ("covered", "wrong signs")


def test_a_run_is_accepted_when_only_covered_rows_fail(tmp_path):
    entries = read(tmp_path, GOOD.format(kind="expected_failure"))
    assert report.accepted([applied(entries, "error"), applied(entries, "pass", op="add")])
    assert not report.accepted([applied(entries, "pass")])
    assert not report.accepted([applied(entries, "error", op="add")])
    assert not report.accepted([], ["a worker ended with SIGABRT after its last row"])


def test_the_shipped_files_are_valid():
    for path in gaps.SHIPPED.glob("*.toml"):
        gaps.read(path)
    assert gaps.default_file("openreg:1") == gaps.SHIPPED / "openreg.toml"
    assert gaps.default_file("cpu") is None
