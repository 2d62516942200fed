"""Copies of samples: independent of the original, and made of the same things. Runs on the CPU."""

import pytest
import torch
from torch.testing._internal.opinfo.core import SampleInput

from torch_openreg.testing.conformance import samples

CPU = torch.device("cpu")


def copy_of(*tensors, **kwargs):
    return samples.copy_sample(SampleInput(tensors[0], args=tensors[1:], kwargs=kwargs), CPU)


def test_a_copy_shares_no_memory():
    original = torch.arange(4.0)
    copy_of(original).input.add_(1)
    assert original.tolist() == [0, 1, 2, 3]


def test_nested_containers_are_copied():
    original = torch.arange(4.0)
    copy = copy_of([original, (original + 1,)], key={"inner": original})
    copy.input[0].zero_()
    assert original[3] == 3
    assert copy.kwargs["key"]["inner"] is copy.input[0], "one tensor in two places stays one tensor"


def test_strides_and_offset_are_kept():
    for view in (torch.arange(24.0).view(4, 6).t(), torch.arange(24.0)[5:17:3], torch.arange(3.0).expand(4, 3)):
        copy = copy_of(view).input
        assert copy.stride() == view.stride()
        assert copy.storage_offset() == view.storage_offset()
        assert torch.equal(copy, view)


def test_tensors_that_share_memory_share_it_in_the_copy():
    base = torch.zeros(6)
    copy = copy_of(base[:4], base[2:])
    copy.input.fill_(1)
    assert copy.args[0].tolist() == [1, 1, 0, 0]
    assert base.sum() == 0


def test_views_of_another_dtype_share_memory_too():
    base = torch.ones(4, dtype=torch.complex64)
    copy = copy_of(base, torch.view_as_real(base))
    copy.args[0].zero_()
    assert copy.input.abs().sum() == 0


def test_conjugate_and_negative_bits_are_kept():
    value = torch.tensor([1 + 2j, 3 - 1j])
    copy = copy_of(value.conj(), value.conj().imag)
    assert copy.input.is_conj() and copy.args[0].is_neg()
    assert torch.equal(copy.input, value.conj()) and torch.equal(copy.args[0], value.conj().imag)


def test_requires_grad_is_kept_on_leaves():
    value = torch.arange(6.0)[1:].requires_grad_()
    copy = copy_of(value, torch.ones(2))
    assert copy.input.is_leaf and samples.leaves(copy) == [copy.input]


@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_sparse_layouts_are_copied():
    dense = torch.eye(3)
    for sparse in (dense.to_sparse(), dense.to_sparse_csr()):
        copy = copy_of(sparse).input
        copy.values().zero_()
        assert torch.equal(sparse.to_dense(), dense)


def test_device_arguments_and_generators_follow_the_device():
    meta = torch.device("meta")
    sample = SampleInput((2,), args=("cpu",), kwargs={"device": CPU, "other": torch.device("cuda", 1)})
    copy = samples.copy_sample(sample, meta)
    assert copy.args == ("meta",)
    assert copy.kwargs == {"device": meta, "other": torch.device("cuda", 1)}
    generator = torch.Generator().manual_seed(5)
    assert copy_of(torch.ones(1), generator=generator).kwargs["generator"].initial_seed() == 5


def test_chosen_samples_spread_from_the_first_to_the_last():
    assert samples.choose(10, 0) == list(range(10))
    assert samples.choose(3, 5) == [0, 1, 2]
    assert samples.choose(101, 5) == [0, 25, 50, 75, 100]
    assert samples.choose(7, 1) == [0]


def test_rows_draw_their_own_samples_whatever_ran_before():
    from torch_openreg.testing.conformance.execution import operators

    seed = samples.row_seed(0, "add:float32:forward")
    first = samples.draw(operators()["add"], torch.float32, "forward", seed)
    torch.rand(3)
    second = samples.draw(operators()["add"], torch.float32, "forward", seed)
    assert all(torch.equal(a.input, b.input) for a, b in zip(first, second, strict=True))
    assert seed != samples.row_seed(1, "add:float32:forward")
