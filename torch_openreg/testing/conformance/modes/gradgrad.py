"""`gradgrad`: gradients of gradients, by the inputs and by the cotangents of the first ones."""

import torch

from .. import samples as sampling
from .gradient import cotangents_for, differentiable, missing


def run(case) -> None:
    def form(copy, side):
        outputs = differentiable(copy, case.info(copy.input, *copy.args, **copy.kwargs))
        outputs = [output for output in outputs if output.requires_grad]
        first, second = first_and_second(outputs, sampling.leaves(copy), case.seed, side)
        return {"gradient": first, "second gradient": second}

    case.agree(form, strides=False, errors=False)


def first_and_second(outputs, inputs, seed: int, side) -> tuple[list, list]:
    """The gradients of the inputs, and those of inputs and cotangents by the first ones, for a comparison. Raises when nothing flows."""
    cotangents = [cotangent.requires_grad_() for cotangent in cotangents_for(outputs, seed)]
    side.stage("backward")
    first = torch.autograd.grad(outputs, inputs, cotangents, create_graph=True, allow_unused=True)
    flowing = [gradient for gradient in first if gradient is not None and gradient.requires_grad]
    if not flowing:
        raise RuntimeError("no gradient can be differentiated again")
    side.stage("second backward")
    second = torch.autograd.grad(flowing, [*inputs, *cotangents], cotangents_for(flowing, seed + 1), allow_unused=True)
    return [missing(item) for item in first], [missing(item) for item in second]
