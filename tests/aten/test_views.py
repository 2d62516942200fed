"""Views: conjugate and negative ones, Fourier transforms and complex functions that make them, views of memory, overlaps.

Values, metadata and errors are compared with the CPU's. Needs the built extension.
"""

import pytest
import torch
from parity import check, check_gradients, counted

import torch_openreg  # noqa: F401  (registers the device)


def complex_values(*shape, dtype=torch.complex64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(3))


# ---- Conjugate and negative views ------------------------------------------------


LAZY_VIEWS = {
    "conj": lambda x: x.conj(),
    "neg": lambda x: torch._neg_view(x.real) if x.is_complex() else torch._neg_view(x),
    "conj imag": lambda x: x.conj().imag,
    "conj transposed": lambda x: x.mH if x.dim() > 1 else x.conj(),
    "conj slice": lambda x: x.conj()[1:],
    "neg of conj": lambda x: torch._neg_view(x.conj()),
}


@pytest.mark.parametrize("view", LAZY_VIEWS.values(), ids=LAZY_VIEWS)
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
def test_lazy_views_go_through_arithmetic_and_copies(view, dtype, device):
    x = complex_values(3, 3, dtype=dtype)
    for function in (
        lambda x: view(x),
        lambda x: view(x) + 1,
        lambda x: 2 * view(x),
        lambda x: view(x) * view(x),
        lambda x: view(x) - x.real[: view(x).shape[0]],
        lambda x: view(x) @ torch.ones(3, 3, dtype=view(x).dtype, device=x.device),
        lambda x: torch.ones(view(x).shape, dtype=view(x).dtype, device=x.device).copy_(view(x)),
        lambda x: view(x).clone(),
        lambda x: view(x).contiguous(),
        lambda x: view(x).resolve_conj().resolve_neg(),
        lambda x: view(x).sum(),
        lambda x: view(x).sum().item(),
        lambda x: view(x).abs(),
        lambda x: view(x)[0],
        lambda x: torch.cat([view(x), view(x)]),
        lambda x: torch.where(view(x).real > 0, view(x), torch.zeros((), dtype=view(x).dtype, device=x.device)) if view(x).is_complex() else view(x),
        lambda x: view(x).to(torch.complex128),
        lambda x: view(x)[0, 0].item(),
        lambda x: view(x).tolist(),
    ):
        check(function, x, device=device)


@pytest.mark.parametrize("view", LAZY_VIEWS.values(), ids=LAZY_VIEWS)
def test_lazy_views_cross_to_the_host_and_to_another_device(view, device):
    x = complex_values(4, 4)
    there = view(x.to(device))
    assert torch.equal(there.cpu(), view(x))
    assert torch.equal(there.to(torch.device("openreg", 1 - device.index)).cpu(), view(x))
    into = torch.zeros(there.shape, dtype=there.dtype, device=device)
    into.copy_(view(x))  # from the host, with bits
    assert torch.equal(into.cpu(), view(x))
    host = torch.zeros(there.shape, dtype=there.dtype)
    host.copy_(there)
    assert torch.equal(host, view(x))


def test_writing_through_a_lazy_view_writes_the_base(device):
    for write in (
        lambda x: x.conj().fill_(1 + 2j),
        lambda x: x.conj().imag.fill_(3),
        lambda x: x.conj().copy_(torch.full((4,), 2 - 1j, dtype=x.dtype)),
        lambda x: x.conj().copy_(torch.full((4,), 2 - 1j, dtype=x.dtype, device=x.device)),
        lambda x: x.conj().add_(1j),
        lambda x: x.conj().mul_(x),
        lambda x: torch._neg_view(x.real).add_(2),
        lambda x: x.conj().zero_(),
        lambda x: x.conj().masked_fill_(x.real > 0, 5j),
        lambda x: x.conj().__setitem__(slice(1, 3), 7j),
    ):
        check(lambda x: (write(x), x)[1], complex_values(4), device=device)


def test_gradients_pass_lazy_views(device):
    x = complex_values(3, 3).requires_grad_()
    check_gradients(lambda x: (x.conj() * x).real.sum(), x, device=device)
    check_gradients(lambda x: x.conj().imag.sum(), x, device=device)
    check_gradients(lambda x: (x @ x.mH).abs().sum(), x, device=device)


FFT = ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"]


@pytest.mark.parametrize("name", FFT + [f"{n}2" for n in FFT] + [f"{n}n" for n in FFT])
def test_fourier_transforms(name, device):
    function = getattr(torch.fft, name)
    real_input = name.startswith(("rfft", "ihfft"))
    x = torch.randn(3, 6, 8) if real_input else complex_values(3, 6, 8)
    for norm in ("backward", "ortho", "forward"):
        check(lambda x: function(x, norm=norm), x, device=device)
    if not real_input:
        check(lambda x: function(x.conj()), x, device=device)
        check_gradients(lambda x: function(x), x.requires_grad_(), device=device)
    else:
        check_gradients(lambda x: function(x), x.requires_grad_(), device=device)


def test_short_time_transforms(device):
    x = torch.randn(2, 400)
    window = torch.hann_window(64)
    spectrum = check(lambda x, w: torch.stft(x, 64, window=w, return_complex=True), x, window, device=device)
    restored = torch.istft(spectrum, 64, window=window.to(device), length=400)
    torch.testing.assert_close(restored.cpu()[:, :380], x[:, :380], rtol=1e-4, atol=1e-4)


