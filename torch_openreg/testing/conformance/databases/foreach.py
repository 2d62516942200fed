"""The foreach databases: operators on lists of tensors, in every form that they have.

Samples come from the entries (lists, scalars, scalar lists, 0-dim tensors; with empty tensors between others). What the
entries do not have is made here: lists of empty tensors only, tensors with gaps in memory, lists over several dtypes and devices, and
calls that must be refused.
"""

import functools

import torch
from torch.testing._internal import common_methods_invocations as invocations
from torch.testing._internal.common_utils import noncontiguous_like
from torch.testing._internal.opinfo.core import SampleInput

from .. import samples as sampling
from ..calls import CPU
from ..compare import Mismatch, operator_tolerances
from ..modes import gradient

FAMILIES = ("unary", "binary", "pointwise", "reduce", "other")
GRADIENTS_OF = ("gradient", "inplace_gradient")
MIXED_DTYPES = {"float32": torch.float64, "complex64": torch.complex128, "int64": torch.float32, "bfloat16": torch.float32}


@functools.cache
def entries() -> dict:
    found = [info for family in FAMILIES for info in getattr(invocations, f"foreach_{family}_op_db")]
    return {info.name: info for info in found}


def dtypes(info, mode: str) -> list[str]:
    """The dtypes of the entry, which for most are all dtypes; what the CPU cannot run drops out row by row."""
    if mode in INPLACE and info.inplace_variant is None or mode not in INPLACE and not info.supports_out:
        return []
    if mode in GRADIENTS_OF:
        if not (info.supports_autograd if mode == "gradient" else info.supports_inplace_autograd):
            return []
        names = {torch.float32, torch.float64, torch.complex64, torch.complex128, torch.float16, torch.bfloat16}
    elif mode.startswith("mixed"):
        names = {getattr(torch, name) for name in MIXED_DTYPES}
    else:
        names = info.supported_dtypes("cpu")
    return sorted(str(dtype).removeprefix("torch.") for dtype in names if dtype in info.supported_dtypes("cpu"))


def tolerances(info, mode: str):
    return operator_tolerances(info, "gradient" if mode in GRADIENTS_OF else "forward")


def draw(info, dtype: torch.dtype, mode: str, seed: int) -> list[SampleInput]:
    sampling.seed_everything(seed)
    wants_grad = mode in GRADIENTS_OF
    # The entries leave the forms with empty tensors between others to devices whose name is not "cpu".
    given = [_plain(sample) for sample in info.sample_inputs("cpu:0", dtype, requires_grad=wants_grad, set_seed=False)]
    return MAKE.get(mode, lambda info, given, dtype: given)(info, given, dtype)


def _plain(sample) -> SampleInput:
    """The sample without what only PyTorch's own tests of fast paths read."""
    kwargs = {name: value for name, value in sample.kwargs.items() if name != "disable_fastpath"}
    return SampleInput(sample.input, args=tuple(sample.args), kwargs=kwargs)


def _zero_size(info, given, dtype) -> list[SampleInput]:
    """Every tensor of the lists empty."""
    return [sampling.mapped(sample, lambda tensor: tensor.new_empty(0) if tensor.dim() else None) for sample in given]


def _noncontiguous(info, given, dtype) -> list[SampleInput]:
    def gaps(tensor):
        return noncontiguous_like(tensor)

    def transposed(tensor):
        return tensor.t() if tensor.dim() == 2 and info.name != "_foreach_mm" else tensor

    return [sampling.mapped(sample, change) for sample in given for change in (gaps, transposed)]


def _is_tensors(value) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], torch.Tensor)


def _mixed_dtypes(info, given, dtype) -> list[SampleInput]:
    """Every other position in another dtype, and the first list in one dtype with the others in another."""
    other = MIXED_DTYPES[str(dtype).removeprefix("torch.")]

    def alternating(value):
        if _is_tensors(value):
            return [tensor.to(other) if place % 2 else tensor for place, tensor in enumerate(value)]
        return value

    found = []
    for sample in given:
        args = tuple(alternating(arg) for arg in sample.args)
        found.append(SampleInput(alternating(sample.input), args=args, kwargs=dict(sample.kwargs)))
        if any(_is_tensors(arg) for arg in sample.args):
            converted = tuple([tensor.to(other) for tensor in arg] if _is_tensors(arg) else arg for arg in sample.args)
            found.append(SampleInput(sample.input, args=converted, kwargs=dict(sample.kwargs)))
    return found


def _mixed_devices(info, given, dtype) -> list[SampleInput]:
    """Every other tensor of each list stays on the CPU, and so do 0-dim tensors."""

    def spread(value):
        if isinstance(value, list):
            return [sampling.Stays(t) if isinstance(t, torch.Tensor) and place % 2 else t for place, t in enumerate(value)]
        return sampling.Stays(value) if isinstance(value, torch.Tensor) else value

    return [SampleInput(spread(s.input), args=tuple(map(spread, s.args)), kwargs=dict(s.kwargs)) for s in given]


