"""`layouts`: the sample as it is, and with strided, transposed, offset and channels-last inputs.

Compared are values, shapes, strides, and which memory a result shares: with which input or earlier result, from which offset.
"""

import torch

from .. import samples as sampling


def run(case) -> None:
    def form(copy, side):
        inputs = list(sampling.tensors((copy.input, copy.args, copy.kwargs)))
        output = case.info(copy.input, *copy.args, **copy.kwargs)
        outputs = list(sampling.tensors(output))
        return {
            "output": output,
            "memory of output": [memory_of(item, inputs, outputs[:place]) for place, item in enumerate(outputs)],
        }

    case.agree(form, twice=True)
    for name, change in LAYOUTS.items():
        if (changed := with_tensors(case.sample, change)) is not None:
            case.agree(form, f"{name} inputs", sample=changed, twice=True)


def with_tensors(sample, change):
    """The sample with every tensor changed that can be; None when none can."""
    return sampling.mapped(sample, change)


def with_input(sample, change):
    """The sample with its first tensor changed; None when it cannot be."""
    return sampling.mapped(sample, lambda tensor: change(tensor) if tensor is sample.input else None)


def memory_of(output, inputs, earlier) -> str:
    """Whose memory a result is in, in words."""
    if output.layout != torch.strided or output.is_nested:
        return f"{output.layout}"
    for kind, others in (("input", inputs), ("output", earlier)):
        for place, other in enumerate(others):
            if other is output:
                return f"{kind} {place} itself"
            if other.layout == torch.strided and not other.is_nested and _storage(other) == _storage(output):
                return f"that of {kind} {place} from {output.storage_offset()}, {'a view' if output._is_view() else 'not a view'}"
    return "its own"


def _storage(tensor) -> int:
    return tensor.untyped_storage()._cdata


def _strided(tensor):
    """Every second element of a larger tensor, from its second on; what lies between must not be read."""
    wide = torch.full((*tensor.shape, 2), 1).to(tensor.dtype)
    wide[..., 1] = tensor
    return wide[..., 1]


def _transposed(tensor):
    """The elements in the order of the last two dimensions exchanged."""
    if tensor.dim() < 2 or tensor.numel() < 2:
        return None
    return tensor.transpose(-1, -2).clone(memory_format=torch.contiguous_format).transpose(-1, -2)


def _offset(tensor):
    """The same, from the third element of its storage on."""
    if not tensor.is_contiguous():
        return None
    storage = torch.ones(tensor.numel() + 3).to(tensor.dtype)
    out = storage[2 : 2 + tensor.numel()].view(tensor.shape)
    return out.copy_(tensor)


def _channels_last(tensor):
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return tensor.clone(memory_format=formats[tensor.dim()]) if tensor.dim() in formats else None


LAYOUTS = {"strided": _strided, "transposed": _transposed, "offset": _offset, "channels_last": _channels_last}
