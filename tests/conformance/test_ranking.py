"""What to fix first: the causes of failures, what each blocks, and the order of work, on runs of devices that lack some kernels.

The runs are made up from the table of dependencies: a row passes when the device has every kernel that it needs. Needs no torch.
"""

import json
import random

import pytest

from torch_openreg.testing.conformance import dependencies, pack, ranking
from torch_openreg.testing.conformance.result import RowResult

ROWS = [(name, mode) for name, modes in dependencies.rows().items() for mode in modes]
EVERY = frozenset().union(*(dependencies.Kernels().needed_by_row(name, "gradient") for name, _ in ROWS))
MODELS_EVERY = frozenset().union(
    *(dependencies.Kernels().needed_by(dependencies.dispatcher_name(call["op"])) for path in pack.shipped().values() for call in pack.read(path).calls)
)
MODEL_ROWS = [(f"model.{name}.{call['op']}", "call") for name, path in pack.shipped().items() for call in pack.read(path).calls]


def run_without(missing, rows=None, named=True):
    """The results of a device that lacks these kernels and says so, naming the first, or without naming any."""
    results = []
    for name, mode in ROWS if rows is None else rows:
        lacking = sorted(dependencies.Kernels().needed_by_row(name, mode) & missing)
        message = f"NotImplementedError: Could not run '{lacking[0]}' with arguments from the 'mychip' backend" if lacking and named else "no kernel"
        results.append(RowResult(name, "float32", mode, "mychip", "unsupported" if lacking else "pass", message if lacking else ""))
    return results


def rank_without(missing, rows=None, named=True):
    """The ranking of that device, which lists the kernels that it has."""
    return ranking.rank(run_without(missing, rows, named), (EVERY | MODELS_EVERY) - missing)


def test_a_missing_kernel_is_named_with_the_operators_and_models_that_depend_on_it():
    ranked = rank_without({"aten::mm.out", "aten::linalg_qr.out"})
    assert [cause.name for cause in ranked.causes] == ["aten::mm.out", "aten::linalg_qr.out"]
    first, second = ranked.causes
    assert first.missing and {"mm", "matmul", "nn.functional.linear", "module.nn.LSTM"} <= set(first.needed_by)
    assert {"llama", "t5", "whisper"} <= set(first.model_names) and first.models == len(first.model_names)
    assert second.models == 0 and {"linalg.qr", "svd_lowrank"} <= set(second.needed_by) and "mm" not in second.needed_by
    assert ranked.entries()[0] == ("aten::mm.out: no kernel", first.rows, first.models)
    assert first.rows + second.rows >= sum(result.failing for result in run_without({"aten::mm.out", "aten::linalg_qr.out"}))


def test_a_kernel_that_no_message_names_is_found_through_what_passes():
    ranked = rank_without({"aten::mm.out"}, named=False)
    assert [(cause.name, cause.missing) for cause in ranked.causes] == [("aten::mm.out", True)]


def test_checks_that_say_the_same_have_one_cause():
    message = "init returns INTERNAL: the card has no firmware"
    results = [RowResult(f"check.driver.{name}", "none", "check", "openreg", "mismatch", message) for name in ("first", "another", "a_third")]
    results += [RowResult("check.driver.other", "none", "check", "openreg", "mismatch", "a copy gives other bytes")]
    ranked = ranking.rank(results)
    assert [(cause.text, cause.rows) for cause in ranked.causes] == [
        (f"check.driver.first: {message}", 3), ("check.driver.other: a copy gives other bytes", 1),
    ]  # fmt: skip
    assert ranked.row_steps[0].fixes == ["check.driver.first"] and ranked.row_steps[0].percent == 75


def test_a_kernel_that_messages_name_stands_for_what_is_behind_it():
    rows = ("log_softmax", "nn.functional.nll_loss", "nn.functional.cross_entropy")
    names = ("aten::_log_softmax", "aten::nll_loss_forward", "aten::_log_softmax")
    results = [
        RowResult(row, "float32", "forward", "mychip", "unsupported", f"NotImplementedError: mychip has no kernel for {name}.default")
        for row, name in zip(rows, names)
    ]
    kernels = EVERY - {"aten::_log_softmax.out", "aten::nll_loss_forward.output", "aten::nll_loss2d_forward"}
    found = {cause.name: cause for cause in ranking.rank(results, kernels).causes}
    assert set(found) == {"aten::_log_softmax", "aten::nll_loss_forward", "aten::nll_loss2d_forward"}
    assert found["aten::_log_softmax"].needed_by == ["log_softmax", "nn.functional.cross_entropy"]
    assert "nn.functional.cross_entropy" in found["aten::nll_loss_forward"].needed_by


def test_a_kernel_with_wrong_values_is_not_missing():
    results = run_without({"aten::mm.out"}, [("linalg.matrix_power", "forward")])
    assert "aten::as_strided" in {cause.name for cause in ranking.rank(results).causes}
    results.append(RowResult("t", "float32", "forward", "mychip", "mismatch", "strides (1, 1), expected (1, 3)"))
    missing = {cause.name: cause.missing for cause in ranking.rank(results).causes}
    assert missing["aten::mm.out"] and not missing["aten::as_strided"]


