"""Mixed precision (L4): the dtypes of autocast, its nesting and cache, custom functions, the gradient scaler."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from . import check


def _low(probe) -> torch.dtype:
    """The dtype that autocast takes on this device without being told. Raises NotImplementedError for a device without autocast."""
    if not torch.amp.is_autocast_available(probe.type):
        raise NotImplementedError(f"torch.amp.is_autocast_available({probe.type!r}) is False")
    if probe.type == torch._C._get_privateuse1_backend_name():
        probe.requires("get_amp_supported_dtype")
    return torch.get_autocast_dtype(probe.type)


def _pair(probe, dtype=torch.float32):
    return torch.ones(4, 4, device=probe.device, dtype=dtype), torch.ones(4, 4, device=probe.device, dtype=dtype)


def _name(dtype) -> str:
    return str(dtype).removeprefix("torch.")


@check
def matrix_products_take_the_lower_dtype(probe):
    "Under autocast matrix products, linear layers and convolutions run in the lower dtype, with results of that dtype."
    low = _low(probe)
    a, b = _pair(probe)
    image, kernel = torch.ones(1, 1, 4, 4, device=probe.device), torch.ones(1, 1, 2, 2, device=probe.device)
    calls = {
        "mm": lambda: a @ b,
        "nn.functional.linear": lambda: torch.nn.functional.linear(a, b),
        "nn.functional.conv2d": lambda: torch.nn.functional.conv2d(image, kernel),
        "scaled_dot_product_attention": lambda: torch.nn.functional.scaled_dot_product_attention(a[None, None], a[None, None], a[None, None]),
    }
    with torch.autocast(probe.type):
        for name, call in calls.items():
            found = call().dtype
            probe.expect(found == low, f"{name} gives {_name(found)} under autocast, expected {_name(low)}")
    probe.expect((a @ b).dtype == torch.float32, "mm gives the lower dtype after the end of autocast")
    for dtype in (torch.bfloat16, torch.float16):
        if dtype in _supported(probe):
            with torch.autocast(probe.type, dtype=dtype):
                found = (a @ b).dtype
            probe.expect(found == dtype, f"mm gives {_name(found)} under autocast to {_name(dtype)}")


def _supported(probe) -> list[torch.dtype]:
    asked = getattr(probe.module, "get_amp_supported_dtype", None)
    return asked() if asked else [torch.get_autocast_dtype(probe.type)]


@check
def sensitive_operators_take_float32(probe):
    "Under autocast operators that lose precision, softmax with losses and norms, run in float32."
    low = _low(probe)
    a, b = _pair(probe, low)
    calls = {
        "nn.functional.mse_loss": lambda: torch.nn.functional.mse_loss(a, b),
        "nn.functional.smooth_l1_loss": lambda: torch.nn.functional.smooth_l1_loss(a, b),
    }
    if probe.type != "cpu":
        calls |= {"softmax": lambda: a.softmax(0), "exp": lambda: a.exp(), "sum": lambda: a.sum()}
    with torch.autocast(probe.type):
        for name, call in calls.items():
            found = call().dtype
            probe.expect(found == torch.float32, f"{name} of {_name(low)} gives {_name(found)} under autocast, expected float32")


@check
def mixed_operands_take_the_wider_dtype(probe):
    "Under autocast operators with several tensors, as cat and stack, promote to the widest dtype among them."
    low = _low(probe)
    wide, narrow = torch.ones(2, 2, device=probe.device), torch.ones(2, 2, device=probe.device, dtype=low)
    with torch.autocast(probe.type):
        for name, call in {"cat": lambda: torch.cat([narrow, wide]), "stack": lambda: torch.stack([narrow, wide])}.items():
            found = call().dtype
            probe.expect(found == torch.float32, f"{name} of {_name(low)} and float32 gives {_name(found)} under autocast, expected float32")


@check
def autocast_regions_nest(probe):
    "A region inside another wins; the outer one, and none, are back at its end, also after an exception."
    low = _low(probe)
    a, b = _pair(probe)
    with torch.autocast(probe.type):
        try:
            with torch.autocast(probe.type, enabled=False):
                found = (a @ b).dtype
                raise KeyError
        except KeyError:
            probe.expect(found == torch.float32, f"mm gives {_name(found)} where autocast is off inside, expected float32")
        probe.expect((a @ b).dtype == low, "the outer region is gone after an exception in the inner one")
    probe.expect(not torch.is_autocast_enabled(probe.type), "autocast is still on after its end")


class _Casts(TorchDispatchMode):
    """Counts the conversions of dtype that reach the device."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._to_copy.default
        return function(*args, **(kwargs or {}))


