"""Result metadata of calls with sizes that the engine has not met: known without waiting, equal to what the kernels return, and never
at the price of an error that comes late.

Needs the built package. OPENREG_CHECK_METADATA=1 makes the engine compare what it infers with what the CPU's kernels return.
"""

import warnings

import pytest
import torch
import torch.nn.functional as F

import torch_openreg  # noqa: F401  (registers the device)
from parity import check


aten = torch.ops.aten


def waiting():
    return sorted(name for name, counts in torch.openreg.op_stats().items() if counts["waited"])


def grad(function):
    """The backward of `function` as part of the call."""

    def call(x, n):
        leaf = x.detach().requires_grad_()
        result = function(leaf, n)
        result = result if isinstance(result, torch.Tensor) else result[0]
        return torch.autograd.grad(result.sum(), leaf)[0]

    return call


def image(x, n):
    return x.reshape(1, 2, n, n)


# Calls of one signature: x has 2 * n * n elements of float32.
CALLS = {
    "where": lambda x, n: torch.where(x > 0, x, -x),
    "where out": lambda x, n: torch.where(x > 0, x, -x, out=torch.empty(0, device=x.device)),
    "logical": lambda x, n: (x > 0).logical_and(x < 1).logical_or(x > 2).logical_xor(x > 3).logical_not(),
    "relu, hardtanh, hardswish": lambda x, n: F.relu(x) + F.hardtanh(x) + F.hardswish(x),
    "their gradients": grad(lambda x, n: F.relu(x) + F.hardtanh(x) + F.hardswish(x) + F.mish(x) + F.logsigmoid(x)),
    "isnan": lambda x, n: x.isnan(),
    "floor_divide": lambda x, n: torch.floor_divide(x, x + 1),
    "rsub": lambda x, n: torch.rsub(x, x + 1),
    "prelu": grad(lambda x, n: F.prelu(x, torch.full((1,), 0.25, device=x.device))),
    "glu": grad(lambda x, n: F.glu(x, 0)),
    "losses": grad(lambda x, n: F.mse_loss(x, x * 0.5) + F.huber_loss(x, x * 0.5) + F.smooth_l1_loss(x, x * 0.5)),
    "binary cross entropy": grad(lambda x, n: F.binary_cross_entropy(x.sigmoid(), torch.zeros_like(x))),
    "complex": lambda x, n: torch.complex(x, x + 1).abs(),
    "masked_fill": lambda x, n: x.masked_fill(x > 0, 1.0),
    "convolution": grad(lambda x, n: F.conv2d(image(x, n), torch.ones(3, 2, 3, 3, device=x.device), padding=1)),
    "transposed convolution": grad(lambda x, n: F.conv_transpose2d(image(x, n), torch.ones(2, 3, 2, 2, device=x.device), stride=2)),
    "convolution 1d": lambda x, n: F.conv1d(x.reshape(1, 2, -1), torch.ones(3, 2, 3, device=x.device)),
    "layer_norm": grad(lambda x, n: F.layer_norm(x.reshape(n, 2 * n).t().reshape(-1, n), (n,)) * x.detach().reshape(-1, n)),
    "batch_norm": grad(lambda x, n: F.batch_norm(image(x, n), None, None, training=True)),
    "group_norm": grad(lambda x, n: F.group_norm(image(x, n), 2)),
    "attention": grad(lambda x, n: F.scaled_dot_product_attention(*[x.reshape(1, 2, n, n)] * 3)),
    "index_select": lambda x, n: x.reshape(2, -1).index_select(1, torch.arange(n, device=x.device)),
    "embedding": grad(lambda x, n: F.embedding(torch.arange(n, device=x.device), x.reshape(2 * n, n))),
    "flip": lambda x, n: x.flip(0),
    "roll": lambda x, n: x.roll(1, 0),
    "diag_embed": lambda x, n: x.diag_embed(),
    "unfold": grad(lambda x, n: x.unfold(0, 3, 2)),
    "slice_scatter": lambda x, n: x.slice_scatter(torch.zeros(2, device=x.device), 0, 0, 2),
    "take": lambda x, n: x.take(torch.arange(n, device=x.device)),
    "searchsorted": lambda x, n: torch.searchsorted(x.sort()[0], x) + torch.bucketize(x, x.sort()[0]),
    "cdist": grad(lambda x, n: torch.cdist(x.reshape(-1, n), x.reshape(-1, n) + 1)),
    "reductions": lambda x, n: x.max() + x.min() + x.median() + x.prod() + x.std() + x.var() + x.nansum() + x.reshape(-1, n).std(1).sum(),
    "norms": lambda x, n: torch.linalg.vector_norm(x) + torch.linalg.norm(x.reshape(-1, n)),
    "products": lambda x, n: x.dot(x) + x.reshape(2, n, n)[0].trace(),
    "pools": grad(lambda x, n: F.adaptive_avg_pool2d(image(x, n), (3, 4)) + F.max_pool2d(image(x, n), 2)[..., :1, :1]),
    "grid_sample": grad(lambda x, n: F.grid_sample(image(x, n), torch.zeros(1, n, n, 2, device=x.device), align_corners=False)),
    "pad": grad(lambda x, n: F.pad(image(x, n), (1, 1, 1, 1), mode="reflect") + F.pad(image(x, n), (1, 1, 1, 1), mode="replicate")),
    "windows": lambda x, n: F.fold(F.unfold(image(x, n), 2), (n, n), 2),
    "nll_loss": grad(lambda x, n: F.cross_entropy(image(x, n), torch.zeros(1, n, n, dtype=torch.long, device=x.device))),
    "qr": lambda x, n: torch.linalg.qr(x.reshape(-1, n))[1].abs(),
    "cholesky": lambda x, n: torch.linalg.cholesky_ex(torch.eye(n, device=x.device) * 2)[0],
    "solve": lambda x, n: torch.linalg.solve_ex(torch.eye(n, device=x.device) * 2, x.reshape(2, n, n)[0])[0],
    "fft": lambda x, n: torch.fft.irfft(torch.fft.rfft(x)) + torch.fft.fft(x).abs(),
    "factories": lambda x, n: torch.arange(n, device=x.device).sum() + torch.eye(n, device=x.device).sum() + torch.linspace(0, 1, n, device=x.device).sum(),
    "sum out": lambda x, n: torch.sum(x.reshape(-1, n), dim=1, out=torch.empty(0, device=x.device)),
    "cat": lambda x, n: torch.cat([x] * n),
    "foreach": lambda x, n: torch._foreach_add([x, x.reshape(2, n, n)], 1.0)[1],
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_changed_sizes_do_not_wait(call, device):
    inputs = {n: torch.linspace(-1, 1, 2 * n * n).sin() for n in (6, 9, 8, 11)}
    on_device = {n: x.to(device) for n, x in inputs.items()}
    for n in (6, 9):  # two sizes, because some operators take another way for a first gradient
        call(on_device[n], n)
    torch.openreg.synchronize(device)
    torch.openreg.reset_op_stats()
    results = {n: call(on_device[n], n) for n in (8, 11)}
    assert waiting() == []
    for n, result in results.items():
        expected = call(inputs[n], n)
        assert result.stride() == expected.stride() and result.dtype == expected.dtype
        torch.testing.assert_close(result.cpu(), expected, rtol=1e-4, atol=1e-5)


# Calls that the CPU refuses, each after a good call of the same signature with other sizes or numbers.
REFUSED = {
    "pow": (lambda x: x.long() ** 2, lambda x: x.long() ** -1),
    "masked_fill": (lambda x: x.masked_fill_(x > 0, 1.0), lambda x: x.masked_fill_(x[:2] > 0, 1.0)),
    "overflow": (lambda x: x.to(torch.uint8).clamp(max=100), lambda x: x.to(torch.uint8).clamp(max=300)),
    "huber_loss": (lambda x: F.huber_loss(x, x, delta=1.0), lambda x: F.huber_loss(x, x, delta=0.0)),
    "convolution": (lambda x: F.conv2d(x[None, None], x[None, None, :2, :2]), lambda x: F.conv2d(x[None, None, :2, :2], x[None, None])),
    "layer_norm": (lambda x: F.layer_norm(x, (3,)), lambda x: F.layer_norm(x[:, :2], (3,))),
    "index_select": (lambda x: x.index_select(1, torch.arange(2, device=x.device)), lambda x: x.index_select(2, torch.arange(2, device=x.device))),
    "flip": (lambda x: x.flip(0, 1), lambda x: x.flip(0, 0)),
    "cdist": (lambda x: torch.cdist(x, x), lambda x: torch.cdist(x, x[:, :2])),
    "dot": (lambda x: x[0].dot(x[1]), lambda x: x[0].dot(x[1, :2])),
    "logical_and": (lambda x: (x > 0).logical_and(x > 1), lambda x: (x > 0).logical_and(x[:, :2] > 1)),
    "pad": (lambda x: F.pad(x[None, None], (1, 1, 1, 1), mode="reflect"), lambda x: F.pad(x[None, None], (3, 1, 1, 1), mode="reflect")),
    "put": (lambda x: x.put_(torch.tensor([1, 2], device=x.device), x[0, :2]), lambda x: x.put_(torch.tensor([1, 2], device=x.device), x[0])),
    "attention": (
        lambda x: F.scaled_dot_product_attention(*[x[None, None]] * 3),
        lambda x: F.scaled_dot_product_attention(x[None, None], x[None, None, :, :2], x[None, None]),
    ),
    "prelu": (lambda x: F.prelu(x, x[0, :1]), lambda x: F.prelu(x, x[0, :2])),
    "a value's sizes": (lambda x: assigned(x[0], places(x, 3), x[1]), lambda x: assigned(x.reshape(-1), places(x, 3), x[1, :2])),
    "indices' sizes": (lambda x: assigned(x, (places(x, 3), places(x, 3)), x[0]), lambda x: assigned(x, (places(x, 3), places(x, 2)), x[0])),
    "too many indices": (lambda x: x.index_put_((places(x, 3),), x[:1]), lambda x: x[0].index_put_((places(x, 3),) * 2, x[0, :1])),
    "a mask's sizes": (lambda x: assigned(x, x > 0, x[0, 0] + 1), lambda x: assigned(x, x[:2] > 0, x[0, 0] + 1)),
    "bias": (lambda x: F.linear(x, x, x[0]), lambda x: F.linear(x, x, x[0, :2])),
    "addmm": (lambda x: torch.addmm(x, x, x), lambda x: torch.addmm(x[None], x, x)),
    "addmm_": (lambda x: x.addmm_(x + 1, x + 2), lambda x: x[0].addmm_(x + 1, x + 2)),
    "one element written twice": (
        lambda x: x[0].put_(torch.tensor([1, 2], device=x.device), x[1, :2]),
        lambda x: x[0, :1].expand(4).put_(torch.tensor([1, 2], device=x.device), x[1, :2]),
    ),
    "one element of a list written twice": (
        lambda x: torch._foreach_exp_([x[0], x[1]]),
        lambda x: torch._foreach_exp_([x[0, :1].expand(4), x[1]]),
    ),
    "dtype": (lambda x: x.sum(0, dtype=torch.float64), lambda x: x[:2].sum(0, dtype=torch.float8_e4m3fn)),
    "dtypes in a list": (
        lambda x: torch._foreach_sub_([x[0].long(), x[1], x[2]], [x[0].long(), x[1], x[2]]),
        lambda x: torch._foreach_sub_([x[0].long(), x[1].long(), x[2]], [x[0].long(), x[1], x[2]]),
    ),
    "imaginary part": (lambda x: x.masked_fill_(x > 0, 1 + 0j), lambda x: x[0].masked_fill_(x[0] > 0, 1 + 1j)),
    "an unsigned number": (lambda x: x.to(torch.uint16).fill_(7), lambda x: x.to(torch.uint16).fill_(70000)),
    "a kind of margin": (lambda x: margin(x, 1), lambda x: margin(x, 3)),
    "windows' gradient": (lambda x: aten.unfold_backward(x, [5], 0, 3, 1), lambda x: aten.unfold_backward(x, [5], 0, 3, 0)),
    "a half's gradient": (lambda x: aten.glu_backward(x, torch.cat([x, x], 1), 1), lambda x: aten.glu_backward(x, x, 1)),
    "sigmoid's buffer": (lambda x: aten.log_sigmoid_backward(x, x, x), lambda x: aten.log_sigmoid_backward(x, x, x[:2])),
    "a pool's dilation": (lambda x: volume_gradient(x, 1), lambda x: volume_gradient(x, -1)),
    "groups' moments": (lambda x: group_gradient(x, x[:1, :1]), lambda x: group_gradient(x, x)),
    "a distance's mode": (lambda x: aten._cdist_forward(x, x, 2.0, 1), lambda x: aten._cdist_forward(x, x, 2.0, 7)),
    "a grid's mode": (lambda x: sampled(x, 1), lambda x: sampled(x, 2)),
    "what to find in what": (lambda x: torch.isin(x.long(), x.long()), lambda x: torch.isin(x[0].long().repeat(9), x[:2].long().t())),
    "range": (lambda x: torch.histogram(x, 4, range=(0.0, 1.0)), lambda x: torch.histogram(x, 4, range=(2.0, 1.0))),
}


def margin(x, p):
    return aten.multi_margin_loss(x, torch.arange(3, device=x.device), p, 1.0)


def volume_gradient(x, dilation):
    return aten.max_pool3d_with_indices_backward(x[None, None, None], x[None, None, None], [1], [1], [0], [dilation], False, x[None, None, None].long())


def group_gradient(x, moments):
    return aten.native_group_norm_backward(x[None, None], x[None, None], moments, moments, None, 1, 1, 9, 1, [True, False, False])


def sampled(x, mode):
    return aten.grid_sampler_3d(x[None, None, None], x[:1].reshape(1, 1, 1, 1, 3), mode, 0, False)


def assigned(x, index, value):
    x[index] = value
    return x


def places(x, n):
    return torch.arange(n, device=x.device)


@pytest.mark.parametrize("good, bad", REFUSED.values(), ids=REFUSED)
def test_what_the_cpu_refuses_is_refused_at_the_call(good, bad, device):
    x = torch.arange(9.0).reshape(3, 3)
    for _ in range(2):
        check(good, x.clone(), device=device)
        assert check(bad, x.clone(), device=device) is None
    torch.openreg.synchronize(device)


def test_a_reduction_that_is_none_is_none_for_known_signatures_too(device):
    for n in (3, 4):
        check(lambda x, n=n: aten.huber_loss(x, x + 1, 100 if n == 4 else 1, 1.0), torch.arange(float(n)), device=device)


def test_a_mask_that_decides_how_many_values_fit_waits(device):
    def call(mask):
        x = torch.zeros(4, device=mask.device)
        x[mask] = torch.ones(2, device=mask.device)
        return x

    fits, fits_too, too_many = torch.tensor([[True, True, False, False], [False, True, False, True], [True, True, True, False]])
    for mask in (fits, fits_too, too_many, fits):
        check(call, mask, device=device)


def test_a_mask_that_says_where_one_value_goes_does_not_wait(device):
    x = torch.arange(6.0, device=device)
    for size in (4, 5, 6):
        torch.openreg.reset_op_stats()
        x[:size][x[:size] > 2] = 0.0
        x[:size][x[:size] > 1] = torch.tensor(1.5, device=device)
    assert waiting() == []
    assert x.tolist() == [0, 1, 1.5, 0, 0, 0]


def test_deterministic_algorithms_are_part_of_what_is_known(device):
    def call(x):
        return torch.zeros(3, device=x.device).put_(torch.tensor([0, 1], device=x.device), x, accumulate=False)

    x = torch.ones(2)
    check(call, x, device=device)
    torch.use_deterministic_algorithms(True)
    try:
        check(call, x, device=device)
    finally:
        torch.use_deterministic_algorithms(False)
    torch.openreg.synchronize(device)


def test_a_kernel_that_warns_warns_every_time(device):
    def warned(x):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            x.std()
        return len(caught)

    one, two = torch.ones(1, device=device), torch.ones(2, device=device)
    assert [warned(two), warned(one), warned(one), warned(two)] == [0, 1, 1, 0]


# A child process runs a sample of the operator database with every answer of the engine compared.
CHECKED = """
import warnings
import torch, torch_openreg
from torch.testing._internal.common_methods_invocations import op_db
from torch_openreg.testing.conformance import samples

warnings.simplefilter("ignore")
torch.set_num_threads(1)
device, wrong, asked = torch.device("openreg:1"), [], 0
for op in op_db[{part}::{parts}]:
    for dtype in (torch.float32, torch.int64, torch.complex64):
        if dtype not in op.dtypes:
            continue
        drawn = list(op.sample_inputs("cpu", dtype, requires_grad=op.supports_autograd and dtype.is_floating_point))
        for index in range(0, len(drawn), max(1, len(drawn) // 4)):
            copy = samples.copy_sample(drawn[index], device)
            try:
                outputs = [t for t in samples.tensors(op(copy.input, *copy.args, **copy.kwargs)) if t.requires_grad and t.is_floating_point()]
                if outputs:
                    torch.autograd.backward([t.sum() for t in outputs])
                asked += 1
            except Exception as error:
                if "function says" in str(error) or "its metadata say" in str(error):
                    wrong.append((op.full_name, str(dtype), index, str(error)))
print(asked)
assert asked > 50 and not wrong, wrong
"""


# Every other part by default; `pytest -m slow tests/aten/test_metadata.py` runs the rest.
@pytest.mark.parametrize("part", [pytest.param(part, marks=[pytest.mark.slow] * (part % 2)) for part in range(6)])
def test_inferred_metadata_are_those_of_the_kernels(part, python):
    python(CHECKED.format(part=part, parts=6), env={"OPENREG_CHECK_METADATA": "1"}, timeout=300)
