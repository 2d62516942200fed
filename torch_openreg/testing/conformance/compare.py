"""Compares what the device returned with what the CPU returned.

`compare` raises Mismatch with a sentence that names the place (`output[1]`), what was found and what was expected.
It reads device tensors through `.cpu()`; an error of that copy is the device's and passes through.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.testing._comparison import default_tolerances
from torch.testing._internal.common_device_type import precisionOverride, toleranceOverride
from torch.testing._internal.opinfo.core import DecorateInfo

# Tests of PyTorch's own suite that run an operator twice and compare: their tolerances are the ones that fit here.
COMPARING_TESTS = ("test_compare_cpu", "test_noncontiguous_samples", "test_variant_consistency_eager", "test_out")
# A correct implementation in few bits may round a few times more or less, or in another order, and a gradient sums
# many such terms: 8 units of the dtype's precision, 16 for derivatives, relative and absolute.
UNITS = {"gradient": 16, "gradgrad": 16, "forward_ad": 16, "func": 16}
OTHER_UNITS = 8
# Second derivatives sum more terms than the tolerances of the dtypes with more bits are made for, and terms as large as the largest element
# cancel out in small ones: 16 units of that are allowed everywhere.
SECOND_UNITS, MORE_BITS = 64, {torch.float32: 2**-23, torch.complex64: 2**-23}
FEW_BITS = {torch.float16: 2**-10, torch.bfloat16: 2**-7, torch.complex32: 2**-10}
MOMENTS_FROM = 64  # elements that a random output needs before its mean says anything
NARROW_FLOATS = tuple(
    getattr(torch, name)
    for name in ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")
    if hasattr(torch, name)
)


class Tolerance(NamedTuple):
    """How far an element may be from the CPU's: rtol times its size, and the larger of atol and of_largest times the largest element."""

    rtol: float = 0.0
    atol: float = 0.0
    of_largest: float = 0.0

    def widened(self, other: Tolerance) -> Tolerance:
        return Tolerance(*map(max, self, other))


class Mismatch(AssertionError):
    """The device's result differs from the CPU's; the message says where and how."""


@dataclass(frozen=True)
class Rules:
    """What a comparison looks at.

    values: "close", or "none" for results that nobody can predict (uninitialised), or "random" for finiteness and mean.
    floors: dtype -> least tolerance, from the operator's own entry.
    """

    device: torch.device
    values: str = "close"
    strides: bool = True
    floors: tuple[tuple[torch.dtype, Tolerance], ...] = ()


def operator_tolerances(op, mode: str):
    """The least tolerances for an operator: the entry's own for comparing tests, on any device type, widest first.

    Tolerances given for one device type count too: they say how far two correct implementations are apart.
    """
    units = UNITS.get(mode, OTHER_UNITS)
    floors = {dtype: Tolerance(units * unit, units * unit) for dtype, unit in FEW_BITS.items()}
    if mode == "gradgrad":
        floors |= {dtype: Tolerance(SECOND_UNITS * unit, SECOND_UNITS * unit, units * unit) for dtype, unit in MORE_BITS.items()}
    for info in op.decorators:
        if isinstance(info, DecorateInfo):
            if info.test_name not in (None, *COMPARING_TESTS) or info.active_if is False:
                continue
            found = info.decorators
        else:
            found = [info]
        for decorator in found:
            if isinstance(decorator, toleranceOverride):
                widths = {dtype: Tolerance(tol.rtol, tol.atol) for dtype, tol in decorator.d.items()}
            elif isinstance(decorator, precisionOverride):
                widths = {dtype: Tolerance(atol=atol) for dtype, atol in decorator.d.items()}
            else:
                continue
            for dtype, width in widths.items():
                floors[dtype] = floors.get(dtype, Tolerance()).widened(width)
    return tuple(floors.items())


def compare(expected, actual, rules: Rules, where: str = "output") -> None:
    """Raises Mismatch unless `actual`, from the device, is what `expected`, from the CPU, says."""
    if isinstance(expected, torch.Tensor):
        if not isinstance(actual, torch.Tensor):
            raise Mismatch(f"{where}: {type(actual).__name__}, expected a tensor")
        _compare_tensor(expected, actual, rules, where)
    elif isinstance(expected, (list, tuple)) and not isinstance(expected, torch.Size):
        if not isinstance(actual, (list, tuple)) or len(actual) != len(expected):
            raise Mismatch(f"{where}: {_describe(actual)}, expected {_describe(expected)}")
        for index, (left, right) in enumerate(zip(expected, actual)):
            compare(left, right, rules, f"{where}[{index}]")
    elif isinstance(expected, dict):
        if not isinstance(actual, dict) or expected.keys() != actual.keys():
            raise Mismatch(f"{where}: {_describe(actual)}, expected {_describe(expected)}")
        for key, left in expected.items():
            compare(left, actual[key], rules, f"{where}[{key!r}]")
    elif isinstance(expected, torch.device):
        if not same_device(actual, rules.device):
            raise Mismatch(f"{where}: device {actual}, expected {rules.device}")
    else:
        _compare_plain(expected, actual, rules, where)


