"""Calls of real models (L6): a row per model pack, operator and dtype, a sample per distinct call, with values drawn from a seed.

A row is named `model.PACK.OPERATOR.OVERLOAD`, and its dtype is that of the call's first tensor, of its dtype argument, or none.
Compared are results, whose memory they are in, and every argument after the call, because a call may change those.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch.testing._internal.opinfo.core import SampleInput

from .. import pack as packs
from ..compare import FEW_BITS, MORE_BITS, SECOND_UNITS, UNITS, Tolerance
from ..modes.layouts import memory_of
from ..samples import Stays, tensors

# Sums over the width of a model: as for second derivatives, terms as large as the largest element may cancel out in small ones.
_UNITS = UNITS["gradient"]
TOLERANCES = (
    *((dtype, Tolerance(_UNITS * unit, _UNITS * unit, unit)) for dtype, unit in FEW_BITS.items()),
    *((dtype, Tolerance(SECOND_UNITS * unit, SECOND_UNITS * unit, _UNITS * unit)) for dtype, unit in MORE_BITS.items()),
)

LARGEST_RANGE = 2**24  # of integers that do not repeat
MARKED_EVERY = 8  # elements: one has a value that is besides the range


@dataclass
class ModelOperator:
    """An entry: one operator of one pack, called with a list of arguments.

    calls: dtype -> its calls, as in the pack. name: as in addmm, for the kit's rules about operators.
    """

    full_name: str
    name: str
    operator: str
    calls: dict[str, list[dict]] = field(default_factory=dict)

    def __call__(self, arguments, **kwargs):
        space, packet, overload = self.operator.split(".", 2)
        return getattr(getattr(getattr(torch.ops, space), packet), overload)(*arguments, **kwargs)


_chosen: tuple[str, ...] = ()


def use(files) -> None:
    """Takes the rows from these packs, names or files, instead of from all that ship. Raises pack.PackError."""
    global _chosen
    _chosen = packs.checked(map(str, files))


def entries() -> dict[str, ModelOperator]:
    return _entries(_chosen)


@functools.cache
def _entries(chosen: tuple[str, ...]) -> dict[str, ModelOperator]:
    found: dict[str, ModelOperator] = {}
    for pack in packs.chosen(chosen):
        for call in pack.calls:
            name = f"model.{pack.name}.{call['op']}"
            entry = found.setdefault(name, ModelOperator(name, call["op"].split(".")[1], call["op"]))
            entry.calls.setdefault(_dtype_of(call), []).append(call)
    return found


def _dtype_of(call: dict) -> str:
    """The first tensor's dtype, else that of the dtype argument, else "none"."""

    def find(value, key):
        if isinstance(value, dict) and key in value:
            return value[key]
        return next((found for item in (value if isinstance(value, list) else ()) if (found := find(item, key))), "")

    given = (call["args"], list(call["kwargs"].values()))
    return next((found for key in ("tensor", "dtype") for part in given if (found := find(part, key))), "none")


def dtypes(entry: ModelOperator, mode: str) -> list[str]:
    return sorted(entry.calls)


def tolerances(entry: ModelOperator, mode: str):
    return TOLERANCES


def draw(entry: ModelOperator, dtype, mode: str, seed: int) -> "Calls":
    return Calls(entry.calls.get(str(dtype).removeprefix("torch."), []), seed)


class Calls(Sequence):
    """Samples that are made when asked for, the same each time: calls of real sizes would not fit into memory all at once."""

    def __init__(self, calls: list[dict], seed: int):
        self.calls, self.seed = calls, seed

    def __len__(self) -> int:
        return len(self.calls)

    def __getitem__(self, index: int) -> SampleInput:
        call, reader = self.calls[index], _Reader(self.seed + index)
        reader.measure([call["args"], *call["kwargs"].values()])
        return SampleInput(reader.value(call["args"]), kwargs={name: reader.value(value) for name, value in call["kwargs"].items()})


class _Reader:
    """Makes the arguments of one call."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)
        self.lengths: dict[int, int] = {}  # of memory that tensors share: elements
        self.storages: dict[int, torch.Tensor] = {}

    def measure(self, value) -> None:
        """Finds out how long memory must be that tensors share."""
        if isinstance(value, dict) and "memory" in value:
            self.lengths[value["memory"]] = max(self.lengths.get(value["memory"], 0), _length(value))
        for item in value if isinstance(value, list) else ():
            self.measure(item)

    def value(self, value):
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if not isinstance(value, dict):
            return value
        if "tensor" in value:
            tensor = self.tensor(value)
            return Stays(tensor) if value.get("host") else tensor
        ((kind, content),) = value.items()
        match kind:
            case "float":
                return float(content)
            case "complex":
                return complex(*content)
            case "device":
                return torch.device("cpu")
        return getattr(torch, content)

    def tensor(self, form: dict) -> torch.Tensor:
        group = form.get("memory")
        storage = self.storages.get(group)
        if storage is None:
            storage = self.fill(form, self.lengths.get(group, _length(form)))
        if group is not None:
            self.storages[group] = storage
        return storage.as_strided(form["size"], _stride(form), form.get("offset", 0))

    def fill(self, form: dict, length: int) -> torch.Tensor:
        dtype, low, high = getattr(torch, form["tensor"]), form.get("low"), form.get("high")
        if dtype == torch.bool:
            return torch.full((length,), form["all"]) if "all" in form else torch.rand(length, generator=self.generator) < 0.5
        if dtype.is_complex:
            return torch.randn(length, dtype=torch.complex64, generator=self.generator).to(dtype)
        if dtype.is_floating_point:
            values = torch.randn(length, generator=self.generator)
            return (values.abs() if low == 0 else values).to(dtype)
        low, high = low or 0, high if high is not None else 1
        if form.get("distinct") and length <= high - low + 1 <= LARGEST_RANGE:
            values = torch.randperm(high - low + 1, generator=self.generator)[:length] + low
        else:
            values = torch.randint(low, min(high + 1, 2**63 - 1), (length,), generator=self.generator)
        if "besides" in form:
            marks = torch.tensor(form["besides"])
            values[::MARKED_EVERY] = marks.repeat(length)[: values[::MARKED_EVERY].numel()]
        return (values.sort().values if form.get("ascending") else values).to(dtype)


def _stride(form: dict) -> tuple[int, ...]:
    return tuple(form.get("stride") or torch.empty(form["size"], device="meta").stride())


def _length(form: dict) -> int:
    """The elements that the memory of a tensor must have."""
    last = 0 if 0 in form["size"] else 1 + sum((n - 1) * step for n, step in zip(form["size"], _stride(form)))
    return max(form.get("offset", 0) + last, form.get("storage", 0))


def run_call(case) -> None:
    def form(copy, side):
        inputs = list(tensors((copy.input, copy.kwargs)))
        output = case.info(copy.input, **copy.kwargs)
        outputs = list(tensors(output))
        return {
            "output": output,
            "memory of output": [memory_of(item, inputs, outputs[:place]) for place, item in enumerate(outputs)],
            "argument after the call": [item for item in inputs if item.device == side.device],
        }

    case.agree(form, errors=False, twice=True)


RUNNERS = {"call": run_call}
