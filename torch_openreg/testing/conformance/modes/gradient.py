"""`gradient`: the gradients of all inputs for seeded cotangents, and which outputs and inputs have one."""

import torch

from .. import samples as sampling


def run(case) -> None:
    def form(copy, side):
        outputs = differentiable(copy, case.info(copy.input, *copy.args, **copy.kwargs))
        side.stage("backward")
        found = gradients(outputs, sampling.leaves(copy), case.seed)
        return {"metadata of the outputs": described(outputs), "gradient": [missing(gradient) for gradient in found]}

    case.agree(form, strides=False, errors=False)


def described(outputs) -> list[str]:
    """What autograd sees of outputs, for a comparison."""
    return [f"{output.dtype} {tuple(output.shape)} requires_grad={output.requires_grad}" for output in outputs]


def differentiable(sample, output) -> list[torch.Tensor]:
    """The outputs that a gradient can flow through, after the sample's own choice. Raises when none requires a gradient."""
    chosen = sample.output_process_fn_grad(output)
    outputs = [item for item in sampling.tensors(chosen) if item.is_floating_point() or item.is_complex()]
    if not any(item.requires_grad for item in outputs):
        raise RuntimeError("no output requires a gradient")
    return outputs


def cotangents_for(outputs, seed: int) -> list[torch.Tensor]:
    """Seeded tensors like the outputs, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for output in outputs:
        wide = torch.complex64 if output.is_complex() else torch.float32
        values = torch.randn(output.shape, dtype=wide, generator=generator).to(output.dtype)
        found.append(values.to(output.device) if output.layout == torch.strided else torch.ones_like(output))
    return found


def gradients(outputs, inputs, seed: int):
    """Gradients of the inputs for seeded cotangents. None where no gradient flows."""
    outputs = [output for output in outputs if output.requires_grad]
    return torch.autograd.grad(outputs, inputs, cotangents_for(outputs, seed), allow_unused=True)


def missing(gradient):
    return "no gradient" if gradient is None else gradient
