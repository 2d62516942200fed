"""Samples: drawing them from an operator's entry, choosing some, and copying one to a device.

A copy shares nothing with its original, and keeps what the original is made of: strides, storage offsets, tensors
that are the same or share memory within the sample, conjugate and negative bits, requires_grad.
"""

import random
import zlib
from contextlib import contextmanager

import numpy
import torch
from torch.testing._internal.opinfo.core import SampleInput

DIFFERENTIATED = ("gradient", "gradgrad", "forward_ad")  # modes whose inputs require a gradient


def seed_everything(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    numpy.random.seed(seed % 2**32)


@contextmanager
def kept_generators():
    """Leaves the host's generators (PyTorch's CPU generator, NumPy's, Python's) as they were before the body."""
    states = torch.get_rng_state(), random.getstate(), numpy.random.get_state()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        numpy.random.set_state(states[2])


def row_seed(seed: int, row_id: str) -> int:
    """A seed of the row's own, so that what a row draws does not depend on the rows before it."""
    return zlib.crc32(f"{seed}:{row_id}".encode())


def draw(op, dtype: torch.dtype, mode: str, seed: int) -> list[SampleInput]:
    """All samples of the operator's entry, made on the CPU: for `errors` those that must raise, where the CPU has the dtype."""
    seed_everything(seed)
    if mode == "errors" and dtype in op.supported_dtypes("cpu"):
        return [item.sample_input for item in op.error_inputs("cpu", set_seed=False)] if op.error_inputs_func else []
    return list(op.sample_inputs("cpu", dtype, requires_grad=mode in DIFFERENTIATED, set_seed=False))


def choose(total: int, wanted: int) -> list[int]:
    """Indices of at most `wanted` of `total` samples, the first, the last and evenly between; 0 means all."""
    if wanted <= 0 or wanted >= total:
        return list(range(total))
    if wanted == 1:
        return [0]
    return sorted({round(i * (total - 1) / (wanted - 1)) for i in range(wanted)})


def copy_sample(sample: SampleInput, device: torch.device) -> SampleInput:
    """An independent copy of a CPU sample on the device.

    `torch.device("cpu")` and "cpu" among the arguments become the device, a generator becomes one of the device.
    A sample of another kind knows itself what it is `on` a device.
    """
    if not isinstance(sample, SampleInput):
        return sample.on(device)
    copier = _Copier(device)
    copier.count((sample.input, sample.args, sample.kwargs))
    with torch.no_grad():
        return SampleInput(
            copier.copy(sample.input),
            args=tuple(copier.copy(arg) for arg in sample.args),
            kwargs={name: copier.copy(value) for name, value in sample.kwargs.items()},
            output_process_fn_grad=sample.output_process_fn_grad,
            broadcasts_input=sample.broadcasts_input,
            name=sample.name,
        )


def copy_tensor(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy with the same strides and offset on the device."""
    copier = _Copier(device)
    copier.count(tensor)
    return copier.copy(tensor)


class Stays:
    """An argument that `copy_sample` copies to the CPU and not to the device."""

    def __init__(self, tensor: torch.Tensor):
        self.tensor = tensor


def mapped(sample: SampleInput, change) -> SampleInput | None:
    """The sample with change(tensor) in the place of each strided tensor, where that is not None; None when it always is."""
    made: dict[int, object] = {}

    def replace(value):
        if isinstance(value, torch.Tensor):
            if id(value) not in made:
                usable = value.layout == torch.strided and not value.is_nested and not value.is_quantized
                made[id(value)] = change(value) if usable else None
            found = made[id(value)]
            return value if found is None else found
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(replace, value))
        if isinstance(value, (list, tuple)):
            return type(value)(map(replace, value))
        if isinstance(value, dict):
            return {key: replace(item) for key, item in value.items()}
        return value

    out = SampleInput(
        replace(sample.input),
        args=tuple(map(replace, sample.args)),
        kwargs={name: replace(value) for name, value in sample.kwargs.items()},
        output_process_fn_grad=sample.output_process_fn_grad,
        broadcasts_input=sample.broadcasts_input,
        name=sample.name,
    )
    return out if any(value is not None for value in made.values()) else None


def copy_value(value, device: torch.device):
    """An independent copy of a tensor, or of nested lists, tuples and dicts of them, by the rules of copy_sample."""
    copier = _Copier(device)
    copier.count(value)
    with torch.no_grad():
        return copier.copy(value)


def refilled(sample: SampleInput):
    """Samples with the same metadata and other values: zeros, ones, and small numbers that differ."""
    if not isinstance(sample, SampleInput):
        return
    for fill in (torch.Tensor.zero_, lambda tensor: tensor.fill_(1), _count_up):
        copy = copy_sample(sample, torch.device("cpu"))
        with torch.no_grad():
            for tensor in tensors((copy.input, copy.args, copy.kwargs)):
                if tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_nested:
                    fill(tensor.detach() if _apart(tensor) else torch.empty(0, dtype=tensor.dtype, device="cpu").set_(tensor.untyped_storage()))
        yield copy


def _apart(tensor: torch.Tensor) -> bool:
    """Whether no element of the tensor lies where another does."""
    return 0 not in [stride for size, stride in zip(tensor.shape, tensor.stride()) if size > 1]


def _count_up(tensor: torch.Tensor) -> None:
    """Different values from 0 up, on a matrix's diagonal larger than beside it."""
    tensor.copy_(torch.arange(tensor.numel()).reshape(tensor.shape) % 5 / (1 if tensor.dtype == torch.bool else 4))
    if tensor.dim() >= 2 and (tensor.is_floating_point() or tensor.is_complex()):
        tensor.diagonal(dim1=-2, dim2=-1).add_(8)


def leaves(sample: SampleInput) -> list[torch.Tensor]:
    """The sample's tensors that require a gradient, each once, in the order of the arguments."""
    found: dict[int, torch.Tensor] = {}
    for tensor in tensors((sample.input, sample.args, sample.kwargs)):
        if tensor.requires_grad:
            found.setdefault(id(tensor), tensor)
    return list(found.values())


def names_device(sample: SampleInput) -> bool:
    """Whether an argument says on which device the result is made."""
    arguments = (*sample.args, *sample.kwargs.values())
    return any(isinstance(value, torch.device) or (isinstance(value, str) and value == "cpu") for value in arguments)


def tensors(value):
    """The tensors in nested lists, tuples and dicts, in order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors(item)


def _dense(tensor: torch.Tensor) -> bool:
    """Whether the elements fill one stretch of memory without gap or overlap, in any order of dimensions."""
    expected = 1
    for stride, size in sorted((stride, size) for size, stride in zip(tensor.shape, tensor.stride()) if size != 1):
        if stride != expected:
            return False
        expected *= size
    return True


class _Copier:
    """Copies one sample; lives for one sample, so that memory shared in it stays shared in the copy."""

    def __init__(self, device: torch.device):
        self.device = device
        self.users: dict[int, set[int]] = {}  # storage -> ids of the tensors on it
        self.copies: dict[int, torch.Tensor] = {}  # id of an original -> its copy
        self.bases: dict[int, torch.Tensor] = {}  # storage -> flat copy of all of it

    def count(self, value) -> None:
        for tensor in tensors(value):
            if tensor.layout == torch.strided and not tensor.is_nested:
                self.users.setdefault(tensor.untyped_storage()._cdata, set()).add(id(tensor))

    def copy(self, value):
        if isinstance(value, torch.Tensor):
            if id(value) not in self.copies:
                self.copies[id(value)] = self._tensor(value)
            return self.copies[id(value)]
        if isinstance(value, Stays):
            return value.tensor.clone()
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*(self.copy(item) for item in value))
        if isinstance(value, (list, tuple)):
            return type(value)(self.copy(item) for item in value)
        if isinstance(value, dict):
            return {key: self.copy(item) for key, item in value.items()}
        if isinstance(value, torch.device):
            return self.device if value.type == "cpu" else value
        if isinstance(value, str) and value == "cpu":
            return str(self.device)
        if isinstance(value, torch.Generator):
            return torch.Generator(self.device).manual_seed(value.initial_seed())
        return value

    def _tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        plain = tensor.detach()
        conj, neg = plain.is_conj(), plain.is_neg()
        if conj:
            plain = plain.conj()
        if neg:
            plain = torch._neg_view(plain)
        out = self._strided_view(plain, tensor) if self._needs_storage(plain, tensor) else self._whole(plain)
        if neg:
            out = torch._neg_view(out)
        if conj:
            out = out.conj()
        return out.requires_grad_(tensor.requires_grad)

    def _whole(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.device.type == "meta":  # an error input that is on no device at all
            return tensor
        return tensor.clone() if self.device.type == "cpu" else tensor.to(self.device)

    def _needs_storage(self, plain: torch.Tensor, original: torch.Tensor) -> bool:
        """Whether a plain copy would lose strides, an offset, unused memory or sharing."""
        if plain.layout != torch.strided or plain.is_nested or plain.is_quantized or plain.device.type != "cpu":
            return False
        storage = original.untyped_storage()
        shared = len(self.users.get(storage._cdata, ())) > 1
        exact = storage.nbytes() == plain.numel() * plain.element_size()
        return shared or plain.storage_offset() != 0 or not exact or not _dense(plain)

    def _strided_view(self, plain: torch.Tensor, original: torch.Tensor) -> torch.Tensor:
        storage = original.untyped_storage()
        base = self.bases.get(storage._cdata)
        if base is None:
            flat = torch.empty(0, dtype=plain.dtype, device=storage.device).set_(storage)
            base = self.bases[storage._cdata] = self._whole(flat)
        typed = base if base.dtype == plain.dtype else base.view(plain.dtype)
        return typed.as_strided(plain.size(), plain.stride(), plain.storage_offset())
