"""Autocast: which dtypes operators run in, as on any accelerator, and what stays as it is.

Needs the built extension.
"""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import torch_openreg  # noqa: F401  (registers the device)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_matrix_operators_run_in_the_lower_precision(dtype, device):
    x, w = torch.randn(4, 4, device=device), torch.randn(4, 4, device=device)
    image, kernel = torch.randn(1, 2, 5, 5, device=device), torch.randn(3, 2, 3, 3, device=device)
    with torch.autocast("openreg", dtype=dtype):
        for result in (
            torch.nn.Linear(4, 2, device=device)(x),
            x @ w,
            torch.mm(x, w),
            torch.bmm(x[None], w[None]),
            torch.addmm(x, x, w),
            F.linear(x, w),
            F.conv2d(image, kernel),
            F.conv_transpose2d(image, kernel.transpose(0, 1)),
            torch.einsum("ij,jk", x, w),
            F.scaled_dot_product_attention(x[None, None], x[None, None], x[None, None]),
        ):
            assert result.dtype == dtype and result.device == device
    assert (x @ w).dtype == torch.float32


def test_half_is_the_default_as_on_other_accelerators(device):
    with torch.autocast("openreg"):
        assert torch.nn.Linear(4, 2, device=device)(torch.randn(3, 4, device=device)).dtype == torch.float16
        assert torch.get_autocast_dtype("openreg") == torch.float16
        assert torch.is_autocast_enabled("openreg") and not torch.is_autocast_enabled("cpu")


def test_values_are_those_of_an_explicit_conversion(device):
    x, w = torch.randn(8, 8, device=device), torch.randn(8, 8, device=device)
    with torch.autocast("openreg", dtype=torch.bfloat16):
        got = x @ w
    assert torch.equal(got.cpu(), (x.bfloat16() @ w.bfloat16()).cpu())


def test_sensitive_operators_run_in_float32(device):
    x = torch.rand(4, 4, device=device).half()
    target = torch.randint(0, 4, (4,), device=device)
    with torch.autocast("openreg"):
        for result in (x.exp(), x.pow(2), x.log(), x.sum(), x.softmax(1), F.layer_norm(x, (4,)), F.cross_entropy(x, target), F.mse_loss(x, x), x.norm()):
            assert result.dtype == torch.float32
        assert (x + 1).dtype == x.relu().dtype == torch.float16
        assert x.softmax(1, dtype=torch.float64).dtype == torch.float64


def test_mixed_operands_are_widened(device):
    a, b = torch.ones(3, device=device), torch.ones(3, device=device).half()
    with torch.autocast("openreg"):
        assert torch.cat([a, b]).dtype == torch.float32
        assert torch.addcmul(a, b, b).dtype == torch.float32
        assert torch.dot(a, a).dtype in (torch.float16, torch.float32)


def test_operators_that_lose_too_much_are_refused(device):
    x = torch.rand(3, device=device)
    with torch.autocast("openreg"), pytest.raises(RuntimeError, match="unsafe"):
        F.binary_cross_entropy(x, x)
    with torch.autocast("openreg"):
        F.binary_cross_entropy_with_logits(x, x)


def test_integers_and_other_devices_are_left_alone(device):
    with torch.autocast("openreg"):
        assert (torch.ones(2, 2, dtype=torch.int64, device=device) @ torch.ones(2, 2, dtype=torch.int64, device=device)).dtype == torch.int64
        assert (torch.ones(2, 2, dtype=torch.float64, device=device) @ torch.ones(2, 2, dtype=torch.float64, device=device)).dtype == torch.float64
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_parts_can_be_switched_off(device):
    x = torch.ones(2, 2, device=device)
    with torch.autocast("openreg"):
        with torch.autocast("openreg", enabled=False):
            assert (x @ x).dtype == torch.float32
        assert (x @ x).dtype == torch.float16

    @torch.autocast("openreg", dtype=torch.bfloat16)
    def decorated(x):
        return x @ x

    assert decorated(x).dtype == torch.bfloat16 and (x @ x).dtype == torch.float32


