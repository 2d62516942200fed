"""`forward_ad`: forward-mode derivatives (`torch.autograd.forward_ad`) along seeded tangents of all inputs."""

import torch
from torch.autograd import forward_ad

from .. import samples as sampling
from .gradient import cotangents_for


def run(case) -> None:
    def form(copy, side):
        inputs = sampling.leaves(copy)
        if not inputs:
            raise RuntimeError("no input can be differentiated")
        tangents = dict(zip(map(id, inputs), cotangents_for(inputs, case.seed)))
        with forward_ad.dual_level():
            duals = sampling.mapped(
                copy, lambda tensor: forward_ad.make_dual(tensor.detach(), tangents[id(tensor)]) if id(tensor) in tangents else None
            )
            output = case.info(duals.input, *duals.args, **duals.kwargs)
            parts = [forward_ad.unpack_dual(item) for item in sampling.tensors(output) if _real_or_complex(item)]
            return {
                "output": [part.primal for part in parts],
                "tangent": ["no tangent" if part.tangent is None else part.tangent for part in parts],
            }

    case.agree(form, strides=False, errors=False)


def _real_or_complex(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()
