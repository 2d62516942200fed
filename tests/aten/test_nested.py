"""Nested tensors of the strided layout: construction, operators, gradients and the fast paths of transformers, against the CPU.

Needs the built extension.
"""

import pickle

import pytest
import torch
import torch.nn.functional as F
from parity import assert_like, check

import torch_openreg  # noqa: F401  (registers the device)

pytestmark = pytest.mark.filterwarnings("ignore")
PARTS = [torch.linspace(-1, 1, rows * 4).view(rows, 4) for rows in (2, 3, 5)]


def parts(value):
    """A nested tensor as its sizes, strides, offsets and components; lists of them; any other value as it is."""
    if isinstance(value, (list, tuple)):
        return [parts(element) for element in value]
    if not isinstance(value, torch.Tensor) or not value.is_nested:
        return value
    tables = (value._nested_tensor_size(), value._nested_tensor_strides(), value._nested_tensor_storage_offsets())
    return [value.dtype, *[table.tolist() for table in tables], *value.unbind()]


def check_nested(function, device, **kwargs):
    return check(lambda *p: parts(function(torch.nested.nested_tensor(list(p)))), *PARTS, device=device, rtol=1e-5, atol=1e-6, **kwargs)


def heads(n):
    """[batch, ragged, 4] as [batch, 2 heads, ragged, 2]."""
    return n.reshape(3, -1, 2, 2).transpose(1, 2)


MATRIX, VECTOR = torch.randn(4, 4), torch.randn(4)
OPERATORS = {
    "itself": lambda n: n, "float64": lambda n: n.double(), "clone": lambda n: n.clone(), "relu": lambda n: n.relu(), "gelu": lambda n: F.gelu(n), "silu": lambda n: F.silu(n),
    "tanh": lambda n: n.tanh(), "abs": lambda n: n.abs(), "sgn": lambda n: n.sgn(), "neg_": lambda n: n.neg_(), "isnan": lambda n: n.isnan(), "logical_not": lambda n: n.logical_not(),
    "fill_": lambda n: n.fill_(3.0), "zero_": lambda n: n.zero_(), "plus": lambda n: n + n, "minus": lambda n: n - n, "times": lambda n: n * n, "over": lambda n: n / n,
    "times number": lambda n: n * 2, "add_": lambda n: n.add_(n.clone()), "compared": lambda n: n > 0, "where": lambda n: torch.where(n > 0, n, n * 2), "masked_fill": lambda n: n.masked_fill(n > 0, 1.0),
    "padded": lambda n: n.to_padded_tensor(-1.0), "padded to": lambda n: n.to_padded_tensor(-1.0, (3, 6, 5)), "sum": lambda n: n.sum(-1, keepdim=True), "softmax": lambda n: n.softmax(-1),
    "transposed": lambda n: n.transpose(1, 2), "contiguous": lambda n: n.transpose(1, 2).contiguous(), "reshaped": lambda n: n.reshape(3, -1, 2, 2), "viewed": lambda n: n.view(3, -1, 2, 2),
    "one": lambda n: n[1], "selected": lambda n: n.select(2, 1), "unsqueezed": lambda n: n.unsqueeze(1).squeeze(1), "chunks": lambda n: n.chunk(2, -1), "split": lambda n: n.split_with_sizes([1, 3], -1),
    "narrowed": lambda n: n.narrow(0, 1, 2), "cat": lambda n: torch.cat([n, n]), "values": lambda n: n.values(), "linear": lambda n: F.linear(n, MATRIX.to(n.device), VECTOR.to(n.device)),
    "bmm": lambda n: torch.bmm(n, n.transpose(1, 2)), "matmul": lambda n: n @ n.transpose(1, 2), "matmul of heads": lambda n: heads(n) @ heads(n).transpose(2, 3),
    "layer_norm": lambda n: F.layer_norm(n, (4,), VECTOR.to(n.device), VECTOR.to(n.device)), "dropout": lambda n: F.dropout(n, 0.5, False), "ones_like": lambda n: torch.ones_like(n),
    "attention": lambda n: F.scaled_dot_product_attention(*[heads(n).contiguous()] * 3), "pickled": lambda n: pickle.loads(pickle.dumps(n)),
    "embedding": lambda n: F.embedding(torch.nested.nested_tensor([torch.tensor([0, 1]), torch.tensor([2])], device=n.device), MATRIX.to(n.device)),
}
WRONG = {
    "size of a ragged dimension": lambda n: n.size(1), "no kernel": lambda n: n.exp(), "plus other shape": lambda n: n + torch.nested.nested_tensor([n[0]] * 3), "plus dense": lambda n: n + torch.ones(3, 1, 4, device=n.device),
    "sum without keepdim": lambda n: n.sum(-1), "layer_norm of ragged": lambda n: F.layer_norm(n, (2, 4), torch.ones(2, 4, device=n.device), torch.ones(2, 4, device=n.device)),
    "layer_norm alone": lambda n: F.layer_norm(n, (4,)), "bmm of wrong sizes": lambda n: torch.bmm(n, n), "view": lambda n: n.view(3, 7),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name, device):
    for _ in range(2):
        check_nested(OPERATORS[name], device)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls_are_the_cpus_errors(name, device):
    assert check_nested(WRONG[name], device) is None


