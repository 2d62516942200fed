"""The fused optimizer kernels, called directly: `_fused_adam_`, `_fused_adamw_`, `_fused_adagrad_`, `_fused_sgd_`.

PyTorch has no entries for them, so the samples are made here: flags, learning rates as numbers and as tensors, scaled
gradients, and steps that a found infinity turns into nothing.
"""

import functools
import itertools
from dataclasses import dataclass

import torch
from torch.testing._internal.opinfo.core import SampleInput

from .. import samples as sampling
from ..compare import FEW_BITS

SHAPES = ((4, 5), (7,), (33,), (), (0, 3))


@dataclass(frozen=True)
class Kernel:
    """An entry: the name, how many lists of state the kernel keeps, and its numbers."""

    name: str
    moments: int
    numbers: tuple[tuple[str, object], ...]
    flags: tuple[str, ...]

    def __call__(self, lists, *, functional=False, **kwargs):
        packet = getattr(torch.ops.aten, self.name.removesuffix("_") if functional else self.name)
        return packet(*lists, **kwargs)


ADAM = (("beta1", 0.9), ("beta2", 0.99), ("weight_decay", 0.1), ("eps", 1e-8))
KERNELS = (
    Kernel("_fused_adam_", 3, ADAM, ("amsgrad", "maximize")),
    Kernel("_fused_adamw_", 3, ADAM, ("amsgrad", "maximize")),
    Kernel("_fused_adagrad_", 1, (("lr_decay", 0.01), ("weight_decay", 0.1), ("eps", 1e-10)), ("maximize",)),
    Kernel("_fused_sgd_", 1, (("weight_decay", 0.1), ("momentum", 0.9), ("dampening", 0.0)), ("nesterov", "maximize", "is_first_step")),
)


@functools.cache
def entries() -> dict:
    return {kernel.name: kernel for kernel in KERNELS}


def dtypes(kernel, mode: str) -> list[str]:
    """The CPU's fused SGD leaves the momentum of 16-bit parameters undefined (torch 2.13)."""
    return ["float32", "float64"] if kernel.name == "_fused_sgd_" else ["bfloat16", "float16", "float32", "float64"]


def tolerances(kernel, mode: str):
    return tuple((dtype, (8 * unit, 8 * unit)) for dtype, unit in FEW_BITS.items())


def draw(kernel, dtype: torch.dtype, mode: str, seed: int) -> list[SampleInput]:
    sampling.seed_everything(seed)
    found = []
    for values in itertools.product((False, True), repeat=len(kernel.flags)):
        for lr, scaled in itertools.product((0.01, torch.tensor(0.01)), (False, True)):
            lists = [[torch.randn(shape).to(dtype) for shape in SHAPES] for _ in range(2)]
            lists += [[torch.rand(shape).to(dtype) for shape in SHAPES] for _ in range(kernel.moments)]
            if kernel.name != "_fused_sgd_":
                lists.append([torch.tensor(3.0) for _ in SHAPES])
            kwargs = {**dict(kernel.numbers), **dict(zip(kernel.flags, values)), "lr": lr}
            if scaled:
                kwargs |= {"grad_scale": torch.tensor(4.0), "found_inf": torch.tensor(float(values[0]))}
            if kernel.moments == 3 and not kwargs["amsgrad"]:
                lists[4] = []
            found.append(SampleInput(lists, kwargs=kwargs))
    return _refused(found[0]) if mode == "errors" else found


def _refused(sample) -> list[SampleInput]:
    """Lists of different lengths and of different dtypes."""
    lists = sample.input
    shorter = [*lists[:1], lists[1][:-1], *lists[2:]]
    other = [*lists[:1], [t.to(torch.float16) for t in lists[1]], *lists[2:]]
    return [SampleInput(wrong, kwargs=sample.kwargs) for wrong in (shorter, other)]


def run_inplace(case) -> None:
    """What the kernel leaves in all of its lists, and their versions."""

    def form(copy, side):
        case.info(copy.input, **copy.kwargs)
        versions = [[tensor._version for tensor in tensors] for tensors in copy.input[:1]]
        return {"lists": copy.input, "versions": versions}

    case.agree(form, errors=False)


def run_functional(case) -> None:
    def form(copy, side):
        return {"output": case.info(copy.input, functional=True, **copy.kwargs), "lists": copy.input}

    case.agree(form, errors=False)


def run_errors(case) -> None:
    def form(copy, side):
        case.info(copy.input, **copy.kwargs)
        return {"lists": copy.input}

    case.agree(form)


RUNNERS = {"inplace": run_inplace, "functional": run_functional, "errors": run_errors}
