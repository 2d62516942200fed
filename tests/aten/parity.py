"""What the tests of this folder share: the same call on the CPU and on a device, compared.

`check` compares results, arguments after the call, exceptions; `check_gradients` compares gradients. Everything that a
test passes is copied first, with strides and requires_grad kept, so that the two sides cannot influence each other.
"""

import contextlib

import torch
from torch.utils._pytree import tree_flatten, tree_map


def place(tree, device):
    """A copy of the tensors of a tree on a device: detached leaves with their strides, dtype and requires_grad."""

    def move(leaf):
        if isinstance(leaf, torch.device) or (isinstance(leaf, str) and leaf == "DEVICE"):
            return torch.device(device)
        if not isinstance(leaf, torch.Tensor):
            return leaf
        copy = leaf.detach().clone().to(device)
        if leaf.layout == torch.strided and leaf.dtype == copy.dtype and copy.stride() != leaf.stride():
            strided = torch.empty_strided(leaf.size(), leaf.stride(), dtype=leaf.dtype, device=device)
            copy = strided.copy_(copy)
        return copy.requires_grad_(leaf.requires_grad)

    return tree_map(move, tree)


def outcome(function, args, kwargs):
    """(result, None) or (None, exception)."""
    try:
        return function(*args, **kwargs), None
    except Exception as error:
        return None, error.with_traceback(None)  # whose frames would keep tensors alive


def assert_like(got, want, device, *, rtol=None, atol=None, strides=True):
    """The same structure, dtypes, shapes, strides, layouts, bits and values, on `device`."""
    device = torch.device(device)
    got_leaves, got_spec = tree_flatten(got)
    want_leaves, want_spec = tree_flatten(want)
    assert got_spec == want_spec, f"{got_spec} instead of {want_spec}"
    for mine, expected in zip(got_leaves, want_leaves):
        if not isinstance(expected, torch.Tensor):
            _assert_same_value(mine, torch.device(device) if isinstance(expected, torch.device) else expected, rtol, atol)
            continue
        assert mine.device == device, f"on {mine.device} instead of {device}"
        facts = lambda t: (t.dtype, t.shape, t.layout, t.is_conj(), t.is_neg(), t.requires_grad)  # noqa: E731
        assert facts(mine) == facts(expected), f"{facts(mine)} instead of {facts(expected)}"
        if strides and expected.layout == torch.strided and expected.numel() > 1:
            assert mine.stride() == expected.stride(), f"strides {mine.stride()} instead of {expected.stride()}"
        torch.testing.assert_close(mine.detach().cpu(), expected.detach(), rtol=rtol, atol=atol, equal_nan=True)


def _assert_same_value(mine, expected, rtol, atol):
    if isinstance(expected, (float, complex)):
        torch.testing.assert_close(mine, expected, rtol=rtol, atol=atol, equal_nan=True)
    else:
        assert type(mine) is type(expected) and mine == expected, f"{mine!r} instead of {expected!r}"


def check(function, *args, device, rtol=None, atol=None, strides=True, message=True, seed=0, **kwargs):
    """Runs function(*args, **kwargs) on CPU copies and on device copies of the tensors.

    Both return the same and leave the same in their arguments, or both raise the same type (and text, with `message`).
    Returns the device's result, or None when both raise. The string "DEVICE" among the arguments becomes the device.
    """
    cpu_args, cpu_kwargs = place((args, kwargs), "cpu")
    torch.manual_seed(seed)
    want, cpu_error = outcome(function, cpu_args, cpu_kwargs)
    device_args, device_kwargs = place((args, kwargs), device)
    got, device_error = outcome(function, device_args, device_kwargs)
    if cpu_error is not None or device_error is not None:
        if type(cpu_error) is not type(device_error):
            raise AssertionError(f"{device_error!r} instead of {cpu_error!r}") from (device_error or cpu_error)
        if message:
            text = str(device_error).replace(str(torch.device(device)), "cpu")
            assert text == str(cpu_error), f"{device_error} instead of {cpu_error}"
        return None
    assert_like(got, want, device, rtol=rtol, atol=atol, strides=strides)
    assert_like(device_args, cpu_args, device, rtol=rtol, atol=atol, strides=strides)
    assert_like(device_kwargs, cpu_kwargs, device, rtol=rtol, atol=atol, strides=strides)
    return got


def check_gradients(function, *args, device, rtol=None, atol=None, **kwargs):
    """Runs function and a backward pass with fixed cotangents on both sides; results and gradients of all leaves that require
    them agree. At least one leaf must have a gradient."""
    sides = []
    for place_on in ("cpu", device):
        side_args, side_kwargs = place((args, kwargs), place_on)
        torch.manual_seed(0)
        results = function(*side_args, **side_kwargs)
        leaves = [t for t in tree_flatten((side_args, side_kwargs))[0] if isinstance(t, torch.Tensor) and t.requires_grad]
        outputs = [t for t in tree_flatten(results)[0] if isinstance(t, torch.Tensor) and t.requires_grad]
        generator = torch.Generator().manual_seed(1)
        cotangents = [torch.randn(t.shape, dtype=t.dtype, generator=generator).to(t.device) for t in outputs]
        gradients = torch.autograd.grad(outputs, leaves, cotangents, allow_unused=True)
        sides.append((results, gradients))
    (want, want_gradients), (got, got_gradients) = sides
    assert any(gradient is not None for gradient in want_gradients)
    assert_like(got, want, device, rtol=rtol, atol=atol, strides=False)
    assert_like(list(got_gradients), list(want_gradients), device, rtol=rtol, atol=atol, strides=False)


def ways(name):
    """The ways that calls of one operator took since the last reset, without zeros: {"engine": 1, "waited": 1}."""
    return {way: count for way, count in torch.openreg.op_stats().get(name, {}).items() if count}


@contextlib.contextmanager
def counted():
    """Counts from zero, and yields a function that tells the ways of one operator."""
    torch.openreg.reset_op_stats()
    yield ways