def same_device(found: torch.device, wanted: torch.device) -> bool:
    return found.type == wanted.type and (wanted.index is None or found.index == wanted.index)


def _describe(value) -> str:
    if isinstance(value, (list, tuple, dict)):
        return f"{type(value).__name__} of {len(value)}"
    return f"{type(value).__name__} {str(value)[:80]}"


def _compare_plain(expected, actual, rules: Rules, where: str) -> None:
    if type(expected) is not type(actual):
        raise Mismatch(f"{where}: {_describe(actual)}, expected {_describe(expected)}")
    if rules.values != "close" and not isinstance(expected, str):
        return
    if isinstance(expected, (float, complex)):
        _assert_close(torch.tensor(expected, dtype=torch.complex64 if isinstance(expected, complex) else torch.float32),
                      torch.tensor(actual, dtype=torch.complex64 if isinstance(expected, complex) else torch.float32), rules, where)
    elif isinstance(expected, (bool, int, str, bytes, torch.Size, torch.dtype, torch.layout)) and expected != actual:
        raise Mismatch(f"{where}: {_describe(actual)}, expected {_describe(expected)}")


def _compare_tensor(expected: torch.Tensor, actual: torch.Tensor, rules: Rules, where: str) -> None:
    if not same_device(actual.device, rules.device):
        raise Mismatch(f"{where}: device {actual.device}, expected {rules.device}")
    for name in ("dtype", "layout", "requires_grad"):
        found, wanted = getattr(actual, name), getattr(expected, name)
        if found != wanted:
            raise Mismatch(f"{where}: {name} {found}, expected {wanted}")
    if expected.is_nested:
        compare(list(expected.unbind()), list(actual.unbind()), rules, where)
        return
    if actual.shape != expected.shape:
        raise Mismatch(f"{where}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}")
    if rules.strides and expected.layout == torch.strided and _strides(expected) != _strides(actual):
        raise Mismatch(f"{where}: strides {actual.stride()}, expected {expected.stride()} for shape {tuple(expected.shape)}")
    if rules.values == "none":
        return
    value, reference = actual.detach().cpu(), expected.detach()
    if rules.values == "random":
        _compare_random(reference, value, where)
    else:
        _assert_close(reference, value, rules, where)


def _strides(tensor: torch.Tensor) -> list[int]:
    """The strides that mean something: those of dimensions with more than one element, none for an empty tensor."""
    if tensor.numel() == 0:
        return []
    return [stride for size, stride in zip(tensor.shape, tensor.stride()) if size > 1]


def _assert_close(expected: torch.Tensor, actual: torch.Tensor, rules: Rules, where: str) -> None:
    dtype = expected.dtype
    tolerance = Tolerance(*default_tolerances(dtype))
    for narrow, floor in rules.floors:
        if narrow == dtype:
            tolerance = tolerance.widened(floor)
    if dtype in NARROW_FLOATS:
        expected, actual = expected.float(), actual.float()
    elif dtype == torch.complex32:
        expected, actual = _widened(expected), _widened(actual)
    if expected.layout == torch.strided and not expected.is_quantized and torch.equal(expected, actual):
        return
    atol = tolerance.atol
    if tolerance.of_largest and expected.layout == torch.strided and expected.numel():
        finite = expected.abs()[expected.isfinite()]
        atol = max(atol, tolerance.of_largest * float(finite.max()) if finite.numel() else 0.0)
    try:
        torch.testing.assert_close(actual, expected, rtol=tolerance.rtol, atol=atol, equal_nan=True, check_stride=False)
    except AssertionError as error:
        text = " ".join(str(error).split())
        raise Mismatch(f"{where}: {text}") from None


def _widened(tensor: torch.Tensor) -> torch.Tensor:
    """complex32 as complex64; the CPU has no kernel that conjugates and negates complex32 at once."""
    return -torch._neg_view(tensor).to(torch.complex64) if tensor.is_neg() else tensor.to(torch.complex64)


def _compare_random(expected: torch.Tensor, actual: torch.Tensor, where: str) -> None:
    if expected.layout != torch.strided or not expected.numel() or expected.is_quantized:
        return
    left, right = (_as_doubles(tensor) for tensor in (expected, actual))
    if bool(left.isfinite().all()) and not bool(right.isfinite().all()):
        raise Mismatch(f"{where}: random values that are not finite, the CPU's are")
    left, right = left[left.isfinite()], right[right.isfinite()]
    if min(left.numel(), right.numel()) < MOMENTS_FROM:
        return
    # The tails are cut where the CPU's sample has its outermost fortieths, so that a mean exists for every distribution.
    low, high = left.quantile(0.025), left.quantile(0.975)
    left, right = left.clamp(low, high), right.clamp(low, high)
    allowed = 8 * ((left.var() + right.var()) / min(left.numel(), right.numel())).sqrt() + 1e-6
    if (left.mean() - right.mean()).abs() > allowed:
        raise Mismatch(f"{where}: random values with mean {right.mean():.4g}, the CPU's have {left.mean():.4g}")


def _as_doubles(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.to(torch.complex64).resolve_conj())
    return tensor.double().flatten()
