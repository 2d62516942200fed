"""`scalars`: Python numbers and CPU scalars among device tensors, inputs of no dimension and of no element, and mixed dtypes.

Operands are the sample's first tensor and the first tensor among its positional arguments. Compared are values, dtypes and errors.
CPU scalars are given to the elementwise operators that also take a Python number; others may refuse two devices.
"""

import torch
from torch.testing._internal.opinfo.core import BinaryUfuncInfo

from .. import samples as sampling
from ..calls import CpuCannot

DTYPES = tuple(getattr(torch, name) for name in ("bool", "uint8", "int32", "int64", "float16", "float32", "float64", "complex64"))
# Operators that read outside of operands of unexpected sizes on the CPU, or leave part of a result as it was in memory.
UNSAFE_ON_CPU = {
    "native_batch_norm", "_native_batch_norm_legit", "_batch_norm_with_update", "nn.functional.multi_margin_loss",
    "nn.functional.multilabel_margin_loss", "resize_", "resize_as_", "lu_unpack", "_chunk_cat",
}  # fmt: skip
NUMBER_IS_A_DEVICE = {"to"}


def run(case) -> None:
    sample = case.sample
    tensors = [tensor for tensor in sampling.tensors((sample.input, sample.args)) if _plain(tensor)]
    if case.info.name in UNSAFE_ON_CPU:
        raise CpuCannot from ValueError("the CPU's kernel reads outside of operands of unexpected sizes")
    if not tensors:
        raise CpuCannot from ValueError("the sample has no tensor")

    def form(copy, side):
        return {"output": case.info(copy.input, *copy.args, **copy.kwargs)}

    def agree(variant, change):
        if (changed := sampling.mapped(sample, change)) is not None:
            case.agree(form, variant, sample=changed)

    agree("inputs of no dimension", _no_dimension)
    agree("inputs of no element", _no_element)
    operands = _operands(sample)
    if len(operands) < 2:
        return
    mixes_devices = isinstance(case.info, BinaryUfuncInfo) and case.info.supports_rhs_python_scalar
    for place, operand in zip(("first", "second"), operands):
        only = lambda change, operand=operand: lambda tensor: change(tensor) if tensor is operand else None  # noqa: E731
        agree(f"{place} operand of no dimension", only(_no_dimension))
        if case.info.name not in NUMBER_IS_A_DEVICE:
            agree(f"{place} operand a number", only(_number))
        if mixes_devices:
            agree(f"{place} operand a CPU scalar", only(lambda tensor: sampling.Stays(_no_dimension(tensor))))
        for dtype in DTYPES:
            if dtype != operand.dtype:
                name = str(dtype).removeprefix("torch.")
                agree(f"{place} operand of dtype {name}", only(lambda tensor, dtype=dtype: tensor.to(dtype)))
                if mixes_devices:
                    scalar = lambda tensor, dtype=dtype: sampling.Stays(_no_dimension(tensor).to(dtype))  # noqa: E731
                    agree(f"{place} operand a CPU scalar of dtype {name}", only(scalar))


def _plain(tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_nested and not tensor.is_quantized


def _operands(sample) -> list[torch.Tensor]:
    """The input and the first positional argument, when both are tensors."""
    found = [value for value in (sample.input, *sample.args[:1]) if isinstance(value, torch.Tensor) and _plain(value)]
    return found if len(found) == 2 and found[0] is not found[1] else []


def _no_dimension(tensor):
    return tensor.flatten()[:1].reshape(()).clone() if tensor.numel() else torch.ones((), dtype=tensor.dtype)


def _no_element(tensor):
    return tensor.new_empty((0, *tensor.shape[1:])) if tensor.dim() else None


def _number(tensor):
    return _no_dimension(tensor).item()
