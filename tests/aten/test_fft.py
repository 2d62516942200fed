"""Fourier transforms: every function, norm, length and dimension, out tensors, gradients, against the CPU.

Needs the built extension.
"""

import pytest
import torch
from parity import check, check_gradients

import torch_openreg  # noqa: F401  (registers the device)

ONE = ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"]
MANY = ["fft2", "ifft2", "rfft2", "irfft2", "hfft2", "ihfft2", "fftn", "ifftn", "rfftn", "irfftn", "hfftn", "ihfftn"]
REAL = ("rfft", "ihfft")


def operand(name, shape=(4, 5, 6), double=False):
    dtype = torch.float64 if double else torch.float32
    return torch.randn(shape, dtype=dtype if name.startswith(REAL) else dtype.to_complex())


@pytest.mark.parametrize("name", ONE)
def test_one_dimension(name, device):
    function = getattr(torch.fft, name)
    for norm in (None, "forward", "backward", "ortho"):
        for n in (None, 3, 8):
            for dim in (-1, 0, 1):
                check(function, operand(name), n, dim, norm, device=device, rtol=1e-4, atol=1e-4)
    x = operand(name)
    check(function, x.transpose(0, 2), device=device, rtol=1e-4, atol=1e-4)
    check(function, operand(name, double=True), device=device)
    check(function, torch.randn(4, 6), device=device, rtol=1e-4, atol=1e-4)
    check(function, torch.arange(12).reshape(3, 4), device=device, rtol=1e-4, atol=1e-4)
    check(function, torch.randn(4, 6).half(), device=device)
    check_gradients(function, operand(name).requires_grad_(), device=device, rtol=1e-4, atol=1e-3)
    check(lambda x: function(x, out=torch.empty(0, dtype=function(x).dtype, device=x.device)), x, device=device, rtol=1e-4, atol=1e-4)
    check(lambda x: function(x, out=torch.empty_like(function(x)).transpose(0, 1).contiguous().transpose(0, 1)), x, device=device, rtol=1e-4, atol=1e-4)
    for wrong in ((x, 0), (x, None, 3), (x, -1), (x, None, -1, "no"), (x[0, 0, 0],)):
        check(function, *wrong, device=device)


@pytest.mark.parametrize("name", MANY)
def test_several_dimensions(name, device):
    function = getattr(torch.fft, name)
    for norm in (None, "forward", "ortho"):
        for s, dim in ((None, (0, 1)), ((3, 8), (1, 2)), ((3, 4), (-1, 0)), (None, (-2, -1))):
            check(function, operand(name), s, dim, norm, device=device, rtol=1e-4, atol=1e-4)
    check(function, operand(name, (3, 0, 2)), device=device)
    check_gradients(function, operand(name).requires_grad_(), device=device, rtol=1e-4, atol=1e-3)
    for wrong in ((operand(name), (3, 4, 5), (0, 1)), (operand(name), None, (0, 0)), (operand(name), None, (0, 4))):
        check(function, *wrong, device=device)


@pytest.mark.parametrize("name", ["fft", "irfft", "fftn"])
def test_second_gradients(name, device):
    def penalty(x):
        (gradient,) = torch.autograd.grad(getattr(torch.fft, name)(x).abs().pow(2).sum(), x, create_graph=True)
        return gradient

    check_gradients(penalty, operand(name).requires_grad_(), device=device, rtol=1e-3, atol=1e-2)


def test_frequencies_and_shifts(device):
    for d in (1.0, 0.25):
        check(lambda x: torch.fft.fftfreq(7, d, device=x.device), torch.zeros(1), device=device)
        check(lambda x: torch.fft.rfftfreq(8, d, device=x.device, dtype=torch.float64), torch.zeros(1), device=device)
    for function in (torch.fft.fftshift, torch.fft.ifftshift):
        for dim in (None, 0, (0, 2)):
            check(function, torch.randn(4, 5, 6), dim, device=device)


def test_short_time_transforms(device):
    window = torch.hann_window(8)
    for options in ({"onesided": True}, {"center": False}, {"normalized": True}, {"pad_mode": "constant"}):
        check(lambda x, w: torch.stft(x, 8, 4, window=w, return_complex=True, **options), torch.randn(2, 40), window, device=device, rtol=1e-4, atol=1e-4)
    back = lambda x, w: torch.istft(torch.stft(x, 8, 4, window=w, return_complex=True), 8, 4, window=w, length=40)  # noqa: E731
    check(back, torch.randn(2, 40), window, device=device, rtol=1e-4, atol=1e-4)
    check_gradients(back, torch.randn(2, 40, requires_grad=True), window, device=device, rtol=1e-3, atol=1e-4)
