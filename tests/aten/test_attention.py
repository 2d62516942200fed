"""Scaled dot product attention: values and gradients against the CPU for masks, causality, grouped heads, odd shapes, and
the formula written out.

Needs the built extension.
"""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from parity import check, check_gradients
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right

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
    "two dimensions": (lambda: [t[0, 0] for t in qkv()], lambda q, k, v: F.scaled_dot_product_attention(q, k, v)),
    "five dimensions": (lambda: [t[:, None] for t in qkv()], lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)),
    "causal more keys": (lambda: qkv(keys=9), lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)),
    "another value width": (lambda: [*qkv()[:2], torch.randn(2, 4, 6, 3)], lambda q, k, v: F.scaled_dot_product_attention(q, k, v)),
    "broadcast heads": (lambda: [qkv()[0], *(t[:, :1] for t in qkv()[1:])], lambda q, k, v: F.scaled_dot_product_attention(q, k, v)),
    "rows without keys": (
        lambda: qkv(),
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=(torch.arange(6, device=q.device) > 2)[:, None].expand(6, 6)),
    ),
    "mask per head": (
        lambda: qkv(),
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=torch.arange(4.0, device=q.device).reshape(1, 4, 1, 1).expand(2, 4, 6, 6)),
    ),
    "causal bias": (lambda: qkv(keys=9), lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=causal_lower_right(6, 9))),
    "grouped mask": (
        lambda: qkv(heads=4, key_heads=2),
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, torch.eye(6, device=q.device), enable_gqa=True, scale=0.1),
    ),
    "empty batch": (lambda: qkv(batch=0), lambda q, k, v: F.scaled_dot_product_attention(q, k, v)),
    "no queries": (lambda: [t[:, :, :0] if i == 0 else t for i, t in enumerate(qkv())], lambda q, k, v: F.scaled_dot_product_attention(q, k, v)),
    "no keys": (lambda: [t[:, :, :0] if i else t for i, t in enumerate(qkv())], lambda q, k, v: F.scaled_dot_product_attention(q, k, v)),
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


@pytest.mark.parametrize("choice", [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]])
def test_choices_are_honoured_as_on_the_cpu(choice, device):
    def run(q, k, v):
        with sdpa_kernel(choice):
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    check(run, *qkv(), device=device, rtol=1e-4, atol=1e-5, strides=False)
    check(run, *qkv(width=5), device=device, rtol=1e-4, atol=1e-5, strides=False)
    check(run, *(t[0] for t in qkv()), device=device, rtol=1e-4, atol=1e-5, strides=False)


def test_second_gradients_take_the_math_choice(device):
    def penalty(q, k, v):
        with sdpa_kernel(SDPBackend.MATH):
            result = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return torch.autograd.grad(result.pow(2).sum(), (q, k, v), create_graph=True)

    check_gradients(penalty, *qkv(requires_grad=True), device=device, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
def test_strides_of_results_and_gradients(layout, device):
    def run(q, k, v):
        leaves = [t.detach().requires_grad_() for t in (q, k, v)]
        views = [t.transpose(1, 2) for t in leaves] if layout == "transposed" else leaves
        result = F.scaled_dot_product_attention(*views)
        return result.detach(), *torch.autograd.grad(result, leaves, result.detach())

    for _ in range(2):
        check(run, *qkv(), device=device, rtol=1e-4, atol=1e-5)


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


MODULES = {
    "plain": {},
    "batch first": {"batch_first": True},
    "bias of keys and values": {"add_bias_kv": True},
    "a key of zeros": {"add_zero_attn": True},
    "other widths": {"kdim": 5, "vdim": 6},
    "no bias": {"bias": False},
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("gradients", [True, False])
def test_multi_head_attention(name, training, gradients, device):
    options = MODULES[name]
    module = torch.nn.MultiheadAttention(8, 2, **options).train(training)
    x = torch.randn(4, 4, 8)
    key, value = torch.randn(4, 4, options.get("kdim", 8)), torch.randn(4, 4, options.get("vdim", 8))
    padding = torch.tensor([[False] * 4, [False] * 4, [False] * 3 + [True], [False] + [True] * 3])
    causal = torch.nn.Transformer.generate_square_subsequent_mask(4)
    same = "other widths" != name

    for arguments in (
        {},
        {"need_weights": False},
        {"average_attn_weights": False},
        {"key_padding_mask": padding},
        {"attn_mask": causal},
        {"attn_mask": causal, "is_causal": True, "need_weights": False},
        {"attn_mask": causal.isinf(), "key_padding_mask": padding},
        {"attn_mask": torch.zeros(8, 4, 4), "need_weights": False},
    ):

        def run(x, key, value, **arguments):
            twin = copy.deepcopy(module).to(x.device)
            with torch.set_grad_enabled(gradients):
                results = twin(x, x, x, **arguments) if same else twin(x, key, value, **arguments)
            if not gradients:
                return results
            return [t if t is None else t.detach() for t in results], torch.autograd.grad(results[0].sum(), list(twin.parameters()), allow_unused=True)

        check(run, x, key, value, device=device, rtol=1e-4, atol=1e-5, strides=False, **arguments)


@pytest.mark.parametrize("training", [True, False])
def test_transformers(training, device):
    model = torch.nn.Transformer(8, 2, 1, 1, 16, dropout=0.0, batch_first=True, norm_first=False).train(training)
    stack = torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True), 2, enable_nested_tensor=False).train(training)

    def run(source, target):
        twin, encoder = copy.deepcopy(model).to(source.device), copy.deepcopy(stack).to(source.device)
        mask = torch.nn.Transformer.generate_square_subsequent_mask(3, device=source.device)
        with torch.set_grad_enabled(training):
            return twin(source, target, tgt_mask=mask, tgt_is_causal=True).detach(), encoder(source).detach()

    check(run, torch.randn(2, 4, 8), torch.randn(2, 3, 8), device=device, rtol=1e-4, atol=1e-5, strides=False)


