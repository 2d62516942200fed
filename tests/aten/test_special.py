"""Special functions: every one of torch.special, with its second operand a tensor or a number, out tensors and integers, against
the CPU.

Needs the built extension.
"""

import pytest
import torch
from parity import check, check_gradients

import torch_openreg  # noqa: F401  (registers the device)

S = torch.special
ONE = [
    "airy_ai", "bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1", "digamma", "entr", "erf", "erfc", "erfcx", "erfinv", "exp2", "expit", "expm1", "gammaln",
    "i0", "i0e", "i1", "i1e", "log1p", "log_ndtr", "logit", "modified_bessel_i0", "modified_bessel_i1", "modified_bessel_k0", "modified_bessel_k1",
    "ndtr", "ndtri", "psi", "round", "scaled_modified_bessel_k0", "scaled_modified_bessel_k1", "sinc", "spherical_bessel_j0",
]
TWO = [
    "chebyshev_polynomial_t", "chebyshev_polynomial_u", "chebyshev_polynomial_v", "chebyshev_polynomial_w", "gammainc", "gammaincc", "hermite_polynomial_h",
    "hermite_polynomial_he", "laguerre_polynomial_l", "legendre_polynomial_p", "shifted_chebyshev_polynomial_t", "shifted_chebyshev_polynomial_u",
    "shifted_chebyshev_polynomial_v", "shifted_chebyshev_polynomial_w", "xlog1py", "xlogy", "zeta",
]
OTHERS = {
    "logsumexp": lambda x: S.logsumexp(x, 1),
    "log_softmax": lambda x: S.log_softmax(x, 1),
    "softmax": lambda x: S.softmax(x, 1, dtype=torch.float64),
    "polygamma": lambda x: [S.polygamma(n, x.abs() + 0.1) for n in (0, 1, 3)],
    "multigammaln": lambda x: S.multigammaln(x.abs() + 3, 3),
    "round decimals": lambda x: S.round(x, decimals=2),
    "logit eps": lambda x: S.logit(x, 0.1),
    "polygamma negative": lambda x: S.polygamma(-1, x),
    "multigammaln wrong": lambda x: S.multigammaln(x, 0),
}


def test_no_function_is_forgotten():
    public = {name for name in S.__all__ if not name.startswith("_")}
    assert public <= {*ONE, *TWO, *(name.split()[0] for name in OTHERS)}, public - {*ONE, *TWO, *OTHERS}


@pytest.mark.parametrize("name", ONE)
def test_functions_of_one_operand(name, device):
    function = getattr(S, name)
    x = torch.tensor([[-3.0, -0.5, 0, 0.25, 0.9], [1, 2.5, 7, float("inf"), float("nan")]])
    for operand in (x, x.double().t(), x.half(), torch.arange(6).reshape(2, 3), torch.tensor([True, False]), x.to(torch.complex64), x[:0], torch.tensor(0.5)):
        check(function, operand, device=device, message=False)
    check(lambda x: function(x, out=torch.empty(1, device=x.device)), x[0, :1], device=device)
    check(lambda x: function(x, out=torch.empty(1, device=x.device, dtype=torch.int64)), x[0, :1], device=device)


@pytest.mark.parametrize("name", TWO)
def test_functions_of_two_operands(name, device):
    function = getattr(S, name)
    x, y = torch.tensor([[0.2, 0.5, 1.5], [2.0, 0.9, 3.0]]), torch.tensor([2.0, 3, 4])
    for operands in ((x, y), (x.double(), y), (x, 3), (2.0, y), (x.long(), y.long()), (x.half(), y.half()), (x[:, :0], y[:0]), (x, y[:2])):
        check(function, *operands, device=device, message=False)
    check(lambda x, y: function(x, y, out=torch.empty(2, 3, device=x.device)), x, y, device=device)


@pytest.mark.parametrize("name", OTHERS)
def test_other_functions(name, device):
    for x in (torch.randn(3, 4), torch.randn(3, 4).double()):
        check(OTHERS[name], x, device=device)


@pytest.mark.parametrize("name", ["digamma", "entr", "erfcx", "erfinv", "i0", "i1e", "log_ndtr", "logit", "ndtri", "sinc", "xlogy", "xlog1py", "gammaln"])
def test_gradients(name, device):
    operands = [torch.rand(5, dtype=torch.float64) * 0.8 + 0.1 for _ in range(1 + (name in TWO))]
    check_gradients(getattr(S, name), *(x.requires_grad_() for x in operands), device=device)