def _refused(info, given, dtype) -> list[SampleInput]:
    """Empty lists, lists and scalar lists that are too short, sizes that do not fit."""
    seen, found = set(), []
    for sample in given:
        form = tuple(f"{type(arg).__name__} of tensors: {_is_tensors(arg)}" for arg in sample.args)
        form += tuple(sorted(sample.kwargs))
        if form in seen:
            continue
        seen.add(form)
        found.append(SampleInput([], args=tuple([] if isinstance(arg, list) else arg for arg in sample.args), kwargs=sample.kwargs))
        for place, arg in enumerate(sample.args):
            if isinstance(arg, list):
                shorter, misfit = arg[:-1], arg[::-1]
                for wrong in (shorter, misfit) if _is_tensors(arg) else (shorter,):
                    args = (*sample.args[:place], wrong, *sample.args[place + 1 :])
                    found.append(SampleInput(sample.input, args=args, kwargs=sample.kwargs))
        if "scalars" in sample.kwargs:
            kwargs = {**sample.kwargs, "scalars": sample.kwargs["scalars"][:-1]}
            found.append(SampleInput(sample.input, args=sample.args, kwargs=kwargs))
    return found


# -- checks --


def run_forward(case) -> None:
    def form(copy, side):
        return {"output": case.info(copy.input, *copy.args, **copy.kwargs)}

    case.agree(form, errors=False)


def run_inplace(case) -> None:
    """The in-place variant: what it leaves in its first list, in the tensors themselves, and what it returns."""

    def form(copy, side):
        pointers = [tensor.data_ptr() for tensor in copy.input]
        returned = case.info.inplace_variant(copy.input, *copy.args, **copy.kwargs)
        moved = [tensor.data_ptr() != pointer for tensor, pointer in zip(copy.input, pointers)]
        versions = [tensor._version for tensor in copy.input]
        return {"the list": copy.input, "returned": returned, "moved": moved, "versions": versions}

    case.agree(form, errors=False)


def run_inplace_gradient(case) -> None:
    """In-place on clones of the leaves; gradients of all leaves."""

    def form(copy, side):
        leaves = sampling.leaves(copy)
        changed = [tensor.clone() for tensor in copy.input]
        case.info.inplace_variant(changed, *copy.args, **copy.kwargs)
        outputs = [tensor for tensor in changed if tensor.requires_grad]
        if not outputs:
            raise RuntimeError("no output requires a gradient")
        side.stage("backward")
        found = gradient.gradients(outputs, leaves, case.seed)
        return {"outputs": gradient.described(changed), "gradient": [gradient.missing(g) for g in found]}

    case.agree(form, strides=False, errors=False)


def run_mixed_devices(case) -> None:
    """A list may lie on several devices; each result lies where its arguments do."""

    def form(copy, side):
        results = case.info(copy.input, *copy.args, **copy.kwargs)
        return {"on the device": results[::2], "on the CPU": _described(results[1::2])}

    case.agree(form, errors=False)


def run_mixed_devices_inplace(case) -> None:
    def form(copy, side):
        case.info.inplace_variant(copy.input, *copy.args, **copy.kwargs)
        return {"on the device": copy.input[::2], "on the CPU": _described(copy.input[1::2])}

    case.agree(form, errors=False)


def _described(tensors) -> list[str]:
    """Where a result is and what it holds; on the CPU both sides compute it with the same kernels."""
    return [f"{tensor.device} {tensor.dtype} {tensor.tolist()}" for tensor in tensors]


def run_errors(case) -> None:
    """Calls that the CPU refuses, functional and in-place; and lists of two devices, which every device refuses."""

    def functional(copy, side):
        return {"output": case.info(copy.input, *copy.args, **copy.kwargs)}

    def inplace(copy, side):
        case.info.inplace_variant(copy.input, *copy.args, **copy.kwargs)
        return {"the list": copy.input}

    case.agree(functional)
    if case.info.inplace_variant is not None:
        case.agree(inplace, "in place")
    if case.under_test.device != CPU and any(isinstance(arg, list) and arg for arg in case.sample.args):
        _refuses_two_devices(case)


def _refuses_two_devices(case) -> None:
    case.stage("call with lists of two devices")
    here = sampling.copy_sample(case.sample, case.under_test.device)
    try:
        case.info(here.input, *case.sample.args, **case.sample.kwargs)
        case.under_test.synchronize()
    except NotImplementedError:
        raise
    except (RuntimeError, ValueError):
        return
    raise Mismatch("a list on the device and a list on the CPU are accepted together")


INPLACE = ("inplace", "inplace_gradient", "mixed_dtypes_inplace", "mixed_devices_inplace")
MAKE = {"zero_size": _zero_size, "noncontiguous": _noncontiguous, "mixed_dtypes": _mixed_dtypes,
        "mixed_dtypes_inplace": _mixed_dtypes, "mixed_devices": _mixed_devices,
        "mixed_devices_inplace": _mixed_devices, "errors": _refused}  # fmt: skip
RUNNERS = {
    "forward": run_forward,
    "inplace": run_inplace,
    "zero_size": run_forward,
    "noncontiguous": run_forward,
    "gradient": gradient.run,
    "inplace_gradient": run_inplace_gradient,
    "mixed_dtypes": run_forward,
    "mixed_dtypes_inplace": run_inplace,
    "mixed_devices": run_mixed_devices,
    "mixed_devices_inplace": run_mixed_devices_inplace,
    "errors": run_errors,
}
