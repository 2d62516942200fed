"""Tensor classes over device tensors: dispatch and function subclasses, modes, parametrizations, masked tensors, complex modules.

Needs the built extension.
"""

import pytest
import torch
import torch.nn.functional as F
from parity import check
from torch.masked import masked_tensor
from torch.nn.utils import parametrizations, parametrize
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

import torch_openreg  # noqa: F401  (registers the device)

pytestmark = pytest.mark.filterwarnings("ignore")
X = torch.linspace(-1, 1, 12).view(3, 4)


class Wrapper(torch.Tensor):
    """A tensor that holds another one and computes with it."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, device=inner.device, strides=inner.stride())

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        args, kwargs = tree_map(lambda x: x.inner if isinstance(x, cls) else x, (args, kwargs or {}))
        return tree_map(lambda x: cls(x) if isinstance(x, torch.Tensor) else x, function(*args, **kwargs))


class Tagged(torch.Tensor):
    """A tensor whose results keep its type."""


CALLS = {
    "number": lambda x: x * 2, "matrix": lambda x: x @ x.t(), "sum": lambda x: x.sum(0), "view": lambda x: x.view(12), "split": lambda x: x.split(2, 1)[1], "in place": lambda x: x.clone().mul_(2),
    "cpu scalar": lambda x: x * torch.tensor(2.0), "softmax": lambda x: x.softmax(1), "layer_norm": lambda x: F.layer_norm(x, (4,)), "float64": lambda x: x.double(), "cat": lambda x: torch.cat([x, x]),
    "attention": lambda x: F.scaled_dot_product_attention(x[None, None], x[None, None], x[None, None]), "convolution": lambda x: F.conv2d(x[None, None], x[None, None, :2, :2]),
}


@pytest.mark.parametrize("name", CALLS)
def test_dispatch_subclasses_compute_on_the_device(name, device):
    def wrapped(x):
        result = CALLS[name](Wrapper(x))
        assert isinstance(result, Wrapper) and result.device == result.inner.device
        return result.inner

    def twice(x):
        result = CALLS[name](TwoTensor(x, x + 1))
        return result.a, result.b

    check(wrapped, X, device=device)
    check(twice, X, device=device)


def test_dispatch_subclasses_have_gradients_and_train(device):
    def gradients(x):
        x = TwoTensor(x, x + 1).requires_grad_()
        (x * x).sum().backward()
        return x.grad.a, x.grad.b

    def step(x, w):
        model = torch.nn.Linear(4, 2, bias=False)
        model.weight = torch.nn.Parameter(TwoTensor(w, w + 1))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        model(x).sum().backward()
        optimizer.step()
        return model.weight.a.detach(), model.weight.b.detach()

    check(gradients, X, device=device)
    check(step, X, torch.ones(2, 4), device=device)


def test_function_subclasses_keep_their_type(device):
    tagged = X.as_subclass(Tagged).to(device)
    result = (tagged * 2).softmax(1)
    assert type(tagged) is type(result) is Tagged and result.device == device
    assert type(result.cpu()) is Tagged and torch.allclose(result.cpu().as_subclass(torch.Tensor), (X * 2).softmax(1))


def test_dispatch_modes_see_the_calls_that_they_see_on_the_cpu(device):
    class Log(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    logs = []
    for place in ("cpu", device):
        seen = []
        x, model = X.to(place), torch.nn.Linear(4, 2).to(place)
        with Log():
            model(x).relu().sum().backward()
            x.softmax(1).view(12)
        logs.append(seen)
    assert logs[0] == logs[1] and len(logs[0]) > 5


class Symmetric(torch.nn.Module):
    def forward(self, x):
        return x.triu() + x.triu(1).transpose(-1, -2)


PARAMETRIZATIONS = {
    "own": lambda m: parametrize.register_parametrization(m, "weight", Symmetric()), "weight_norm": parametrizations.weight_norm, "spectral_norm": parametrizations.spectral_norm,
    "old weight_norm": torch.nn.utils.weight_norm, "old spectral_norm": torch.nn.utils.spectral_norm,
    **{kind: lambda m, kind=kind: parametrizations.orthogonal(m, orthogonal_map=kind) for kind in ("matrix_exp", "cayley", "householder")},
}


@pytest.mark.parametrize("name", PARAMETRIZATIONS)
def test_parametrized_modules_train_and_are_made_on_the_device(name, device):
    def train(x):
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 4)
        PARAMETRIZATIONS[name](model)
        model.to(x.device)
        model(x).pow(2).sum().backward()
        gradients = [p.grad.clone() for p in model.parameters()]
        torch.optim.SGD(model.parameters(), 0.1).step()
        return [*gradients, model(x).detach()]

    check(train, X, device=device, rtol=1e-4, atol=1e-5, strides=False)
    model = torch.nn.Linear(4, 4, device=device)
    PARAMETRIZATIONS[name](model)
    assert model(X.to(device)).device == device


MASKED = {
    "sum": lambda m: m.sum(1), "mean": lambda m: m.mean(1), "amax": lambda m: m.amax(1), "prod": lambda m: m.prod(1), "plus": lambda m: m + m, "exp": lambda m: m.exp(),
    "softmax": lambda m: torch.softmax(m, 1), "argmax": lambda m: m.argmax(1),
}


@pytest.mark.parametrize("name", MASKED)
def test_masked_tensors(name, device):
    def call(x, mask):
        result = MASKED[name](masked_tensor(x, mask))
        return result.to_tensor(0), result.get_mask()

    check(call, X, torch.arange(12).view(3, 4) % 3 != 0, device=device)


def test_masked_reductions_and_gradients(device):
    mask = torch.arange(12).view(3, 4) % 3 != 0
    for reduce in (torch.masked.sum, torch.masked.mean, torch.masked.softmax, torch.masked.var, torch.masked.logsumexp, torch.masked.median):
        check(lambda x, m: reduce(x, 1, mask=m), X, mask, device=device)

    def gradient(x, m):
        data = masked_tensor(x, m, requires_grad=True)
        data.sum().backward()
        return data.grad.to_tensor(0)

    check(gradient, X, mask, device=device)


COMPLEX = {
    "linear": (lambda: torch.nn.Linear(4, 3), (2, 4)), "conv1d": (lambda: torch.nn.Conv1d(2, 3, 3), (1, 2, 6)), "conv2d": (lambda: torch.nn.Conv2d(2, 3, 3, padding=1), (1, 2, 6, 6)),
    "transposed": (lambda: torch.nn.ConvTranspose2d(2, 3, 3), (1, 2, 6, 6)), "tanh": (lambda: torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh()), (2, 4)),
}


@pytest.mark.parametrize("name", COMPLEX)
def test_complex_modules_train(name, device):
    make, shape = COMPLEX[name]

    def train(x):
        torch.manual_seed(0)
        model = make().to(torch.complex64).to(x.device)
        y = model(x)
        y.abs().sum().backward()
        return [y.detach(), *[p.grad for p in model.parameters()]]

    check(train, torch.randn(shape, dtype=torch.complex64), device=device, rtol=1e-4, atol=1e-4, strides=False)


FLOAT8 = [torch.float8_e4m3fn, torch.float8_e5m2]


@pytest.mark.parametrize("dtype", [*FLOAT8, torch.uint16, torch.uint32, torch.uint64, torch.complex32], ids=str)
def test_rare_dtypes_have_the_cpus_kernels(dtype, device):
    x = (X.abs() * 50).to(dtype)
    bits = lambda r: r.view(torch.uint8) if r.dtype in FLOAT8 else r  # noqa: E731
    for function in (
        lambda x: bits(x.t().contiguous()), lambda x: bits(torch.cat([x, x])), lambda x: bits(x[torch.tensor([0, 2], device=x.device)]), lambda x: x == x, lambda x: x.to(torch.float32),
        lambda x: bits(x.clone().fill_(2)), lambda x: x + x, lambda x: x.sum(), lambda x: x.sort(), lambda x: bits(torch.where(x == x, x, x)), lambda x: x.max(), lambda x: x.double().to(x.dtype).eq(x),
    ):
        check(function, x, device=device, message=False)


def test_scaled_matrix_products_of_float8(device):
    a, b = torch.randn(16, 32).to(FLOAT8[0]), torch.randn(16, 32).to(FLOAT8[0])
    def product(a, b, scale, **kwargs):
        return torch._scaled_mm(a, b.t(), scale, scale, **kwargs)

    for dtype in (torch.float32, torch.bfloat16):
        check(product, a, b, torch.tensor(0.5), device=device, out_dtype=dtype)
    check(product, a[:, :30], b, torch.tensor(0.5), device=device)
