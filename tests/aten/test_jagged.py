"""Nested tensors of the jagged layout: a Python subclass over device values and offsets, against the CPU.

Needs the built extension.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from parity import check

import torch_openreg  # noqa: F401  (registers the device)

pytestmark = pytest.mark.filterwarnings("ignore")
VALUES, OFFSETS = torch.linspace(-1, 1, 40).view(10, 4), torch.tensor([0, 2, 5, 10])
MATRIX, VECTOR = torch.randn(4, 4), torch.randn(4)


def parts(value):
    if isinstance(value, (list, tuple)):
        return [parts(element) for element in value]
    if isinstance(value, torch.Tensor) and value.is_nested:
        return [value.values(), value.offsets(), value._ragged_idx]
    return value


def check_jagged(function, device):
    def call(values, offsets, matrix, vector):
        return parts(function(torch.nested.nested_tensor_from_jagged(values, offsets), matrix, vector))

    return check(call, VALUES, OFFSETS, MATRIX, VECTOR, device=device, rtol=1e-5, atol=1e-6, message=False)


def attention(n, **kwargs):
    heads = n.unflatten(-1, (2, 2)).transpose(1, 2)
    return F.scaled_dot_product_attention(heads, heads, heads, **kwargs)


OPERATORS = {
    "itself": lambda n, m, v: n, "float64": lambda n, m, v: n.double(), "relu": lambda n, m, v: n.relu(), "gelu": lambda n, m, v: F.gelu(n), "sigmoid_": lambda n, m, v: n.sigmoid_(),
    "plus": lambda n, m, v: n + n, "times number": lambda n, m, v: n * 2, "times dense": lambda n, m, v: n * v, "compared": lambda n, m, v: n > 0, "where": lambda n, m, v: torch.where(n > 0, n, -n),
    "padded": lambda n, m, v: n.to_padded_tensor(-1.0), "padded to": lambda n, m, v: n.to_padded_tensor(-1.0, (3, 6, 4)), "unbound": lambda n, m, v: n.unbind(), "one": lambda n, m, v: n[1],
    "sum": lambda n, m, v: n.sum(), "sum of ragged": lambda n, m, v: n.sum(1), "mean of ragged": lambda n, m, v: n.mean(1), "max of ragged": lambda n, m, v: n.amax(1), "sum of last": lambda n, m, v: n.sum(-1),
    "softmax of ragged": lambda n, m, v: n.softmax(1), "softmax": lambda n, m, v: n.softmax(-1), "linear": lambda n, m, v: F.linear(n, m, v), "matmul": lambda n, m, v: n @ m,
    "bmm": lambda n, m, v: torch.bmm(n, m.expand(3, 4, 4)), "transposed matmul": lambda n, m, v: n.transpose(1, 2) @ n, "layer_norm": lambda n, m, v: F.layer_norm(n, (4,), v, v),
    "transposed": lambda n, m, v: n.transpose(1, 2), "unflattened": lambda n, m, v: n.unflatten(-1, (2, 2)), "chunks": lambda n, m, v: n.chunk(2, -1), "cat": lambda n, m, v: torch.cat([n, n], -1),
    "zeros_like": lambda n, m, v: torch.zeros_like(n), "masked_fill": lambda n, m, v: n.masked_fill(n > 0, 1.0), "attention": lambda n, m, v: attention(n), "deep copy": lambda n, m, v: copy.deepcopy(n),
    "narrowed": lambda n, m, v: torch.nested.narrow(m.expand(3, 4, 4), 1, torch.tensor([0, 1, 0], device=n.device), torch.tensor([2, 3, 4], device=n.device), layout=torch.jagged).contiguous(),
    "causal attention": lambda n, m, v: attention(n, is_causal=True), "cat of batches": lambda n, m, v: torch.cat([n, n]),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name, device):
    for _ in range(2):
        check_jagged(OPERATORS[name], device)


@pytest.mark.parametrize("name", ["relu", "gelu", "times dense", "where", "padded", "one", "softmax of ragged", "linear", "matmul", "transposed matmul", "layer_norm", "chunks", "attention"])
def test_gradients(name, device):
    def gradients(values, offsets, matrix, vector):
        values.requires_grad_()
        n = torch.nested.nested_tensor_from_jagged(values, offsets, min_seqlen=2, max_seqlen=5)
        result = OPERATORS[name](n, matrix, vector)
        result = result[0] if isinstance(result, (list, tuple)) else result
        result = result.values() if result.is_nested else result
        (result * torch.arange(result.numel(), device=result.device).view(result.shape)).sum().backward()
        return values.grad

    check(gradients, VALUES, OFFSETS, MATRIX, VECTOR, device=device, rtol=1e-4, atol=1e-4)


def test_tensors_cross_to_the_device_and_back(device):
    n = torch.nested.nested_tensor([VALUES[:2], VALUES[2:]], layout=torch.jagged)
    there = n.to(device)
    assert there.device == there.offsets().device == there.values().device == device and there.layout == torch.jagged
    assert torch.equal(there.cpu().values(), n.values()) and torch.equal(there.cpu().offsets(), n.offsets())
    made = torch.nested.nested_tensor([VALUES[:2], VALUES[2:]], layout=torch.jagged, device=device)
    assert torch.equal(made.values().cpu(), n.values()) and made.offsets().device == device


def test_padding_kernels(device):
    check(lambda v, o: torch.ops.aten._jagged_to_padded_dense_forward(v, [o], [5], -1.0), VALUES, OFFSETS, device=device)
    check(lambda p, o: torch.ops.aten._padded_dense_to_jagged_forward(p, [o], 10), torch.randn(3, 5, 4), OFFSETS, device=device)
    check(lambda p, o: torch.ops.aten._padded_dense_to_jagged_forward(p, [o], 11), torch.randn(3, 5, 4), OFFSETS, device=device)
