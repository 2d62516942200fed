"""Comparison: every way in which a result can differ has a message of its own. Runs on the CPU."""

import pytest
import torch

from torch_openreg.testing.conformance.compare import Mismatch, Rules, compare, operator_tolerances

CPU = torch.device("cpu")
RULES = Rules(CPU)
ONES = torch.ones(2, 3)


@pytest.mark.parametrize(
    "actual, words",
    [
        (ONES + 1, "not close"),
        (ONES.double(), "dtype torch.float64, expected torch.float32"),
        (torch.ones(3, 2), r"shape \(3, 2\), expected \(2, 3\)"),
        (torch.ones(3, 2).t(), r"strides \(1, 2\), expected \(3, 1\)"),
        (ONES.clone().requires_grad_(), "requires_grad True, expected False"),
        (ONES.to("meta"), "device meta, expected cpu"),
        (ONES.to_sparse(), "layout torch.sparse_coo"),
        (1.0, "float, expected a tensor"),
    ],
)
def test_a_tensor_that_differs_is_a_mismatch(actual, words):
    with pytest.raises(Mismatch, match=words):
        compare(ONES, actual, RULES)


@pytest.mark.parametrize(
    "expected, actual, words",
    [
        ((ONES, ONES), (ONES,), "tuple of 1, expected tuple of 2"),
        ([ONES, ONES], [ONES, ONES + 1], r"output\[1\]"),
        ({"a": 1}, {"b": 1}, "dict of 1"),
        ({"a": 1}, {"a": 2}, r"output\['a'\]"),
        (1, 1.0, "float 1.0, expected int 1"),
        (True, False, "bool False, expected bool True"),
        (0.5, 0.6, "not close"),
        (torch.float32, torch.float64, "torch.float64"),
        (CPU, torch.device("meta"), "device meta, expected cpu"),
    ],
)
def test_other_results_that_differ_are_mismatches(expected, actual, words):
    with pytest.raises(Mismatch, match=words):
        compare(expected, actual, RULES)


@pytest.mark.parametrize("value", [ONES, (ONES, [ONES, 3]), {"a": 0.5}, torch.eye(3).to_sparse(), torch.tensor([float("nan")])])
def test_equal_results_match(value):
    compare(value, value, RULES)


def test_strides_of_dimensions_of_one_element_and_of_empty_tensors_mean_nothing():
    compare(torch.empty_strided((1, 3), (7, 1)), torch.empty_strided((1, 3), (3, 1)), Rules(CPU, "none"))
    compare(torch.empty(0, 3), torch.empty(3, 0).t(), RULES)


def test_uninitialised_results_are_compared_by_metadata():
    compare(ONES, ONES + 1, Rules(CPU, "none"))
    with pytest.raises(Mismatch, match="dtype"):
        compare(ONES, ONES.double(), Rules(CPU, "none"))


def test_random_results_must_be_finite_and_have_the_mean():
    rules = Rules(CPU, "random")
    compare(torch.rand(1000), torch.rand(1000), rules)
    compare(torch.empty(1000).cauchy_(), torch.empty(1000).cauchy_(), rules)
    with pytest.raises(Mismatch, match="mean"):
        compare(torch.rand(1000), torch.rand(1000) + 0.3, rules)
    with pytest.raises(Mismatch, match="not finite"):
        compare(torch.rand(4), torch.full((4,), float("nan")), rules)


def test_the_entry_widens_the_tolerance():
    class Entry:
        decorators = ()

    few_bits = dict(operator_tolerances(Entry, "forward"))
    assert torch.float32 not in few_bits and few_bits[torch.float16] == (8 * 2**-10, 8 * 2**-10, 0)
    from torch.testing._internal.common_device_type import tol, toleranceOverride
    from torch.testing._internal.opinfo.core import DecorateInfo

    override = toleranceOverride({torch.float32: tol(atol=1e-3, rtol=1e-4)})
    Entry.decorators = (
        DecorateInfo(override, "TestCommon", "test_out", device_type="cuda"),
        DecorateInfo(toleranceOverride({torch.float64: tol(atol=1, rtol=1)}), "TestInductorOpInfo", "test_comprehensive"),
    )
    found = dict(operator_tolerances(Entry, "forward"))
    assert found[torch.float32] == (1e-4, 1e-3, 0) and torch.float64 not in found


def test_small_second_derivatives_may_be_off_by_units_of_the_largest():
    class Entry:
        decorators = ()

    rules = Rules(torch.device("cpu"), floors=operator_tolerances(Entry, "gradgrad"))
    expected = torch.tensor([1000.0, 1.0, float("inf")])
    compare(expected, expected + torch.tensor([0.0, 0.001, 0.0]), rules)
    with pytest.raises(Mismatch, match="not close"):
        compare(expected, expected + torch.tensor([0.0, 0.003, 0.0]), rules)
    with pytest.raises(Mismatch, match="not close"):
        compare(expected, expected + torch.tensor([0.0, 0.001, 0.0]), Rules(torch.device("cpu"), floors=operator_tolerances(Entry, "gradient")))
