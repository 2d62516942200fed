"""Rows: identifiers, selection, shards and the fair order. Needs no device."""

import pytest

from torch_openreg.testing.conformance import rows
from torch_openreg.testing.conformance.rows import Row


class Entry:
    """An operator entry with what `select` reads."""

    supports_gradgrad = supports_forward_ad = supports_out = True
    error_inputs_func = None

    def __init__(self, name, dtypes, backward=(), **attributes):
        self.full_name, self.dtypes, self.backward = name, dtypes, backward
        self.__dict__.update(attributes)

    def get_inplace(self):
        return None

    def supported_dtypes(self, device):
        return {f"torch.{dtype}" for dtype in self.dtypes}

    def supported_backward_dtypes(self, device):
        return {f"torch.{dtype}" for dtype in self.backward}


ADD = Entry("add", ["float32", "float64", "int64"], ["float32", "float64"])
SVD = Entry("linalg.svd", ["float32"], ["float32"])


def ids(selected):
    return [row.id for row in selected]


def test_an_id_is_read_back_with_and_without_a_sample():
    row = Row("linalg.lu.x", "float32", "gradient")
    assert rows.parse_id(row.id) == (row, None)
    assert rows.parse_id(row.id + "#7") == (row, 7)


@pytest.mark.parametrize("text", ["add", "add:float32", "add:float32:forward#", "add:float32:forward#x", "add::forward"])
def test_a_malformed_id_says_what_a_row_is(text):
    with pytest.raises(ValueError, match="OP:DTYPE:MODE"):
        rows.parse_id(text)


def test_an_unknown_mode_lists_the_modes():
    with pytest.raises(ValueError, match="forward, gradient"):
        rows.parse_id("add:float32:sideways")


def test_the_default_selection_is_the_main_job():
    assert ids(rows.select([ADD])) == ["add:float32:forward", "add:int64:forward", "add:float32:gradient"]


def test_full_selects_every_dtype_that_the_cpu_supports():
    for mode, dtypes in (("forward", 3), ("gradient", 2), ("out", 3), ("inplace", 0), ("views", 2), ("errors", len(rows.DTYPES) - 3)):
        assert len(rows.select([ADD], modes=[mode], full=True)) == dtypes, mode


def test_a_mode_has_rows_where_the_entry_has_the_form():
    bare = Entry("bare", ["float32", "float16"], ["float32", "float16"], supports_gradgrad=False, supports_forward_ad=False, supports_out=False)
    assert {row.mode for row in rows.select([bare], modes=rows.MODES)} == {
        "forward", "gradient", "layouts", "views", "scalars", "func", "errors", "warnings",
    }  # fmt: skip
    assert ids(rows.select([ADD], modes=["gradgrad"], full=True)) == ["add:float32:gradgrad", "add:float64:gradgrad"]
    assert "add:float32:errors" not in ids(rows.select([ADD], modes=["errors"], full=True)), "the CPU has the dtype, the entry no errors"


def test_a_named_mode_comes_in_its_own_dtypes():
    assert ids(rows.select([ADD], modes=["out"])) == ["add:float32:out", "add:int64:out"]
    row = Row("add", "float32", "out")
    assert rows.samples_for(row, None, full=False) == rows.OTHER_MODES["out"]["float32"]


def test_every_mode_has_a_runner():
    from torch_openreg.testing.conformance.modes import RUNNERS

    assert tuple(RUNNERS) == rows.MODES and set(rows.OTHER_MODES) | {"forward", "gradient"} == set(rows.MODES)


def test_named_dtypes_come_in_every_mode_that_has_them():
    assert ids(rows.select([ADD, SVD], dtypes=["float64"])) == ["add:float64:forward", "add:float64:gradient"]


def test_named_modes_restrict_the_main_job():
    assert ids(rows.select([ADD, SVD], modes=["gradient"])) == ["add:float32:gradient", "linalg.svd:float32:gradient"]


def test_globs_match_full_names():
    assert {row.op for row in rows.select([ADD, SVD], globs=["linalg.*"])} == {"linalg.svd"}


def test_an_explicit_number_of_samples_wins():
    row = Row("add", "float32", "forward")
    assert rows.samples_for(row, 3, full=True) == 3
    assert rows.samples_for(row, None, full=True) == rows.ALL_SAMPLES
    assert rows.samples_for(row, None, full=False) == rows.DEFAULT_SELECTION["forward", "float32"]


def test_shards_cover_every_row_once():
    every = rows.select([ADD, SVD], full=True)
    parts = [rows.shard(every, index, 3) for index in (1, 2, 3)]
    assert sorted(ids(sum(parts, []))) == sorted(ids(every))


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b"])
def test_a_bad_shard_is_refused(text):
    with pytest.raises(ValueError, match="i/n"):
        rows.parse_shard(text)


def test_every_beginning_of_the_interleaved_order_is_fair():
    many = [Row(f"op{i}", "float32", "forward") for i in range(90)]
    few = [Row(f"linalg.op{i}", "float32", "forward") for i in range(10)]
    order = rows.interleave(many + few, seed=1)
    assert sorted(ids(order)) == sorted(ids(many + few))
    assert 4 <= sum(row.family == "linalg" for row in order[:50]) <= 6
    assert order == rows.interleave(many + few, seed=1) != rows.interleave(many + few, seed=2)


def test_checks_are_a_fair_part_of_every_beginning_too():
    operators = [Row(f"op{i}", "float32", "forward") for i in range(80)] + [Row(f"module.nn.M{i}", "float32", "forward") for i in range(80)]
    checks = [Row(f"check.{area}.rule{i}", "none", "check") for area in ("module", "stream") for i in range(10)]
    order = rows.interleave(operators + checks, seed=3)
    assert sorted(ids(order)) == sorted(ids(operators + checks))
    for share in (2, 4, 10):  # checks of the module interface and modules have the family `module`, and are counted apart
        beginning = ids(order[: len(order) // share])
        for prefix, count in (("op", 80), ("module.", 80), ("check.module.", 10), ("check.stream.", 10)):
            assert abs(sum(id_.startswith(prefix) for id_ in beginning) - count / share) <= 1, (share, prefix)
    assert order == rows.interleave(operators + checks, seed=3) != rows.interleave(operators + checks, seed=4)
