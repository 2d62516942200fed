"""`out`: the call with `out=` of the right size, of a wrong one, empty, strided, of other dtypes and on the wrong device.

Compared are values, sizes, strides and offset of the tensors given, whether they are what the call returns, warnings, errors.
"""

from dataclasses import replace

import torch
from torch.testing._comparison import default_tolerances
from torch.testing._internal.opinfo.core import DecorateInfo

from .. import samples as sampling
from ..attempt import attempt
from ..calls import CPU, CpuCannot, on_device, reference
from ..compare import Mismatch, Tolerance

# What a call may be asked to write into, besides its own dtype: one that loses, one that fits.
OTHER_DTYPES = {"bool": (torch.uint8, torch.float32), "integer": (torch.bool, torch.float32), "float": (torch.int64, torch.float64),
                "complex": (torch.float32, torch.complex128)}  # fmt: skip
# Operators whose CPU kernel writes outside of its memory when a batched result is transposed; the CPU gives no reference for that.
UNSAFE_ON_CPU = {"tril", "triu", "lu_unpack", "linalg.lu"}


def run(case) -> None:
    result = _result(case)
    tensors = [result] if isinstance(result, torch.Tensor) else list(result)
    case = replace(case, floors=_floors(case.floors, tensors[0].dtype))
    for variant, change in _variants(tensors[0].dtype).items():
        if case.info.name in UNSAFE_ON_CPU and variant == "transposed out":
            continue
        try:
            outs = [change(tensor) for tensor in tensors]
        except _DoesNotApply:
            continue
        case.agree(_form(case, outs, isinstance(result, torch.Tensor)), variant, warn=True, twice=True)
    if case.under_test.device.type != "cpu" and not _leaves_the_device_open(case.info):
        _wrong_device(case, tensors, isinstance(result, torch.Tensor))


def _floors(floors, computed: torch.dtype) -> tuple:
    """The tolerances with those of the dtype that is computed for the wider dtype it may be written to."""
    wider = {torch.float32: torch.float64, torch.complex64: torch.complex128}.get(computed)
    if wider is None:
        return floors
    own = [Tolerance(*default_tolerances(computed)), *(floor for dtype, floor in floors if dtype == computed)]
    return (*floors, *((wider, floor) for floor in own))


class _DoesNotApply(Exception):
    """The variant does not exist for this result."""


def _result(case):
    """The CPU's result without `out=`. Raises CpuCannot."""
    copy = sampling.copy_sample(case.sample, CPU)
    sampling.seed_everything(case.seed)
    found = attempt(lambda: case.info(copy.input, *copy.args, **copy.kwargs))
    if found.error is not None:
        raise CpuCannot from found.error
    items = [found.value] if isinstance(found.value, torch.Tensor) else found.value
    if not isinstance(items, (list, tuple)) or not items or not all(_plain(item) for item in items):
        raise CpuCannot from ValueError("the result is not made of strided tensors")
    return found.value


def _plain(item) -> bool:
    return isinstance(item, torch.Tensor) and item.layout == torch.strided and not item.is_nested and not item.is_quantized


def _form(case, outs, single):
    def form(copy, side):
        given = [sampling.copy_tensor(out, side.device) for out in outs]
        returned = case.info(copy.input, *copy.args, **copy.kwargs, out=given[0] if single else tuple(given))
        items = [returned] if isinstance(returned, torch.Tensor) else returned
        return {
            "what is returned": ["out" if item is out else "another tensor" for item, out in zip(items, given)],
            "out": given,
            "offset of out": [str(out.storage_offset()) for out in given],
        }

    return form


def _variants(dtype) -> dict:
    kind = "complex" if dtype.is_complex else "float" if dtype.is_floating_point else "bool" if dtype == torch.bool else "integer"
    other = {f"out of dtype {str(d).removeprefix('torch.')}": lambda t, d=d: _filled(t.shape, d) for d in OTHER_DTYPES[kind] if d != dtype}
    return {
        "right size": lambda t: torch.full_like(t, 1) if t.numel() else torch.empty_like(t),
        "wrong size": lambda t: _filled((2, *t.shape) if t.dim() == 0 else (t.shape[0] + 1, *t.shape[1:]), t.dtype),
        "empty out": lambda t: _filled((0,), t.dtype),
        "strided out": lambda t: _filled((*t.shape, 2), t.dtype)[..., 1],
        "transposed out": _transposed,
        **other,
    }


def _filled(shape, dtype):
    return torch.ones(shape).to(dtype)


def _transposed(tensor):
    if tensor.dim() < 2:
        raise _DoesNotApply
    return _filled(tensor.shape[::-1], tensor.dtype).permute(*reversed(range(tensor.dim())))


def _leaves_the_device_open(info) -> bool:
    """Whether PyTorch's own test of `out=` is known to fail for this entry on every device."""
    return any(isinstance(item, DecorateInfo) and item.test_name == "test_out" and item.device_type is None for item in info.decorators)


def _wrong_device(case, tensors, single) -> None:
    """A result on the device does not go into memory of the CPU."""
    variant = case.stage.variant = "out on the CPU"

    def form(copy, side):
        given = [torch.full_like(t, 1) for t in tensors]
        return {"returned": case.info(copy.input, *copy.args, **copy.kwargs, out=given[0] if single else tuple(given))}

    if reference(case, form).error is not None:
        return
    found = on_device(case, form, wait=True)
    if found.error is None:
        raise Mismatch(f"{variant}: no error for a call on {case.under_test.device}")
    if found.late or not isinstance(found.error, RuntimeError):
        late = "late, " if found.late else ""
        raise Mismatch(f"{variant}: raises {late}{type(found.error).__name__}: {found.error}; expected RuntimeError at the call")
