"""FlexAttention without compilation: score and mask functions, grouped heads, log-sum-exp against torch's function on the CPU,
and gradients, which torch refuses there, against the formula written out.

Needs the built extension.
"""

import pytest
import torch
from parity import check, check_gradients
from torch.nn.attention.flex_attention import and_masks, create_block_mask, create_mask, or_masks

import torch_openreg  # noqa: F401  (registers the device)

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


def flex_attention(query, *args, **kwargs):
    ours = torch.openreg.flex_attention
    return (torch.nn.attention.flex_attention.flex_attention if query.is_cpu else ours)(query, *args, **kwargs)


def qkv(heads=2, key_heads=None, queries=8, keys=None, width=4, dtype=torch.float32, requires_grad=False):
    shapes = [(2, heads, queries, width), *[(2, key_heads or heads, keys or queries, width)] * 2]
    return [torch.randn(shape, dtype=dtype).requires_grad_(requires_grad) for shape in shapes]


def causal(b, h, q, k):
    return q >= k


def near(b, h, q, k):
    return (q - k).abs() < 3


def blocks(mask, device, queries=8, keys=8, batch=None, heads=None):
    return create_block_mask(mask, batch, heads, queries, keys, device=device, BLOCK_SIZE=4)


CASES = {
    "plain": lambda q, k, v: flex_attention(q, k, v),
    "scaled heads": lambda q, k, v: flex_attention(q, k, v, score_mod=lambda s, b, h, i, j: s * (h + 1) + (i - j), scale=0.2),
    "window": lambda q, k, v: flex_attention(q, k, v, block_mask=blocks(and_masks(causal, near), q.device)),
    "both": lambda q, k, v: flex_attention(
        q, k, v, score_mod=lambda s, b, h, i, j: s + b, block_mask=blocks(or_masks(causal, near), q.device, batch=2, heads=2)
    ),
    "log-sum-exp": lambda q, k, v: flex_attention(q, k, v, return_lse=True),
}


# Every call compiles for a while, so most tests run on one device: the one that is not the current one.
@pytest.fixture
def second():
    return torch.device("openreg", 1)


@pytest.mark.parametrize("name", CASES)
def test_values(name, second):
    check(CASES[name], *qkv(), device=second, rtol=1e-4, atol=1e-5)


def test_other_dtypes_grouped_heads_and_lengths(second):
    grouped = lambda q, k, v: flex_attention(q, k, v, enable_gqa=True, block_mask=blocks(causal, q.device, keys=12))  # noqa: E731
    check(grouped, *qkv(heads=4, key_heads=2, keys=12), device=second, rtol=1e-4, atol=1e-5)
    for dtype in (torch.float64, torch.bfloat16):
        check(CASES["plain"], *qkv(dtype=dtype), device=second, rtol=2e-2, atol=2e-2)


def test_functions_read_captured_tensors(second):
    documents = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])

    def within(q, k, v, documents, bias):
        mask = blocks(lambda b, h, i, j: documents[i] == documents[j], q.device)
        return flex_attention(q, k, v, score_mod=lambda s, b, h, i, j: s + bias[h], block_mask=mask)

    check(within, *qkv(), documents, torch.randn(2), device=second, rtol=1e-4, atol=1e-5)


def test_gradients_are_the_formulas(device):
    bias = torch.randn(8, requires_grad=True)

    def flexible(q, k, v, bias):
        if q.is_cpu:
            scores = q @ k.mT / 2 + bias
            return scores.masked_fill(~torch.ones(8, 8, dtype=torch.bool).tril(), -float("inf")).softmax(-1) @ v
        return flex_attention(q, k, v, score_mod=lambda s, b, h, i, j: s + bias[j], block_mask=blocks(causal, q.device))

    check_gradients(flexible, *qkv(requires_grad=True), bias, device=device, rtol=1e-4, atol=1e-5)


def test_masks_are_made_on_the_device(device):
    def parts(x):
        mask = blocks(causal, x.device, 8, 16)
        return mask.to_dense(), mask.kv_num_blocks, mask.kv_indices, mask.sparsity(), create_mask(causal, 1, 1, 8, 16, device=x.device)

    check(parts, torch.zeros(1), device=device)
    assert blocks(causal, device).to("cpu").kv_indices.is_cpu
    assert blocks(causal, "cpu").to(device).kv_indices.device == device


def test_wrong_operands_are_the_cpus_errors(device):
    for call in (
        lambda q, k, v: flex_attention(q[0], k, v),
        lambda q, k, v: flex_attention(q, k.double(), v),
        lambda q, k, v: flex_attention(q, k[..., :3], v),
    ):
        check(call, *qkv(), device=device)


def test_torchs_function_is_left_alone(device):
    with pytest.raises(ValueError, match="openreg device"):
        torch.nn.attention.flex_attention.flex_attention(*(t.to(device) for t in qkv()))
