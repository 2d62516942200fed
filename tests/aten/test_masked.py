"""torch.masked: reductions and normalisations with masks, and masked tensors, against the CPU.

Needs the built extension.
"""

import pytest
import torch
from parity import check, check_gradients

import torch_openreg  # noqa: F401  (registers the device)

pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of MaskedTensors")

REDUCTIONS = ["sum", "prod", "amax", "amin", "argmax", "argmin", "mean", "norm", "var", "std", "logsumexp", "median", "cumsum", "cumprod", "logaddexp"]
NORMALISATIONS = ["softmax", "log_softmax", "softmin", "normalize"]


def mask():
    return torch.tensor([[True, False, True, True], [False, False, True, False], [True, True, True, True]])


@pytest.mark.parametrize("name", [name for name in REDUCTIONS + NORMALISATIONS if hasattr(torch.masked, name)])
def test_operators(name, device):
    function = getattr(torch.masked, name)
    for dtype in (torch.float32, torch.float64, torch.int64, torch.float16):
        rtol, atol = (2e-3, 1e-3) if dtype == torch.float16 else (1e-5, 1e-6)
        for dim in (0, 1, -1):
            for given in (None, mask(), mask()[:1]):
                arguments = {"norm": (2.0, dim), "normalize": (2.0, dim), "logaddexp": (torch.ones(3, 4).to(dtype),)}.get(name, (dim,))
                options = {"input_mask": given} if name == "logaddexp" else {"mask": given}
                if name in ("var", "std"):
                    options["unbiased"] = False
                check(function, torch.randn(3, 4).mul(3).to(dtype), *arguments, device=device, rtol=rtol, atol=atol, message=False, **options)
    if name not in ("argmax", "argmin", "median", "logaddexp"):
        arguments = {"norm": (2.0, 1), "normalize": (2.0, 1)}.get(name, (1,))
        options = {"unbiased": False} if name in ("var", "std") else {}
        check_gradients(function, torch.randn(3, 4, requires_grad=True), *arguments, mask=mask(), device=device, rtol=1e-3, atol=1e-4, **options)


MASKED_TENSORS = {
    "sum": lambda m: m.sum(1),
    "mean": lambda m: m.mean(),
    "amax": lambda m: m.amax(0),
    "sin": lambda m: m.sin(),
    "plus": lambda m: m + m,
    "times number": lambda m: m * 2,
    "to_dense": lambda m: m.to_sparse().to_dense(),
    "to_sparse": lambda m: m.to_sparse().get_data().coalesce(),
    "to csr": lambda m: m.to_sparse_csr().get_data(),
    "to_tensor": lambda m: m.to_tensor(7.0),
    "slice": lambda m: m[1:],
    "transpose": lambda m: m.t(),
    "where": lambda m: torch.where(m.get_mask(), m, m),
    "print": lambda m: repr(m),
    "other masks": lambda m: m + torch.masked.masked_tensor(m.get_data(), ~m.get_mask()),
    "unmasked": lambda m: m + m.get_data(),
}


@pytest.mark.parametrize("name", MASKED_TENSORS)
def test_masked_tensors(name, device):
    def run(x, given):
        result = MASKED_TENSORS[name](torch.masked.masked_tensor(x, given))
        if isinstance(result, torch.masked.MaskedTensor):
            return result.get_data().masked_fill(~result.get_mask(), 0), result.get_mask()
        return result

    check(run, torch.randn(3, 4), mask(), device=device, rtol=1e-4, atol=1e-5)


def test_gradients_of_masked_tensors(device):
    def run(x, given):
        m = torch.masked.masked_tensor(x, given, requires_grad=True)
        (m * m).sum().backward()
        return m.grad.to_tensor(0.0)

    check(run, torch.randn(3, 4), mask(), device=device, rtol=1e-4, atol=1e-5)
