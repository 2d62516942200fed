"""Scaled dot product attention: values and gradients against the CPU for masks, causality, grouped heads, odd shapes, and
the formula written out.

Needs the built extension.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from parity import check, check_gradients
from torch.nn.attention import SDPBackend, sdpa_kernel

import torch_openreg  # noqa: F401  (registers the device)


def qkv(heads=4, key_heads=None, queries=6, keys=None, width=8, dtype=torch.float32, requires_grad=False, batch=2):
    keys = keys or queries
    shapes = [(batch, heads, queries, width), (batch, key_heads or heads, keys, width), (batch, key_heads or heads, keys, width)]
    return [torch.randn(shape, dtype=dtype).requires_grad_(requires_grad) for shape in shapes]


CASES = {
    "plain": (lambda: qkv(), lambda q, k, v: F.scaled_dot_product_attention(q, k, v)),
    "causal": (lambda: qkv(), lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)),
    "more keys": (lambda: qkv(keys=9), lambda q, k, v: F.scaled_dot_product_attention(q, k, v)),
    "boolean mask": (
        lambda: qkv(),
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=torch.ones(6, 6, dtype=torch.bool, device=q.device).tril()),
    ),
    "float mask": (
        lambda: qkv(),
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=torch.arange(36.0, device=q.device).reshape(6, 6) / 36),
    ),
    "mask per batch": (
        lambda: qkv(),
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=(torch.arange(6, device=q.device) < 4).expand(2, 1, 6, 6)),
    ),
    "grouped heads": (lambda: qkv(heads=4, key_heads=2), lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True)),
    "grouped causal": (
        lambda: qkv(heads=6, key_heads=2),
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True, is_causal=True),
    ),
    "scale": (lambda: qkv(), lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.3)),
    "three dimensions": (lambda: [t[0] for t in qkv()], lambda q, k, v: F.scaled_dot_product_attention(q, k, v)),
    "transposed": (
        lambda: [t.transpose(1, 2).contiguous() for t in qkv()],
        lambda q, k, v: F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True),
    ),
    "odd width": (lambda: qkv(width=5), lambda q, k, v: F.scaled_dot_product_attention(q, k, v)),
    "long": (lambda: qkv(queries=600, heads=2, batch=1), lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)),
    "one query": (lambda: qkv(queries=1, keys=7), lambda q, k, v: F.scaled_dot_product_attention(q, k, v)),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name, device):
    make, call = CASES[name]
    for _ in range(2):
        check(call, *make(), device=device, rtol=1e-4, atol=1e-5, strides=False)
    leaves = [t.detach().requires_grad_() for t in make()]
    for _ in range(2):
        check_gradients(call, *leaves, device=device, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_other_dtypes(dtype, causal, device):
    tolerance = 1e-9 if dtype == torch.float64 else 2e-2
    call = lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal)  # noqa: E731
    check(call, *qkv(dtype=dtype), device=device, rtol=tolerance, atol=tolerance, strides=False)
    check_gradients(call, *qkv(dtype=dtype, requires_grad=True), device=device, rtol=4 * tolerance, atol=4 * tolerance)


def test_the_formula_written_out(device):
    q, k, v = (t.to(device) for t in qkv(keys=5))
    weights = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1)
    torch.testing.assert_close(F.scaled_dot_product_attention(q, k, v), weights @ v, rtol=1e-4, atol=1e-5)


def test_the_math_choice_gives_the_same(device):
    q, k, v = (t.to(device) for t in qkv())
    fused = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    with sdpa_kernel(SDPBackend.MATH):
        torch.testing.assert_close(F.scaled_dot_product_attention(q, k, v, is_causal=True), fused, rtol=1e-4, atol=1e-5)


def test_a_mask_that_learns(device):
    mask = torch.zeros(6, 6, requires_grad=True)
    q, k, v = qkv()
    check_gradients(lambda q, k, v, mask: F.scaled_dot_product_attention(q, k, v, attn_mask=mask), q, k, v, mask, device=device, rtol=1e-4, atol=1e-4)


def test_dropout_drops_and_follows_the_seed(device):
    q, k, v = (t.to(device) for t in qkv())
    torch.manual_seed(1)
    first = F.scaled_dot_product_attention(q, k, v, dropout_p=0.5)
    second = F.scaled_dot_product_attention(q, k, v, dropout_p=0.5)
    torch.manual_seed(1)
    assert torch.equal(F.scaled_dot_product_attention(q, k, v, dropout_p=0.5).cpu(), first.cpu())
    assert not torch.equal(first.cpu(), second.cpu())
    assert torch.equal(F.scaled_dot_product_attention(q, k, v, dropout_p=0.0), F.scaled_dot_product_attention(q, k, v))


@pytest.mark.parametrize("training", [True, False])
def test_attention_modules_agree_with_the_cpu(training, device):
    torch.manual_seed(0)
    attention = torch.nn.MultiheadAttention(16, 4, batch_first=True).train(training)
    encoder = torch.nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True).train(training)
    x = torch.randn(2, 5, 16)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    want = [attention(x, x, x, key_padding_mask=padding), encoder(x, src_key_padding_mask=padding)]
    x_there, padding_there = x.to(device), padding.to(device)
    attention.to(device), encoder.to(device)
    got = [attention(x_there, x_there, x_there, key_padding_mask=padding_there), encoder(x_there, src_key_padding_mask=padding_there)]
    torch.testing.assert_close([got[0][0].cpu(), got[0][1].cpu(), got[1].cpu()], [want[0][0], want[0][1], want[1]], rtol=1e-4, atol=1e-5)


def test_wrong_operands_are_the_cpus_errors(device):
    for call in (
        lambda q, k, v: F.scaled_dot_product_attention(q, k[..., :4], v),
        lambda q, k, v: F.scaled_dot_product_attention(q, k[:, :2], v[:, :2]),
        lambda q, k, v: F.scaled_dot_product_attention(q, k.double(), v),
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=torch.ones(5, 5, device=q.device)),
    ):
        assert check(call, *qkv(), device=device) is None
    torch.openreg.synchronize(device)
