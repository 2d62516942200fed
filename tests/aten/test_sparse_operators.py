"""Operators on sparse tensors of every layout and kind, their errors and their gradients, against the CPU: what the CPU refuses,
the device refuses with the same exception.

Needs the built extension.
"""

import functools

import pytest
import torch
from parity import check, check_gradients
from test_sparse_layouts import CONVERT, LAYOUT, dense, make, parts

import torch_openreg  # noqa: F401  (registers the device)


def other(x):
    """A second tensor of the layout and size of x with other places."""
    dense = torch.flip(x.to_dense(), (-1,))
    if x.layout == torch.sparse_coo:
        return dense.to_sparse(x.sparse_dim())
    blocks = {"blocksize": x.values().shape[-2:]} if x.layout in (torch.sparse_bsr, torch.sparse_bsc) else {}
    return dense.to_sparse(layout=x.layout, **blocks)


UNARY = "abs asin asinh atan atanh ceil deg2rad erf erfinv expm1 floor frac isinf isnan isposinf isneginf log1p neg positive rad2deg relu round sgn \
sign signbit sin sinh sqrt square tan tanh trunc conj conj_physical real imag angle nan_to_num".split()
BINARY = {
    "times number": lambda x: x * 2,
    "times tensor number": lambda x: x * torch.tensor(2.0, device=x.device),
    "times cpu number": lambda x: x * torch.tensor(2.0),
    "over number": lambda x: x / 2,
    "floor over number": lambda x: torch.div(x, 2, rounding_mode="floor"),
    "power": lambda x: x.pow(2),
    "plus": lambda x: x + other(x),
    "plus alpha": lambda x: torch.add(x, other(x), alpha=0.5),
    "minus": lambda x: x - other(x),
    "times": lambda x: x * other(x),
    "dense plus": lambda x: x.to_dense() + x,
    "plus dense": lambda x: x + x.to_dense(),
    "times dense": lambda x: x * x.to_dense(),
    "times row": lambda x: x * torch.arange(4.0, device=x.device),
    "over dense": lambda x: x / x.to_dense(),
    "minus number": lambda x: x - 1,
    "equal": lambda x: x == x,
    "in place plus": lambda x: x.clone().add_(other(x)),
    "in place times": lambda x: x.clone().mul_(3),
    "in place over": lambda x: x.clone().div_(3),
    "in place zero": lambda x: x.clone().zero_(),
    "in place neg": lambda x: x.clone().neg_(),
    "in place copy": lambda x: x.clone().copy_(other(x)),
    "out": lambda x: torch.add(x, other(x), out=torch.empty_like(x)),
    "sin out": lambda x: torch.sin(x, out=torch.empty_like(x)),
    "dense out": lambda x: torch.mm(x, torch.eye(4, device=x.device), out=torch.empty(4, 4, device=x.device)),
}
PRODUCTS = {
    "mm": lambda x: x @ torch.arange(12.0, device=x.device).reshape(4, 3),
    "mm transposed": lambda x: x @ torch.arange(12.0, device=x.device).reshape(3, 4).t(),
    "dense mm": lambda x: torch.arange(12.0, device=x.device).reshape(3, 4) @ x,
    "mv": lambda x: x @ torch.arange(4.0, device=x.device),
    "sparse.mm": lambda x: torch.sparse.mm(x, torch.ones(4, 3, device=x.device)),
    "sparse.mm sparse": lambda x: torch.sparse.mm(x, other(x)),
    "sparse.mm reduce": lambda x: torch.sparse.mm(x, torch.ones(4, 3, device=x.device), "amax"),
    "matmul sparse": lambda x: x @ x,
    "addmm": lambda x: torch.addmm(torch.ones(4, 3, device=x.device), x, torch.ones(4, 3, device=x.device), beta=0.5, alpha=2),
    "sparse.addmm": lambda x: torch.sparse.addmm(torch.ones(4, 3, device=x.device), x, torch.ones(4, 3, device=x.device)),
    "hspmm": lambda x: torch.hspmm(x, torch.ones(4, 3, device=x.device)),
    "smm": lambda x: torch.smm(x, torch.ones(4, 3, device=x.device)),
    "sspaddmm": lambda x: torch.sspaddmm(x, x, torch.ones(4, 4, device=x.device)),
    "bmm": lambda x: torch.bmm(x.unsqueeze(0), torch.ones(1, 4, 3, device=x.device)),
    "batched bmm": lambda x: torch.bmm(torch.stack([x, x]), torch.ones(2, 4, 3, device=x.device)),
    "sampled_addmm": lambda x: torch.sparse.sampled_addmm(x, torch.ones(4, 3, device=x.device), torch.ones(3, 4, device=x.device), alpha=0.5),
    "linear": lambda x: torch.nn.functional.linear(torch.ones(2, 4, device=x.device), x, torch.ones(4, device=x.device)),
    "triangular solve": lambda x: torch.triangular_solve(torch.ones(4, 2, device=x.device), x + 0),
    "wrong sizes": lambda x: x @ torch.ones(3, 3, device=x.device),
    "wrong dtype": lambda x: x @ torch.ones(4, 3, dtype=torch.float64, device=x.device),
}
REDUCTIONS = {
    "sum": lambda x: x.sum(),
    "sum of rows": lambda x: x.sum(0),
    "sum of columns kept": lambda x: x.sum(1, keepdim=True),
    "sum of last": lambda x: x.sum(-1),
    "sum dtype": lambda x: x.sum(dtype=torch.float64),
    "mean": lambda x: x.mean(),
    "prod": lambda x: x.prod(),
    "norm": lambda x: x.norm(),
    "any": lambda x: x.any(),
    "amax": lambda x: torch.amax(x, 0),
    "sparse.sum": lambda x: torch.sparse.sum(x),
    "sparse.sum 0": lambda x: torch.sparse.sum(x, 0),
    "sparse.sum both": lambda x: torch.sparse.sum(x, (0, 1)),
    "softmax": lambda x: torch.sparse.softmax(x, 1),
    "softmax 0": lambda x: torch.sparse.softmax(x, 0, dtype=torch.float64),
    "log_softmax": lambda x: torch.sparse.log_softmax(x, 1),
    "masked sum": lambda x: torch.masked.sum(x, 0, keepdim=True),
    "masked amax": lambda x: torch.masked.amax(x, 1, keepdim=True),
}
SHAPES = {
    "transpose": lambda x: x.transpose(0, 1),
    "t": lambda x: x.t(),
    "permute": lambda x: x.permute(1, 0),
    "select row": lambda x: x[1],
    "select column": lambda x: x.select(1, 2),
    "slice": lambda x: x[1:3],
    "narrow": lambda x: x.narrow(0, 1, 2),
    "index_select": lambda x: x.index_select(0, torch.tensor([2, 0, 2], device=x.device)),
    "index_select 1": lambda x: x.index_select(1, torch.tensor([3], device=x.device)),
    "cat": lambda x: torch.cat([x, x]),
    "cat 1": lambda x: torch.cat([x, x], 1),
    "stack": lambda x: torch.stack([x, x]),
    "unsqueeze": lambda x: x.unsqueeze(1),
    "squeeze": lambda x: x.unsqueeze(1).squeeze(1),
    "reshape": lambda x: x.reshape(2, 2, 4),
    "flatten": lambda x: x.flatten(),
    "movedim": lambda x: x.movedim(0, 1),
    "expand": lambda x: torch._sparse_broadcast_to(x, (2, 4, 4)),
    "clone": lambda x: x.clone(),
    "detach": lambda x: x.detach(),
    "coalesce": lambda x: x.coalesce(),
    "is_coalesced": lambda x: x.is_coalesced(),
    "to half": lambda x: x.half(),
    "to complex": lambda x: x.to(torch.complex64),
    "zeros_like": lambda x: torch.zeros_like(x),
    "ones_like": lambda x: torch.ones_like(x),
    "sparse_mask": lambda x: x.to_dense().sparse_mask(x),
    "sparse_mask sparse": lambda x: other(x).sparse_mask(x),
    "resize_as": lambda x: torch.zeros_like(x).resize_as_sparse_(x).shape,
    "numpy": lambda x: x.to_dense().tolist(),
    "diagonal": lambda x: x.diagonal(),
    "nonzero": lambda x: x.nonzero(),
    "isclose": lambda x: torch.allclose(x.to_dense(), x.clone().to_dense()),
    "unbind": lambda x: x.unbind(),
    "len": lambda x: (len(x), x.numel(), x.shape),
    "is same size": lambda x: x.is_same_size(other(x)),
    "strides": lambda x: x.stride(),
    "item": lambda x: x.item(),
    "data_ptr": lambda x: x.data_ptr() and None,
}