def test_wrong_operands_are_the_cpus_errors(device):
    for call in (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=torch.ones(6, 6, device=q.device, dtype=torch.int64)),
        lambda q, k, v: F.scaled_dot_product_attention(q.long(), k.long(), v.long()),
        lambda q, k, v: F.scaled_dot_product_attention(q[0, 0, 0], k, v),
        lambda q, k, v: torch.nn.MultiheadAttention(8, 3, device=q.device),
        lambda q, k, v: F.scaled_dot_product_attention(q, k[..., :4], v),
        lambda q, k, v: F.scaled_dot_product_attention(q, k[:, :2], v[:, :2]),
        lambda q, k, v: F.scaled_dot_product_attention(q, k.double(), v),
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=torch.ones(5, 5, device=q.device)),
    ):
        assert check(call, *qkv(), device=device) is None
    torch.openreg.synchronize(device)


def test_function_transforms_take_the_decomposition(device):
    def loss(query, key, value):
        return F.scaled_dot_product_attention(query, key, value).square().sum()

    inputs = [torch.randn(3, 2, 4, 8), torch.randn(3, 2, 5, 8), torch.randn(3, 2, 5, 8)]
    check(lambda *qkv: torch.func.vmap(torch.func.grad(loss, argnums=(0, 1, 2)))(*qkv), *inputs, device=device, rtol=1e-4, atol=1e-5)
    check(lambda *qkv: torch.func.jacrev(loss)(*qkv), *inputs, device=device, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("batch", "length", "heads", "width"), [(1, 1, 1, 1), (2, 7, 3, 5), (3, 16, 4, 8)])
def test_projections_are_split_into_heads_as_on_the_cpu_without_waiting(dtype, batch, length, heads, width):
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(batch, length, 3 * heads * width, generator=generator).to(dtype)
    bias = torch.randn(3 * heads * width, generator=generator).to(dtype)
    want = torch._transform_bias_rescale_qkv(qkv, bias, heads)
    on_device = qkv.to("openreg"), bias.to("openreg")
    torch._transform_bias_rescale_qkv(on_device[0][:, :1], on_device[1], heads)  # the first call of a kind may wait
    torch.openreg.reset_op_stats()
    got = torch._transform_bias_rescale_qkv(*on_device, heads)
    counts = torch.openreg.op_stats()["aten::_transform_bias_rescale_qkv"]
    assert (counts["native"], counts["engine"]) == ((1, 0) if dtype in (torch.float32, torch.float64) else (0, 1)) and counts["waited"] == 0
    for mine, expected in zip(got, want, strict=True):
        assert (mine.shape, mine.dtype) == (expected.shape, expected.dtype)
        assert torch.equal(mine.cpu(), expected)


def test_the_fast_path_of_an_encoder_layer_does_not_wait():
    layer = torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0.0).eval()
    x = torch.randn(3, 7, 32)
    on_device = torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0.0).eval().to("openreg")
    on_device.load_state_dict(layer.state_dict())
    with torch.no_grad():
        on_device(x[:2].to("openreg"))
        torch.openreg.reset_op_stats()
        got = on_device(x.to("openreg", non_blocking=True))
        stats = torch.openreg.op_stats()
        assert "aten::_transform_bias_rescale_qkv" in stats  # it is the fast path
        assert {name for name, counts in stats.items() if counts["waited"]} <= {"aten::copy_"}
        torch.testing.assert_close(got.cpu(), layer(x), rtol=1e-4, atol=1e-5)
