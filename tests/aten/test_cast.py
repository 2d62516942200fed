"""Conversions between element types on the device: the CPU's values, bit by bit, for every pair of types, by device kernels
where the layout allows it.

Needs the built extension.
"""

import itertools

import pytest
import torch

import torch_openreg  # noqa: F401  (registers the device)

FLOATING = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
INTEGRAL = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
COMPLEX = [torch.complex64, torch.complex128]
ALL = FLOATING + INTEGRAL + COMPLEX + [torch.bool]


def values(dtype):
    """Values that every type can take in: what happens to others is undefined in C++ and not the same on two CPUs."""
    whole = torch.arange(0, 120, dtype=torch.float64)
    if dtype.is_floating_point:
        return torch.cat([whole, whole / 7, torch.tensor([-0.0, 0.25, 1e-3])]).to(dtype)
    if dtype.is_complex:
        return torch.complex(whole, whole.flip(0) - 3).to(dtype)
    return whole.to(dtype)


@pytest.mark.parametrize("source, target", list(itertools.product(ALL, ALL)), ids=str)
@pytest.mark.filterwarnings("ignore:Casting complex values")
def test_every_pair_of_types_converts_as_on_the_cpu(source, target, device):
    a = values(source)
    got = a.to(device).to(target)
    assert got.dtype == target and torch.equal(got.cpu(), a.to(target))
    into = torch.empty(a.shape, dtype=target, device=device)
    into.copy_(a.to(device))
    assert torch.equal(into.cpu(), a.to(target))


@pytest.mark.parametrize("target", [torch.float16, torch.bfloat16], ids=str)
def test_rounding_to_16_bits_is_that_of_the_cpu(target):
    """All patterns of the upper bits of a float, with lower bits around the rounding points."""
    upper = torch.arange(0, 2**19, dtype=torch.int64) << 13
    for lower in (0, 1, 0xFFF, 0x1000, 0x1001, 0x1FFF):
        bits = (upper | lower).to(torch.int32)
        a = bits.view(torch.float32)
        got, want = a.to("openreg").to(target).cpu(), a.to(target)
        assert torch.equal(got.isnan(), want.isnan())
        assert torch.equal(got.view(torch.int16)[~want.isnan()], want.view(torch.int16)[~want.isnan()])


@pytest.mark.parametrize("source", [torch.float16, torch.bfloat16], ids=str)
def test_every_16_bit_number_becomes_the_same_float(source):
    a = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(source)
    got, want = a.to("openreg").float().cpu(), a.float()
    assert torch.equal(got.isnan(), want.isnan())
    assert torch.equal(got.view(torch.int32)[~want.isnan()], want.view(torch.int32)[~want.isnan()])


def test_layouts_and_empty_tensors_convert():
    a = torch.arange(24.0).view(2, 3, 4)
    b = a.to("openreg")
    assert torch.equal(b.transpose(0, 2).to(torch.int32).cpu(), a.transpose(0, 2).to(torch.int32))
    assert torch.equal(b[:, ::2].half().cpu(), a[:, ::2].half())
    assert torch.equal(torch.zeros(2, 3, 4, dtype=torch.int64, device="openreg").copy_(b[:1]).cpu(), a[:1].expand(2, 3, 4).long())
    assert b[:0].to(torch.int8).shape == (0, 3, 4)
    z = torch.complex(a, -a)
    assert torch.equal(z.to("openreg").conj().to(torch.complex128).cpu(), z.conj().to(torch.complex128))


@pytest.mark.parametrize("target", ALL, ids=str)
def test_a_bool_with_another_byte_than_0_and_1_is_true(target, device):
    a = torch.tensor([0, 1, 2, 255, 128] * 9, dtype=torch.uint8)
    got = a.to(device).view(torch.bool).to(target).cpu()
    assert torch.equal(got, a.view(torch.bool).to(target)) and torch.equal(got != 0, a != 0)


def test_contiguous_conversions_take_a_device_kernel():
    x = torch.arange(100.0, device="openreg")
    torch.openreg.reset_op_stats()
    x.half()
    x.to(torch.int64)
    stats = torch.openreg.op_stats()["aten::copy_"]
    assert (stats["native"], stats["engine"], stats["waited"]) == (2, 0, 0)
