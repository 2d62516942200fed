"""Quantized tensors: quantizers, views, copies, operators with packed parameters and fake quantization, against the CPU.

Needs the built extension. Operands are made on the CPU's values in each function, because a quantized tensor has its own way across.
"""

import copy
import io
import pickle
import warnings

import pytest
import torch
import torch.nn.functional as F
from parity import check, check_gradients, ways

import torch_openreg  # noqa: F401  (registers the device)

pytestmark = pytest.mark.filterwarnings("ignore")
DTYPES = [torch.quint8, torch.qint8, torch.qint32]


def per_tensor(x, dtype=torch.quint8, scale=0.05, zero_point=10):
    return torch.quantize_per_tensor(x, scale, zero_point, dtype)


def per_channel(x, dtype=torch.qint8, axis=0, floats=False):
    count = x.shape[axis]
    scales = torch.linspace(0.01, 0.1, count, device=x.device)
    zero_points = torch.arange(count, device=x.device) / 2 if floats else torch.arange(count, device=x.device)
    return torch.quantize_per_channel(x, scales, zero_points, axis, dtype)


def parts(q):
    """What a quantized tensor is, as plain tensors and numbers that `check` compares. Any other value as it is."""
    if isinstance(q, (list, tuple)):
        return [parts(element) for element in q]
    if not isinstance(q, torch.Tensor) or not q.is_quantized:
        return q
    facts = [str(q.dtype), str(q.qscheme()), tuple(q.shape), q.stride(), q.int_repr(), q.dequantize()]
    if q.qscheme() == torch.per_tensor_affine:
        return [*facts, q.q_scale(), q.q_zero_point()]
    return [*facts, q.q_per_channel_scales(), q.q_per_channel_zero_points(), q.q_per_channel_axis()]


def check_quantized(function, *args, device, **kwargs):
    return check(lambda *a: parts(function(*a)), *args, device=device, **kwargs)