def compare(call, layout, kind, device):
    check(call, make(layout, kind), device=device, message=False, rtol=1e-4, atol=1e-5)


# The device that is not the current one: what it can do, the other can.
SECOND = torch.device("openreg", 1)


@pytest.mark.parametrize("layout", CONVERT)
@pytest.mark.parametrize("kind", ["plain", "hybrid", "complex", "bool", "int8", "half", "without values"])
def test_unary_operators(layout, kind):
    for name in UNARY:
        compare(getattr(torch, name), layout, kind, SECOND)
        compare(lambda x: getattr(torch.Tensor, name + "_", torch.neg)(x.clone()), layout, kind, SECOND)


@pytest.mark.parametrize("layout", CONVERT)
@pytest.mark.parametrize("name", [*BINARY, *PRODUCTS, *REDUCTIONS, *SHAPES])
def test_other_operators(name, layout):
    call = (BINARY | PRODUCTS | REDUCTIONS | SHAPES)[name]
    for kind in ("plain", "hybrid", "without values", "batched", "double", "complex"):
        if kind == "hybrid" and layout in ("csr", "csc") and name in ("dense plus", "plus dense"):
            continue  # the CPU's kernel reads behind the operand, and the process ends
        compare(call, layout, kind, SECOND)


GRADIENTS = {
    "to_dense": lambda x: x.to_dense(),
    "sparse.mm": lambda x: torch.sparse.mm(x, torch.ones(4, 3, device=x.device)),
    "mm": lambda x: x @ torch.arange(12.0, device=x.device).reshape(4, 3),
    "times": lambda x: (x * x).to_dense(),
    "times dense": lambda x: (x * torch.ones(4, 4, device=x.device)).to_dense(),
    "plus": lambda x: (x + x * 2).to_dense(),
    "sin": lambda x: x.sin().to_dense(),
    "sum": lambda x: torch.sparse.sum(x),
    "sum of rows": lambda x: torch.sparse.sum(x, 0).to_dense(),
    "softmax": lambda x: torch.sparse.softmax(x, 1).to_dense(),
    "log_softmax": lambda x: torch.sparse.log_softmax(x, 1).to_dense(),
    "transpose": lambda x: x.t().to_dense(),
    "select": lambda x: x[1].to_dense(),
    "index_select": lambda x: x.index_select(0, torch.tensor([2, 0], device=x.device)).to_dense(),
    "cat": lambda x: torch.cat([x, x]).to_dense(),
    "values": lambda x: x.values(),
    "sampled_addmm": lambda x: torch.sparse.sampled_addmm(x, torch.ones(4, 3, device=x.device), torch.ones(3, 4, device=x.device)).to_dense(),
    "addmm": lambda x: torch.sparse.addmm(torch.ones(4, 3, device=x.device), x, torch.ones(4, 3, device=x.device)),
    "mm reduce": lambda x: torch.sparse.mm(x, torch.ones(4, 3, device=x.device), "mean"),
    "sparse_mask": lambda x: x.sparse_mask(x.detach().coalesce()).to_dense(),
    "linear": lambda x: torch.nn.functional.linear(torch.ones(2, 4, device=x.device), x),
}


