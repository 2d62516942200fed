"""`python_ref_db`: the operators written in Python over primitives, which compilers decompose with.

Modes are those of operators, and `prims`: the same call with every torch function inside replaced by its reference, so
that the device sees primitives only. References have no gradients of their own.
"""

import functools

from torch._prims.context import TorchRefsMode
from torch.testing._internal.common_methods_invocations import python_ref_db

from .. import modes, rows, samples
from ..compare import Tolerance, operator_tolerances


@functools.cache
def entries() -> dict:
    return {op.full_name: op for op in python_ref_db}


def dtypes(op, mode: str) -> list[str]:
    return rows.row_dtypes(op, "forward" if mode == "prims" else mode)


def draw(op, dtype, mode: str, seed: int) -> list:
    drawn = samples.draw(op, dtype, "forward" if mode == "prims" else mode, seed)
    for sample in drawn if mode in ("forward", "prims") else ():
        if op.full_name == "_refs.tensor_split":  # wants its indices on the CPU
            sample.args = tuple(samples.Stays(arg) if hasattr(arg, "untyped_storage") else arg for arg in sample.args)
        elif not any(True for _ in samples.tensors((sample.input, sample.args, sample.kwargs))):
            sample.kwargs.setdefault("device", "cpu")  # references do not look at the default device
    return drawn


def tolerances(op, mode: str):
    """Those of the operator that it is a reference for, as well as its own."""
    own, torch_op = operator_tolerances(op, mode), getattr(op, "torch_opinfo", None)
    widest = dict(own)
    for dtype, width in operator_tolerances(torch_op, mode) if torch_op else ():
        widest[dtype] = widest.get(dtype, Tolerance()).widened(width)
    return tuple(widest.items())


def run_prims(case) -> None:
    def form(copy, side):
        with TorchRefsMode(strict=False):
            return {"output": case.info(copy.input, *copy.args, **copy.kwargs)}

    case.agree(form, errors=False)


RUNNERS = {
    "forward": modes.RUNNERS["forward"],
    "prims": run_prims,
    "layouts": modes.RUNNERS["layouts"],
    "out": modes.RUNNERS["out"],
    "errors": modes.RUNNERS["errors"],
}