def test_a_dtype_that_the_device_does_not_have_is_one_cause():
    results = run_without(frozenset())
    for result in results[:60:2]:
        results.append(RowResult(result.op, "bfloat16", "forward", "mychip", "unsupported", "NotImplementedError: mychip has no bfloat16"))
    (cause,) = ranking.rank(results).causes
    assert (cause.name, cause.rows, cause.model_names) == ("bfloat16", 30, ["vit"]) and "mychip has no bfloat16" in cause.text
    few = ranking.rank([*run_without(frozenset())[:5], *results[-3:]]).causes
    assert "bfloat16" not in {cause.name for cause in few}


def test_wrong_values_are_traced_to_the_kernel_that_only_failing_rows_need():
    results = run_without({"aten::mm.out"})
    for result in results:
        if result.failing:
            result.outcome, result.message = "mismatch", "output: Tensor-likes are not close!"
    (cause,) = ranking.rank(results).causes
    assert (cause.name, cause.missing) == ("aten::mm.out", False) and "not close" in cause.text


def test_a_row_whose_kernels_all_work_is_its_own_cause():
    results = run_without(frozenset())
    wrong = next(result for result in results if result.op == "nn.functional.softmin")
    wrong.outcome, wrong.message = "error", "ValueError: no"
    ranked = ranking.rank([*results, RowResult("check.stream.order", "none", "check", "mychip", "mismatch", "late")])
    assert [(cause.name, cause.rows, cause.models) for cause in ranked.causes] == [("check.stream.order", 1, 0), ("nn.functional.softmin", 1, 0)]


def test_failing_calls_of_models_count_for_their_operator():
    results = [RowResult(f"model.{name}.aten.gelu.default", "float32", "call", "mychip", "mismatch", "far off") for name in ("bert", "vit")]
    (cause,) = ranking.rank(results).causes
    assert (cause.name, cause.rows) == ("aten::gelu.out", 2) and set(cause.model_names) >= {"bert", "vit"} and cause.needed_by == []


def test_a_kernel_that_the_device_has_registered_needs_no_parts():
    present = ["aten::add.Tensor"]
    assert dependencies.Kernels().needed_by("aten::add.Tensor") >= {"aten::add.out"}
    assert dependencies.Kernels(present).needed_by("aten::add.Tensor") == {"aten::add.Tensor"}


@pytest.mark.parametrize("have, named", [(0, True), (60, True), (60, False), (300, True)])
def test_the_order_of_work_lifts_the_rows_to_each_target(have, named):
    present = set(random.Random(have).sample(sorted(EVERY), have))
    missing = EVERY - present
    ranked = rank_without(missing, named=named)
    assert [step.target for step in ranked.row_steps][-1] == 99
    done, sizes = set(), []
    for step in ranked.row_steps:
        assert step.percent >= step.target
        done |= set(step.fixes)
        sizes.append(len(done))
        passing = sum(not dependencies.Kernels().needed_by_row(name, mode) & (missing - done) for name, mode in ROWS)
        assert 100 * passing / len(ROWS) == pytest.approx(step.percent, abs=0.01)
    assert sizes == sorted(sizes) and done <= missing
    assert sizes[0] < len(missing) / 3  # half of the rows need far less than half of the kernels
    simple = sorted(missing, key=lambda kernel: -next(cause.rows for cause in ranked.causes if cause.name == kernel))[: sizes[0]]
    by_count = sum(not dependencies.Kernels().needed_by_row(name, mode) & (missing - set(simple)) for name, mode in ROWS)
    assert ranked.row_steps[0].percent >= 100 * by_count / len(ROWS) - 5  # about as good as taking what most rows need, at least


def test_a_begun_row_is_finished_before_others_are_begun():
    waiting = [*[frozenset("ab")] * 10, *[frozenset("b")] * 4, *[frozenset("c")] * 8]
    first, *_ = ranking._steps(waiting, 0)
    assert (first.target, first.fixes) == (50, ["b", "a"])


def test_the_order_of_work_for_models_ends_with_all_of_them():
    ranked = rank_without({"aten::mm.out", "aten::convolution_overrideable", "aten::cat.out"}, MODEL_ROWS)
    assert ranked.models == len(pack.shipped()) and ranked.models_pass < ranked.models
    assert {name for step in ranked.model_steps for name in step.fixes} == {"aten::mm.out", "aten::convolution_overrideable", "aten::cat.out"}
    assert ranked.model_steps[-1].percent == 100


def test_the_summary_and_the_file_say_the_same():
    ranked = rank_without(EVERY)
    shown = "\n".join(ranking.lines(ranked))
    assert f"{ranked.causes[0].rows} rows, {ranked.causes[0].models} models  {ranked.causes[0].name}: no kernel" in shown
    assert "rows: " in shown and "more for" in shown and shown.count("no kernel") == ranking.SHOWN
    document = json.loads(ranking.text(ranked))
    assert [(c["text"], c["rows"], c["models"]) for c in document["causes"]] == ranked.entries()
    assert document["row_steps"][0]["fixes"] == ranked.row_steps[0].fixes
    assert ranking.lines(ranking.rank(run_without(frozenset()))) == []
    assert ranking.lines(ranking.rank([])) == []
