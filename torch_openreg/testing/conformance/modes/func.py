"""`func`: `torch.func.vmap`, `jvp` and, for small inputs, `jacrev` of the call."""

import torch
from torch.func import jacrev, jvp, vmap

from .. import samples as sampling
from ..calls import CpuCannot
from .gradient import cotangents_for

BATCH = 2
JACOBIAN_LIMIT = 24  # elements of inputs and of outputs


def run(case) -> None:
    sample = case.sample
    tensors = [tensor for tensor in sampling.tensors((sample.input, sample.args, sample.kwargs)) if tensor.layout == torch.strided]
    if not tensors:
        raise CpuCannot from ValueError("the sample has no strided tensor")

    def function(copy, places):
        """The call as a function of the copy's tensors at `places`."""

        def call(*values):
            given = dict(zip(map(id, places), values))
            changed = sampling.mapped(copy, lambda tensor: given.get(id(tensor)))
            return case.info(changed.input, *changed.args, **changed.kwargs)

        return call

    def batched(copy, side):
        places = _distinct(copy)
        stacks = [torch.stack([tensor.detach()] * BATCH) for tensor in places]
        return {"output": vmap(function(copy, places), randomness="same")(*stacks)}

    def differentiated(copy, side):
        places = [tensor for tensor in _distinct(copy) if tensor.is_floating_point() or tensor.is_complex()]
        if not places:
            raise RuntimeError("no input can be differentiated")
        values = tuple(tensor.detach() for tensor in places)
        output, tangent = jvp(_floats(function(copy, places)), values, tuple(cotangents_for(values, case.seed)))
        return {"output": output, "tangent": tangent}

    def jacobian(copy, side):
        places = [tensor for tensor in _distinct(copy) if tensor.is_floating_point() or tensor.is_complex()]
        values = tuple(tensor.detach() for tensor in places)
        return {"jacobian": jacrev(_floats(function(copy, places)), argnums=tuple(range(len(values))))(*values)}

    case.agree(batched, "vmap", strides=False)
    if case.info.supports_autograd and all(tensor.dtype.is_floating_point or tensor.dtype.is_complex for tensor in tensors[:1]):
        case.agree(differentiated, "jvp", strides=False)
        if sum(tensor.numel() for tensor in tensors) <= JACOBIAN_LIMIT:
            case.agree(jacobian, "jacrev", strides=False)


def _distinct(copy) -> list[torch.Tensor]:
    found = {}
    for tensor in sampling.tensors((copy.input, copy.args, copy.kwargs)):
        if tensor.layout == torch.strided:
            found.setdefault(id(tensor), tensor)
    return list(found.values())


def _floats(call):
    """The outputs of a call that can be differentiated."""

    def inner(*values):
        outputs = [item for item in sampling.tensors(call(*values)) if item.is_floating_point() or item.is_complex()]
        return tuple(outputs) if len(outputs) != 1 else outputs[0]

    return inner