def test_complex_functions(device):
    x = complex_values(3, 4)
    real = torch.randn(3, 4)
    for function in (torch.sgn, torch.angle, torch.abs, torch.view_as_real, torch.real, torch.imag, torch.conj_physical, torch.exp, torch.sqrt, torch.tanh):
        check(function, x, device=device)
    check(torch.polar, real.abs(), real, device=device)
    check(torch.complex, real, real, device=device)
    check(torch.view_as_complex, torch.randn(5, 2), device=device)
    check(torch.linalg.pinv, x, device=device, rtol=1e-4, atol=1e-4)
    check(torch.linalg.pinv, real, device=device, rtol=1e-4, atol=1e-4)
    check(lambda x: torch.linalg.pinv(x.mH), x, device=device, rtol=1e-4, atol=1e-4)
    check(lambda x: x.conj().sgn(), x, device=device)
    check_gradients(torch.sgn, x.clone().requires_grad_(), device=device)


# ---- Views share memory ------------------------------------------------------------


def test_views_write_through(device):
    for write in (
        lambda x: x.view(-1)[3:5].fill_(9),
        lambda x: x.t().add_(1),
        lambda x: x.unfold(1, 2, 2).mul_(2),
        lambda x: x.as_strided((2, 2), (1, 4), 1).zero_(),
        lambda x: x.diagonal().fill_(-1),
        lambda x: x[:, None].squeeze(1).sub_(1),
        lambda x: x.chunk(2)[1].copy_(torch.full((2, 4), 3.0, device=x.device)),
        lambda x: x.reshape(2, 8).neg_(),
        lambda x: x.expand(2, 4, 4)[1][0].fill_(2),
        lambda x: x.view(torch.int32).fill_(0),
        lambda x: x[::2].index_fill_(0, torch.tensor([1], device=x.device), 4),
        lambda x: x.narrow(0, 1, 2).clamp_(2, 5),
        lambda x: x.detach().fill_(1),
        lambda x: x.swapaxes(0, 1)[1].exp_(),
    ):
        check(lambda x: (write(x), x)[1], torch.arange(16.0).reshape(4, 4), device=device)


def test_views_need_no_kernel(device):
    x = torch.zeros(4, 6, device=device)
    torch.openreg.synchronize(device)
    with counted():
        x.t()[1:].unsqueeze(0).expand(2, 5, 4).permute(2, 0, 1)
        x.view(24).as_strided((3,), (2,)).unbind()
        x.view(-1)
        assert torch.openreg.op_stats() == {}


def test_base_and_version_are_those_of_the_cpu(device):
    x = torch.zeros(3, 4, device=device)
    view = x[1]
    assert view._base is x and view.data_ptr() == x.data_ptr() + 16
    view.add_(1)
    assert x._version == view._version == 1
    assert x.untyped_storage().data_ptr() == view.untyped_storage().data_ptr()
    y = x.requires_grad_().clone()
    z = y.exp()
    z.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


# ---- Overlaps -------------------------------------------------------------------------


OVERLAPS = {
    "shifted add": lambda x: x[1:].add_(x[:-1]),
    "shifted mul": lambda x: x[:-1].mul_(x[1:]),
    "shifted out": lambda x: torch.sin(x[1:], out=x[:-1]),
    "expanded": lambda x: x[:1].expand(4).add_(1),
    "expanded fill": lambda x: x[:1].expand(4).fill_(1),
    "expanded copy": lambda x: x[:1].expand(4).copy_(torch.ones(4, device=x.device)),
    "as_strided": lambda x: x.as_strided((3, 3), (1, 1)).mul_(2),
    "shifted copy": lambda x: x[1:].copy_(x[:-1]),
    "shifted exp": lambda x: torch.exp(x[:-1], out=x[1:]),
    "where out": lambda x: torch.where(x[1:] > 1, x[1:], x[:-1], out=x[1:]),
    "gather out": lambda x: torch.gather(x, 0, torch.tensor([1, 0, 3, 2, 4, 5], device=x.device), out=x),
    "index_add": lambda x: x.index_add_(0, torch.tensor([0, 1], device=x.device), x[:2]),
    "itself": lambda x: x.add_(x),
    "itself neg": lambda x: torch.neg(x, out=x),
}


@pytest.mark.parametrize("call", OVERLAPS.values(), ids=OVERLAPS)
@pytest.mark.parametrize("calls_before", [0, 2])
def test_overlapping_memory_is_the_cpus_error_and_changes_nothing(call, calls_before, device):
    for _ in range(calls_before):
        check(call, torch.arange(1.0, 7.0), device=device)
    x = torch.arange(1.0, 7.0)

    def attempt(x):
        try:
            return call(x), x
        except RuntimeError as error:
            return type(error).__name__, str(error), x

    check(attempt, x, device=device)


@pytest.mark.parametrize("name", ["atan2_", "fmod_", "hypot_", "copysign_", "mul_", "add_", "copy_"])
def test_an_overlap_is_found_at_the_call_after_calls_without_one(name, device):
    for size in (4, 5, 6):
        getattr(torch.ones(size, 2, device=device).t(), name)(torch.ones(2, size, device=device))
        getattr(torch.ones(size, device=device), name)(torch.ones(2 * size, device=device)[::2])

    def attempt(x):
        try:
            return getattr(x[1:], name)(x[:-1]), x
        except RuntimeError as error:
            return str(error), x

    assert "clone()" in check(attempt, torch.arange(1.0, 13.0), device=device)[0]
    torch.openreg.synchronize(device)