def test_tensors_cross_to_the_host_and_between_devices(device):
    n, other = torch.nested.nested_tensor(PARTS), torch.device("openreg", 1 - device.index)
    there = n.to(device)
    assert there.device == device and there.is_nested and str(device) in repr(there)
    assert_like(list(there.unbind()), PARTS, device)
    assert_like(list(there.to(other).unbind()), PARTS, other)
    assert all(torch.equal(mine, part) for mine, part in zip(there.cpu().unbind(), PARTS))
    assert torch.equal(torch.empty_like(n).copy_(there)[2], PARTS[2])
    assert torch.equal(torch.empty_like(there).copy_(n)[2].cpu(), PARTS[2])


DIFFERENTIABLE = ["itself", "float64", "clone", "relu", "gelu", "silu", "abs", "plus", "times", "times number", "padded", "sum", "softmax", "contiguous", "reshaped", "one", "linear", "bmm",
                  "matmul of heads", "layer_norm", "dropout"]


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients(name, device):
    def gradients(*components):
        leaves = [part.clone().requires_grad_() for part in components]
        result = OPERATORS[name](torch.nested.as_nested_tensor(leaves))
        result = result.to_padded_tensor(0.0) if result.is_nested else result
        (result * torch.arange(result.numel(), device=result.device).view(result.shape)).sum().backward()
        return [leaf.grad for leaf in leaves]

    check(gradients, *PARTS, device=device, rtol=1e-4, atol=1e-4)


def test_padded_tensors_become_nested(device):
    padded, mask = torch.randn(2, 3, 4), torch.tensor([[True, True, False], [True, True, True]])
    check(lambda x: parts(torch._nested_from_padded(x, torch.tensor([[2, 4], [3, 4]]))), padded, device=device)
    check(lambda x, m: parts(torch._nested_tensor_from_mask(x, m)), padded, mask, device=device)
    check(lambda x, m: torch._nested_tensor_from_mask(x, m), padded, mask.flip(1), device=device)
    check(torch._nested_tensor_from_mask_left_aligned, padded, mask, device=device)


@pytest.mark.parametrize("settings", [{}, {"activation": "gelu"}, {"norm_first": True}], ids=str)
def test_a_transformer_encoder_takes_its_fast_path(settings, device):
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **settings)
    model = torch.nn.TransformerEncoder(layer, 2).eval()
    there = torch.nn.TransformerEncoder(layer, 2).eval()
    there.load_state_dict(model.state_dict())
    there.to(device)
    x, mask = torch.randn(3, 5, 8), torch.arange(5)[None] >= torch.tensor([2, 4, 5])[:, None]
    with torch.no_grad():
        for arguments in ((), (None, mask)):
            torch.openreg.reset_op_stats()
            got = there(x.to(device), *[a.to(device) if isinstance(a, torch.Tensor) else a for a in arguments])
            torch.testing.assert_close(got.cpu(), model(x, *arguments), rtol=1e-5, atol=1e-5)
            if not settings.get("norm_first"):
                assert "aten::_transform_bias_rescale_qkv" in torch.openreg.op_stats()


@pytest.mark.parametrize("weights", [False, True])
def test_multihead_attention_takes_nested_inputs(weights, device):
    model = torch.nn.MultiheadAttention(4, 2, batch_first=True).eval()
    there = torch.nn.MultiheadAttention(4, 2, batch_first=True).eval()
    there.load_state_dict(model.state_dict())
    there.to(device)

    def attend(*components):
        n = torch.nested.nested_tensor(list(components))
        return parts((there if n.device == device else model)(n, n, n, need_weights=weights))

    with torch.no_grad():
        check(attend, *PARTS, device=device, rtol=1e-5, atol=1e-5)


def test_elementwise_operators_do_not_wait(device):
    n = torch.nested.nested_tensor(PARTS, device=device)
    weight = torch.ones(4, 4, device=device)
    F.linear(n.relu() * n, weight).to_padded_tensor(0.0)
    torch.openreg.reset_op_stats()
    F.linear(n.relu() * n, weight).to_padded_tensor(0.0)
    assert not [name for name, counts in torch.openreg.op_stats().items() if counts["waited"]]