@check
def a_weight_is_cast_once_in_a_region(probe):
    "Autocast keeps the cast of a weight for its region, and not when cache_enabled=False."
    _low(probe)
    weight, x = torch.ones(4, 4, device=probe.device, requires_grad=True), torch.ones(4, 4, device=probe.device)
    found = []
    for cached in (True, False):
        with _Casts() as casts, torch.autocast(probe.type, cache_enabled=cached):
            y = (x @ weight) @ weight
        y.sum().backward()
        found.append(casts.count)
    probe.expect(found == [2, 3], f"input and weight took {found[0]} casts with the cache and {found[1]} without, expected 2 and 3")


@check
def gradients_under_autocast_have_the_weights_dtype(probe):
    "A backward of an autocast forward gives float32 gradients to float32 weights."
    _low(probe)
    module, x = torch.nn.Linear(4, 4).to(probe.device), torch.ones(2, 4, device=probe.device)
    with torch.autocast(probe.type):
        loss = module(x).float().sum()
    loss.backward()
    found = module.weight.grad
    probe.expect(found.dtype == torch.float32, f"the gradient of a float32 weight is {_name(found.dtype)}")
    probe.expect(bool((found.cpu() == 2).all()), f"the gradient is {found.flatten()[0].item():g}, expected 2")


@check
def custom_functions_choose_their_precision(probe):
    "torch.amp.custom_fwd(cast_inputs=float32) runs the forward outside of autocast, and custom_bwd the backward likewise."
    _low(probe)
    seen = []

    class Precise(torch.autograd.Function):
        @staticmethod
        @torch.amp.custom_fwd(device_type=probe.type, cast_inputs=torch.float32)
        def forward(ctx, x, weight):
            ctx.save_for_backward(x, weight)
            seen.append((x.dtype, torch.is_autocast_enabled(probe.type), (x @ weight).dtype))
            return x @ weight

        @staticmethod
        @torch.amp.custom_bwd(device_type=probe.type)
        def backward(ctx, gradient):
            x, weight = ctx.saved_tensors
            seen.append((gradient.dtype, torch.is_autocast_enabled(probe.type), (gradient @ weight.t()).dtype))
            return gradient @ weight.t(), x.t() @ gradient

    a, b = (tensor.requires_grad_() for tensor in _pair(probe))
    with torch.autocast(probe.type):
        (Precise.apply(a * 1, b)).sum().backward()
    for name, found in zip(("forward", "backward"), seen):
        probe.expect(found == (torch.float32, False, torch.float32), f"the {name} saw {found}, expected float32 and no autocast")


def _scaler(probe, **options):
    scaler = torch.amp.GradScaler(probe.type, init_scale=8.0, **options)
    if not scaler.is_enabled():
        raise NotImplementedError(f"torch.amp.GradScaler({probe.type!r}) is not enabled: is {probe.type} available?")
    return scaler


def _step(probe, scaler, gradient: float):
    """One scaled step of SGD for the loss `weight * gradient`. Returns the weight, which was 1, afterwards."""
    weight = torch.ones(3, device=probe.device, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.5)
    scaler.scale((weight * gradient).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    return weight.detach().cpu()[0].item()


@check
def a_scaler_skips_steps_with_infinities(probe):
    "GradScaler leaves out a step whose gradients have an infinity or a NaN, and halves its scale."
    for bad in (float("inf"), float("nan")):
        scaler = _scaler(probe)
        weight = _step(probe, scaler, bad)
        probe.expect(weight == 1, f"a step with a gradient of {bad} changed the weight to {weight:g}")
        probe.expect(scaler.get_scale() == 4, f"the scale after a gradient of {bad} is {scaler.get_scale():g}, expected 4")


@check
def a_scaler_unscales_and_grows(probe):
    "GradScaler divides gradients by the scale before a step, and doubles the scale after growth_interval good steps."
    scaler = _scaler(probe, growth_interval=2)
    found = [(_step(probe, scaler, 1.0), scaler.get_scale()) for _ in range(2)]
    probe.expect(found == [(0.5, 8), (0.5, 16)], f"weight and scale after two steps of 0.5 are {found}, expected (0.5, 8) and (0.5, 16)")


@check
def a_scaler_is_saved_and_loaded(probe):
    "GradScaler's state goes through state_dict to another scaler, which goes on from there."
    scaler, other = _scaler(probe, growth_interval=2), _scaler(probe, growth_interval=5)
    _step(probe, scaler, 1.0)
    other.load_state_dict(scaler.state_dict())
    _step(probe, other, 1.0)
    probe.expect(other.get_scale() == 16, f"a loaded scaler has the scale {other.get_scale():g} one step before it grows, expected 16")