def gradient_or_error(call, d, layout):
    """The gradient for a dense leaf that becomes sparse, and for a sparse leaf; the error's type where the CPU raises."""
    found = []
    for leaf, convert in ((d.clone(), lambda x: CONVERT[layout](x)), (CONVERT[layout](d).detach(), lambda x: x)):
        leaf.requires_grad_()
        try:
            result = call(convert(leaf))
            result.backward(torch.ones_like(result))
            gradient = leaf.grad
            found.append(gradient if gradient is None or gradient.layout == torch.strided else (gradient, parts(gradient)))
        except Exception as error:
            found.append(type(error))
    return found


@pytest.mark.parametrize("layout", CONVERT)
@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients(name, layout):
    check(functools.partial(gradient_or_error, GRADIENTS[name], layout=layout), dense(), device=SECOND, rtol=1e-4, atol=1e-5)


def test_gradients_reach_values_and_dense_operands(device):
    indices = torch.tensor([[0, 1, 1, 2], [2, 0, 2, 0]])
    values, weight = torch.randn(4, requires_grad=True), torch.randn(3, 2, requires_grad=True)
    check_gradients(lambda v, w: torch.sparse.mm(torch.sparse_coo_tensor(indices.to(v.device), v, (3, 3)), w), values, weight, device=device)
    check_gradients(lambda v, w: torch.sparse_coo_tensor(indices.to(v.device), v, (3, 3)).to_sparse_csr() @ w, values, weight, device=device)
    a, b = torch.randn(4, 3, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    check_gradients(lambda a, b: torch.sparse.sampled_addmm(CONVERT["csr"](dense()).to(a.device), a, b).to_dense(), a, b, device=device)
    d = torch.randn(4, 4, requires_grad=True)
    check_gradients(lambda d: d.sparse_mask(dense().to_sparse().to(d.device)).to_dense(), d, device=device)


def test_second_gradients(device):
    def penalty(d):
        (gradient,) = torch.autograd.grad(torch.sparse.mm(d.to_sparse(), d).pow(2).sum(), d, create_graph=True)
        return gradient

    check_gradients(penalty, dense().requires_grad_(), device=device)


def test_gradcheck_takes_sparse_operands(device):
    x = dense().double().to_sparse().to(device).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: torch.sparse.mm(x, torch.ones(4, 2, dtype=torch.float64, device=device)), x, masked=True)


@pytest.mark.parametrize("layout", LAYOUT)
def test_masked_tensors(layout, device):
    def run(d):
        mask = CONVERT[layout](d != 0)
        return torch.masked.sum(d, 1, mask=mask.to_dense()), torch.masked.mean(d, mask=mask.to_dense())

    check(run, dense(), device=device)
    if layout in ("coo", "csr"):
        check(lambda d: torch.masked.masked_tensor(CONVERT[layout](d), CONVERT[layout](d != 0)).to_dense().get_data(), dense(), device=device)


def test_semi_structured_tensors_say_what_they_need(device):
    d = torch.tensor([[0, 1.0, 0, 1] * 16] * 64).half()
    check(lambda d: torch.sparse.to_sparse_semi_structured(d), d, device=device, message=False)