def test_weights_are_converted_once_and_gradients_are_float32(device):
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).to(device)
    x, y = torch.randn(5, 4, device=device), torch.randint(0, 2, (5,), device=device)
    scaler = torch.amp.GradScaler("openreg", init_scale=256.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        with torch.autocast("openreg"):
            loss = F.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        assert all(p.grad.dtype == torch.float32 and p.grad.device == device for p in model.parameters())
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert losses[-1] < losses[0] and scaler.get_scale() == 256.0


def test_the_scaler_skips_a_step_with_infinite_gradients(device):
    weight = torch.nn.Parameter(torch.ones(2, device=device))
    scaler = torch.amp.GradScaler("openreg", init_scale=4.0)
    optimizer = torch.optim.SGD([weight], lr=0.1)
    scaler.scale((weight * float("inf")).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert weight.tolist() == [1, 1] and scaler.get_scale() == 2.0


def test_gradients_pass_autocast(device):
    w = torch.randn(3, 3, device=device, requires_grad=True)
    x = torch.randn(3, 3, device=device)
    with torch.autocast("openreg", dtype=torch.bfloat16):
        loss = (x @ w).float().sum()
    loss.backward()
    torch.testing.assert_close(w.grad.cpu(), (x.t() @ torch.ones(3, 3, device=device)).cpu(), rtol=2e-2, atol=2e-2)


def test_every_operator_with_a_policy_on_cuda_has_one_here():
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    names = [name for name in torch._C._dispatch_get_all_op_names() if name.startswith("aten::")]
    there = {name for name in names if has(name, "AutocastCUDA")}
    here = {name for name in names if has(name, "AutocastPrivateUse1")}
    assert there - here == {"aten::cudnn_convolution", "aten::cudnn_convolution_transpose"} and here <= there and len(here) > 100


class Conversions(TorchDispatchMode):
    """Counts conversions to another type."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._to_copy.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("cached,count", [(True, 1), (False, 3)])
def test_a_weight_is_converted_once_where_the_cache_is_on(cached, count, device):
    x = torch.randn(2, 4, device=device, dtype=torch.float16)
    weight = torch.nn.Parameter(torch.randn(4, 4, device=device))
    with Conversions() as conversions, torch.autocast("openreg", cache_enabled=cached):
        for _ in range(3):
            torch.mm(x, weight)
    assert conversions.count == count


def test_a_checkpoint_recomputes_under_the_autocast_of_its_forward(device):
    from torch.utils.checkpoint import checkpoint

    seen = []

    def block(x, w):
        out = x @ w
        seen.append(out.dtype)
        return out.sin()

    w = torch.randn(4, 4, device=device, requires_grad=True)
    for use_reentrant in (False, True):
        seen.clear()
        with torch.autocast("openreg", dtype=torch.bfloat16):
            loss = checkpoint(block, torch.randn(4, 4, device=device, requires_grad=True), w, use_reentrant=use_reentrant).sum()
        loss.backward()
        assert seen == [torch.bfloat16, torch.bfloat16]


def test_compiled_code_follows_autocast(device):
    def step(x, w):
        with torch.autocast("openreg", dtype=torch.bfloat16):
            return torch.softmax(x @ w, 1)

    x, w = torch.randn(4, 4, device=device), torch.randn(4, 4, device=device)
    compiled = torch.compile(step, backend="aot_eager")(x, w)
    assert compiled.dtype == step(x, w).dtype == torch.float32
    torch.testing.assert_close(compiled.cpu(), step(x, w).cpu(), rtol=1e-2, atol=1e-2)


def test_a_function_with_policies_of_its_own(device):
    class Product(torch.autograd.Function):
        @staticmethod
        @torch.amp.custom_fwd(device_type="openreg", cast_inputs=torch.float16)
        def forward(ctx, a, b):
            ctx.save_for_backward(a, b)
            assert a.dtype == b.dtype == torch.float16 and not torch.is_autocast_enabled("openreg")
            return a @ b

        @staticmethod
        @torch.amp.custom_bwd(device_type="openreg")
        def backward(ctx, gradient):
            a, b = ctx.saved_tensors
            assert not torch.is_autocast_enabled("openreg")
            return gradient @ b.t(), a.t() @ gradient

    a, b = (torch.randn(3, 3, device=device, requires_grad=True) for _ in range(2))
    with torch.autocast("openreg"):
        out = Product.apply(a, b)
    out.sum().backward()
    assert out.dtype == torch.float16 and a.grad.dtype == torch.float32
