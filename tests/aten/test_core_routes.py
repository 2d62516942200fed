"""Operators for which core takes one way on the CPU and another on every other device: results, strides and errors are the CPU's.

Needs the built extension.
"""

import warnings

import pytest
import torch
import torch.nn.functional as F
from parity import check, check_gradients, counted

import torch_openreg  # noqa: F401  (registers the device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool])
@pytest.mark.parametrize("shape", [(2, 3, 9), (3, 9), (0, 3, 9), (2, 3, 0)])
def test_max_pool1d_without_a_gradient(shape, dtype, device):
    x = torch.randn(shape).to(dtype)
    for options in ({"kernel_size": 3}, {"kernel_size": 2, "stride": 1, "padding": 1, "dilation": 2, "ceil_mode": True}, {"kernel_size": 20}):
        for _ in range(2):
            check(F.max_pool1d, x, device=device, **options)
            check(F.max_pool1d, x.transpose(0, -1).clone().transpose(0, -1), device=device, **options)


def test_max_pool1d_with_a_gradient(device):
    check_gradients(F.max_pool1d, torch.randn(2, 3, 9, requires_grad=True), 3, device=device)
    x, tangent = torch.randn(2, 3, 9).to(device), torch.randn(2, 3, 9).to(device)
    found, want = (torch.func.jvp(lambda t: F.max_pool1d(t, 3), (t,), (d,)) for t, d in ((x, tangent), (x.cpu(), tangent.cpu())))
    torch.testing.assert_close([t.cpu() for t in found], list(want))


def test_max_pool1d_does_not_wait_for_another_size(device):
    F.max_pool1d(torch.randn(2, 3, 9, device=device), 3)
    with counted() as ways:
        F.max_pool1d(torch.randn(2, 3, 12, device=device), 3)
        assert ways("aten::max_pool1d") == {"engine": 1}


def test_ldexp_refuses_the_exponents_that_the_cpu_refuses(device):
    x = torch.randn(5)
    for exponent in (torch.arange(5), torch.randn(5), torch.ones(5, dtype=torch.bool), torch.arange(5, dtype=torch.int8)):
        check(torch.ldexp, x, exponent, device=device)
        check(lambda a, b: a.clone().ldexp_(b), x, exponent, device=device)
        check(lambda a, b: torch.ldexp(a, b, out=torch.empty_like(a)), x, exponent, device=device)


def test_ldexp_does_not_wait_for_another_size(device):
    torch.ldexp(torch.ones(3, device=device), torch.arange(3, device=device))
    with counted() as ways:
        result = torch.ldexp(torch.ones(4, device=device), torch.arange(4, device=device))
        assert "waited" not in ways("aten::ldexp.Tensor")
    assert result.tolist() == [1, 2, 4, 8]


def test_addr_in_place_needs_a_matrix(device):
    vectors = torch.randn(5), torch.randn(4)
    check(lambda a, b, c: a.addr_(b, c), torch.randn(()), *vectors, device=device)
    check(lambda a, b, c: a.addr_(b, c, beta=2, alpha=3), torch.randn(5, 4), *vectors, device=device)
    check(lambda a, b, c: a.addr_(b, c), torch.randn(4, 5), *vectors, device=device)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64, torch.uint16])
def test_dropout_of_a_type_that_has_no_mask(dtype, device):
    x = torch.ones(4, dtype=dtype)
    check(lambda t: F.dropout(t, 0.5), x, device=device)
    check(lambda t: F.dropout(t, 0.5, training=False), x, device=device)
    check(lambda t: F.dropout(t, 0.0), x, device=device)


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64])
def test_unsigned_types_that_the_cpu_refuses(dtype, device):
    x = torch.ones(3, 4).to(dtype)
    check(lambda t: t.clone().geometric_(0.5), x, device=device)
    # The CPU flips every type but along the last dimension.
    for dims in ((0,), (1,), (0, 1)):
        check(lambda t: t.flip(dims), x, device=device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("training", [False, True])
def test_batch_norm_of_a_transposed_input_is_the_same_at_every_call(training, dtype, device):
    x = torch.randn(4, 6, 5, dtype=dtype).transpose(1, 2)
    parameters = [torch.rand(5, dtype=dtype) for _ in range(4)]
    for _ in range(3):
        check(lambda *args: F.batch_norm(*args, training=training, momentum=0.5), x, *parameters, device=device)


def test_complex_half_that_is_conjugated_and_negated(device):
    x = torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex64).to(torch.complex32)
    found = torch._neg_view(x.to(device)).conj()
    assert found.is_conj() and found.is_neg()
    assert found.cpu().to(torch.complex64).tolist() == [-1 + 2j, -3 - 4j]


def test_the_engine_adds_no_warning_about_a_kind_of_tensor(device):
    always = torch.is_warn_always_enabled()
    matrix = torch.eye(3).to_sparse_csr().to(device)
    half = torch.ones((), dtype=torch.complex32, device=device)
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert (matrix @ torch.ones(3, 1, device=device)).sum().item() == 3
            assert half.item() == 1
    finally:
        torch.set_warn_always(always)


def test_mish_takes_its_own_kernel_backwards(device):
    for grad, x in ((torch.ones(4, 5), torch.randn(4, 5)), (torch.ones(4), torch.randn(4).half()), (torch.ones(4).half(), torch.randn(4))):
        for n in (2, 3, 4):
            check(torch.ops.aten.mish_backward, grad[:n], x[:n], device=device)
    with counted() as ways:
        torch.ops.aten.mish_backward(torch.ones(7, device=device), torch.ones(7, device=device))
        assert ways("aten::mish_backward") == {"engine": 1}
    x = torch.randn(5, requires_grad=True)
    check_gradients(lambda x: torch.autograd.grad(F.mish(x).sum(), x, create_graph=True), x, device=device)


def test_channels_are_shuffled_where_they_lie(device):
    x = torch.arange(96.0).reshape(2, 4, 3, 4)
    for image in (x, x.contiguous(memory_format=torch.channels_last)):
        check(torch.ops.aten.native_channel_shuffle, image, 2, device=device)