X = torch.linspace(-1, 1, 24).view(4, 6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values_are_quantized_and_back(dtype, device):
    check_quantized(lambda x: per_tensor(x, dtype), X, device=device)
    for axis in (0, 1):
        check_quantized(lambda x: per_channel(x, dtype, axis), X, device=device)
    check_quantized(lambda x: per_tensor(x, dtype, zero_point=3), X.t(), device=device)
    check_quantized(lambda x: per_tensor(x, dtype)[:, ::2], X, device=device)


def test_other_ways_to_quantize(device):
    check_quantized(lambda x: per_channel(x, torch.quint8, floats=True), X, device=device)
    check_quantized(lambda x: torch.quantize_per_tensor(x, torch.tensor(0.1).to(x.device), torch.tensor(2).to(x.device), torch.quint8), X, device=device)
    check_quantized(lambda x: torch.quantize_per_tensor_dynamic(x, torch.qint8, True), X, device=device)
    check_quantized(lambda x: torch.quantize_per_tensor([x, -x], x.new_tensor([0.1, 0.2]), x.new_tensor([1, 2]).long(), torch.quint8), X, device=device)
    check_quantized(lambda x: torch.dequantize([per_tensor(x), per_tensor(-x)]), X, device=device)
    check_quantized(lambda x: torch._make_per_tensor_quantized_tensor(x, 0.1, 2), X.to(torch.uint8), device=device)
    check_quantized(lambda x: torch._empty_affine_quantized((2, 3), scale=0.1, zero_point=2, dtype=torch.quint8, device=x.device).fill_(1), X, device=device)
    check_quantized(lambda x: torch.empty_quantized((2, 3), per_tensor(x), device=x.device).fill_(1), X, device=device)


def test_two_elements_in_a_byte_travel(device):
    q = per_channel(X, torch.quint4x2, floats=True)
    there = q.to(device)
    assert there.device == device and torch.equal(there.cpu().int_repr(), q.int_repr())
    assert torch.equal(there.dequantize().cpu(), q.dequantize())
    assert torch.equal(per_channel(X.to(device), torch.quint4x2, floats=True).cpu().int_repr(), q.int_repr())


def test_what_cannot_be_quantized_is_the_cpus_error(device):
    for function in (
        lambda x: per_tensor(x, zero_point=300),
        lambda x: per_tensor(x.double()),
        lambda x: per_tensor(x, torch.float32),
        lambda x: torch.quantize_per_channel(x, torch.ones(3).to(x.device), torch.zeros(3).long().to(x.device), 0, torch.qint8),
        lambda x: per_channel(x).q_scale(),
        lambda x: per_tensor(x).to(torch.float32),
        lambda x: torch.empty_like(x).copy_(per_tensor(x)),
        lambda x: per_tensor(x).copy_(per_channel(x, torch.quint8)),
        lambda x: per_channel(x).resize_(2, 2),
        lambda x: per_channel(x).view(-1).dequantize(),
        lambda x: torch._empty_affine_quantized((2,), scale=0.1, zero_point=2, dtype=torch.float32, device=x.device),
    ):
        check(function, X, device=device)


VIEWS = {
    "transposed": lambda q: q.t(), "viewed": lambda q: q.view(2, 12), "row": lambda q: q[1], "columns": lambda q: q[:, 1:3],
    "selected": lambda q: q.select(1, 2), "unsqueezed": lambda q: q.unsqueeze(1), "squeezed": lambda q: q[:1].squeeze(), "flat": lambda q: q.t().reshape(24),
    "unfolded": lambda q: q.unfold(1, 2, 2), "chunks": lambda q: q.chunk(2), "expanded": lambda q: q[:1].expand(3, 6),
    "permuted": lambda q: q.view(2, 2, 6).permute(2, 0, 1), "unbound": lambda q: q.unbind(), "narrowed": lambda q: q.narrow(0, 1, 2),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_share_memory(name, device):
    check_quantized(lambda x: VIEWS[name](per_tensor(x)), X, device=device)
    q = per_tensor(X.to(device))
    view = VIEWS[name](q)
    view = view[0] if isinstance(view, (tuple, list)) else view
    assert name == "flat" or view.untyped_storage().data_ptr() == q.untyped_storage().data_ptr()


OPERATORS = {
    "cat": lambda x: torch.cat([per_tensor(x), per_tensor(-x, scale=0.1)]), "clone": lambda x: per_tensor(x).clone(), "per channel clone": lambda x: per_channel(x).clone(),
    "contiguous": lambda x: per_tensor(x).t().contiguous(), "equal": lambda x: torch.equal(per_tensor(x), per_tensor(x.clone())),
    "eq": lambda x: per_tensor(x) == per_tensor(x.abs()), "less": lambda x: per_tensor(x) < 0.3, "relu": lambda x: per_tensor(x).relu(), "relu_": lambda x: per_tensor(x).relu_(),
    "sigmoid": lambda x: per_tensor(x).sigmoid(), "tanh": lambda x: per_tensor(x).tanh(), "gelu": lambda x: F.gelu(per_tensor(x)), "clamp": lambda x: per_tensor(x).clamp(-0.2, 0.3),
    "hardtanh_": lambda x: F.hardtanh_(per_tensor(x)), "mean": lambda x: per_tensor(x).mean(1), "max": lambda x: tuple(per_tensor(x).max(1)), "sort": lambda x: tuple(per_tensor(x).sort(1)),
    "topk": lambda x: tuple(per_tensor(x).topk(2)), "flip": lambda x: per_tensor(x).flip(0), "index": lambda x: per_tensor(x)[torch.tensor([0, 2]).to(x.device)],
    "max_pool2d": lambda x: F.max_pool2d(per_tensor(x)[None], 2), "avg_pool2d": lambda x: F.avg_pool2d(per_tensor(x)[None], 2),
    "interpolate": lambda x: F.interpolate(per_tensor(x)[None, None], scale_factor=2), "pad": lambda x: F.pad(per_tensor(x)[None], (1, 1), mode="reflect"),
    "masked_fill_": lambda x: per_tensor(x).masked_fill_(x > 0, 0.5), "index_put_": lambda x: per_tensor(x).index_put_((torch.tensor([0]).to(x.device),), x[1]),
    "set item": lambda x: (lambda q: (q.__setitem__(0, per_tensor(x)[1]), q)[1])(per_tensor(x)), "fill_": lambda x: per_tensor(x).fill_(0.7),
    "copy floats": lambda x: per_tensor(x).copy_(-x), "copy": lambda x: per_tensor(x).copy_(per_tensor(-x, scale=0.3)), "copy channels": lambda x: per_channel(x).copy_(-x),
    "resize_": lambda x: per_tensor(x).resize_(2, 2), "add": lambda x: torch.ops.quantized.add(per_tensor(x), per_tensor(x), 0.1, 3),
    "mul": lambda x: torch.ops.quantized.mul_relu(per_tensor(x), per_tensor(x), 0.1, 3), "matmul": lambda x: torch.ops.quantized.matmul(per_tensor(x, torch.qint8), per_tensor(x.t(), torch.qint8), 0.1, 3),
    "layer_norm": lambda x: torch.ops.quantized.layer_norm(per_tensor(x), [6], x[0], x[1], 1e-5, 0.1, 2), "softmax": lambda x: torch.ops.quantized.softmax(per_tensor(x), 1, 0.1, 2),
    "hardswish": lambda x: torch.ops.quantized.hardswish(per_tensor(x), 0.1, 2), "no kernel": lambda x: per_tensor(x).sqrt(),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name, device):
    for _ in range(2):
        check_quantized(OPERATORS[name], X, device=device)


@pytest.mark.parametrize("make", [per_tensor, per_channel])
def test_tensors_cross_to_the_host_and_between_devices(make, device):
    q, other = make(X), torch.device("openreg", 1 - device.index)
    there = q.to(device)
    assert there.device == device and there.to(other).device == other
    for twin in (there.cpu(), there.to(other).cpu(), there.clone().cpu()):
        assert str(parts(twin)) == str(parts(q))
    if make is per_channel:
        assert there.q_per_channel_scales().device == device
    else:
        assert torch.equal(there[:, 1:3].cpu().int_repr(), q[:, 1:3].int_repr())
        assert torch.equal(torch.empty_like(q).copy_(there).int_repr(), q.int_repr())


@pytest.mark.parametrize("make", [per_tensor, per_channel])
def test_tensors_print_and_are_saved(make, device):
    q = make(X.to(device))
    assert "quantization_scheme" in repr(q) and str(device) in repr(q)
    buffer = io.BytesIO()
    torch.save(q, buffer)
    buffer.seek(0)
    for twin in (copy.deepcopy(q), pickle.loads(pickle.dumps(q)), torch.load(buffer, weights_only=False)):
        assert twin.device == device and str(parts(twin.cpu())) == str(parts(q.cpu()))


@pytest.mark.parametrize("engine", torch.backends.quantized.supported_engines)
def test_packed_parameters_are_host_objects(engine, device):
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = engine
    try:
        ops = torch.ops.quantized

        def linear(x, w):
            packed = ops.linear_prepack(per_tensor(w, torch.qint8, zero_point=0), w[:, 0].contiguous())
            return ops.linear(per_tensor(x), packed, 0.1, 2)

        def conv(x, w):
            packed = ops.conv2d_prepack(per_tensor(w, torch.qint8, zero_point=0), w[:, 0, 0, 0].contiguous(), [1, 1], [1, 1], [1, 1], 1)
            return ops.conv2d(per_tensor(x), packed, 0.1, 2)

        check_quantized(linear, X, torch.randn(5, 6), device=device)
        check_quantized(conv, torch.randn(1, 2, 6, 6), torch.randn(3, 2, 3, 3), device=device)
        packed = ops.linear_prepack(per_tensor(X, torch.qint8, zero_point=0).to(device), torch.ones(4, device=device))
        assert ops.linear_unpack(packed)[0].device.type == "cpu"
    finally:
        torch.backends.quantized.engine = before


def test_packed_parameters_outlive_what_they_were_made_of(device):
    ops, weight, bias = torch.ops.quantized, torch.randn(5, 6), torch.randn(5)
    want = ops.linear(per_tensor(X), ops.linear_prepack(per_tensor(weight, torch.qint8, zero_point=0), bias), 0.1, 2)
    packed = ops.linear_prepack(per_tensor(weight.to(device), torch.qint8, zero_point=0), bias.to(device))
    overwriting = [torch.full((5, 6), 9.0, device=device) for _ in range(20)] + [torch.full((5,), 9.0, device=device) for _ in range(20)]
    got = ops.linear(per_tensor(X.to(device)), packed, 0.1, 2)
    assert torch.equal(got.cpu().int_repr(), want.int_repr()) and len(overwriting) == 40


def test_dynamically_quantized_modules_take_device_inputs(device):
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    quantized = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear})
    check(quantized, X, device=device)
    lstm = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(torch.nn.LSTM(6, 4)), {torch.nn.LSTM})[0]
    check(lambda x: lstm(x[:, None])[0], X, device=device)


