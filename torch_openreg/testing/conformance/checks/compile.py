"""torch.compile (L5): capture by Dynamo, tracing through autograd, and generated code where the device has a code generator."""

import torch

from . import check


def _compiled(probe, function, backend: str):
    """The function, compiled whole; a function that cannot be is an error of the device."""
    torch._dynamo.reset()
    return torch.compile(function, backend=backend, fullgraph=True)


def _work(x, weight):
    return torch.tanh(x @ weight).relu() + torch.ones_like(x[:, :1])


def _inputs(probe):
    x, weight = torch.linspace(-1, 1, 12).view(3, 4), torch.linspace(1, -1, 16).view(4, 4)
    return [tensor.clone().to(probe.device).requires_grad_() for tensor in (x, weight)]


def _agrees(probe, backend: str) -> None:
    plain, traced = _inputs(probe), _inputs(probe)
    wanted, found = _work(*plain), _compiled(probe, _work, backend)(*traced)
    probe.expect(found.device == wanted.device, f"the compiled function returns a tensor on {found.device}, expected {wanted.device}")
    probe.expect(torch.allclose(found.cpu(), wanted.cpu(), atol=1e-5), f"torch.compile(backend={backend!r}) changes the result")
    wanted.sum().backward()
    found.sum().backward()
    for name, left, right in zip(("input", "weight"), plain, traced):
        probe.expect(right.grad is not None, f"the {name} gets no gradient from a function compiled with {backend}")
        probe.expect(torch.allclose(left.grad.cpu(), right.grad.cpu(), atol=1e-5), f"torch.compile(backend={backend!r}) changes the gradient of the {name}")


@check
def dynamo_captures_calls(probe):
    "torch.compile with the backend eager gives the results and gradients of the function itself."
    _agrees(probe, "eager")


@check
def autograd_is_traced(probe):
    "torch.compile with the backend aot_eager, which traces operators with fake tensors, gives the same results and gradients."
    _agrees(probe, "aot_eager")


@check
def generated_code_agrees(probe):
    "torch.compile with Inductor gives the same results and gradients on a device that has a code generator."
    probe.needs(probe.type != "cpu", "Inductor for the CPU is PyTorch's own")
    from torch._inductor.codegen import common

    common.init_backend_registration()
    probe.needs(common.get_scheduling_for_device(probe.type) is not None, f"Inductor has no code generator for {probe.type}")
    _agrees(probe, "inductor")


@check
def another_device_compiles_again(probe):
    "A compiled function that is called with tensors of the CPU and then of the device follows its inputs."
    probe.needs(probe.type != "cpu", "the device is the CPU")
    compiled = _compiled(probe, lambda x: x * 2 + torch.arange(3, device=x.device), "eager")
    for device in (torch.device("cpu"), probe.device):
        found = compiled(torch.ones(3, device=device))
        probe.expect(found.device == device, f"with a tensor on {device} the compiled function returns one on {found.device}")
        probe.expect(found.cpu().tolist() == [2, 3, 4], f"the compiled function gives {found.cpu().tolist()} on {device}, expected [2, 3, 4]")
