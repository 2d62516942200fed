"""`views`: inputs that are conjugated or negated lazily, also for `inplace`; and whether results are.

Each input has the values of the sample, with the memory behind it conjugated or negated and a bit that says so.
"""

import torch

from .. import samples as sampling
from ..calls import CpuCannot


def run(case) -> None:
    def form(copy, side):
        output = case.info(copy.input, *copy.args, **copy.kwargs)
        return {"output": output, "bits of output": [_bits(item) for item in sampling.tensors(output)]}

    inplace = case.info.get_inplace() if isinstance(case.sample.input, torch.Tensor) else None

    def inplace_form(copy, side):
        inplace(copy.input, *copy.args, **copy.kwargs)
        return {"input": copy.input, "bits of input": _bits(copy.input)}

    found = False
    for name, change in VIEWS.items():
        changed = sampling.mapped(case.sample, change)
        if changed is None:
            continue
        found = True
        case.agree_where_the_cpu_does(form, f"{name} inputs", changed)
        if inplace is not None:
            case.agree(inplace_form, f"in place, {name} inputs", sample=changed)
        first = sampling.mapped(case.sample, lambda tensor, change=change: change(tensor) if tensor is case.sample.input else None)
        if first is not None and len(list(sampling.tensors((case.sample.input, case.sample.args)))) > 1:
            case.agree_where_the_cpu_does(form, f"{name} first input", first)
    if not found:
        raise CpuCannot from ValueError("no input can be a conjugate or negative view")


def _bits(tensor) -> str:
    return f"conj={tensor.is_conj()} neg={tensor.is_neg()}"


def _conjugated(tensor):
    return torch.conj_physical(tensor).conj() if tensor.is_complex() and not tensor.is_conj() else None


def _negated(tensor):
    if tensor.is_neg() or tensor.dtype == torch.bool or not (tensor.is_complex() or tensor.is_floating_point()):
        return None
    return torch._neg_view(-tensor)


def _both(tensor):
    return _negated(_conjugated(tensor)) if tensor.is_complex() and not tensor.is_conj() else None


VIEWS = {"conjugated": _conjugated, "negated": _negated, "conjugated and negated": _both}