def test_fake_quantization_and_its_gradients(device):
    x = X.clone().requires_grad_()
    scales, zero_points = torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([1, 2, 3, 4], dtype=torch.int32)
    check_gradients(lambda x: torch.fake_quantize_per_tensor_affine(x, 0.01, 2, 0, 63), x, device=device)
    check_gradients(lambda x, s, z: torch.fake_quantize_per_channel_affine(x, s, z, 0, 0, 255), x, scales, zero_points, device=device)
    learned = [torch.tensor([0.1], requires_grad=True), torch.tensor([2.0], requires_grad=True)]
    check_gradients(lambda x, s, z: torch._fake_quantize_learnable_per_tensor_affine(x, s, z, 0, 255, 1.0), x, *learned, device=device)
    check(lambda x: torch.fake_quantize_per_tensor_affine(x, 0.1, 300, 0, 255), X, device=device)
    check(lambda x: torch.choose_qparams_optimized(x, 24, 200, 0.16, 8), X.flatten(), device=device)


def test_conversions_do_not_wait(device):
    x = X.to(device)
    torch.openreg.reset_op_stats()
    per_channel(per_tensor(x).dequantize()).clone().dequantize()
    counts = torch.openreg.op_stats()
    assert not {name: ways(name) for name in counts if counts[name]["waited"]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.openreg.synchronize(device)
