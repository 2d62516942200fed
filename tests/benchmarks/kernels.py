"""Device kernels of this project against ATen's CPU kernels on the engine: what an override gains.

Both sides run on the device. The engine is asked for by a condition that the kernel does not cover and the CPU's kernel does not notice,
so that both do the same work: memory of another tensor list, or a layout that the kernel leaves to the engine.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from timing import Row, Side

CALLS = 50
aten = torch.ops.aten
SIZES = [(256, 256), (256,), (256, 256), (256,), (10, 256), (10,)]  # the parameters of the MLP of training.py


def on_device(kernel_call, engine_call):
    """Two works on the device, with one synchronize per 50 calls."""

    def repeated(call, times):
        def work():
            for _ in range(times):
                call()

        return work

    def sides(tiny):
        works = [repeated(call, 1 if tiny else CALLS) for call in (kernel_call(), engine_call())]
        for work in works:
            work()
            work()
        torch.openreg.synchronize()
        return tuple(Side(work, on_clock=torch.openreg.synchronize) for work in works)

    return sides


def lists(count):
    return [[torch.rand(size, device="openreg") + 0.5 for size in SIZES] for _ in range(count)]


def foreach(call, count):
    """The call on lists; for the engine the last tensor is one that is not dense, of two elements."""

    def kernel():
        arguments = lists(count)
        return lambda: call(*arguments)

    def engine():
        arguments = lists(count)
        for tensors in arguments:
            tensors.append(torch.ones(4, device="openreg")[::2])
        return lambda: call(*arguments)

    return on_device(kernel, engine)


def fused_adamw(call_steps):
    def build():
        parameters, gradients, averages, squares = lists(4)
        steps = [torch.ones((), device="openreg") for _ in SIZES]
        extra = call_steps(parameters, gradients, averages, squares, steps)
        numbers = {"lr": 1e-6, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.01, "eps": 1e-8, "amsgrad": False, "maximize": False}
        return lambda: torch._fused_adamw_(parameters, gradients, averages, squares, [], steps, **numbers, **extra)

    return build


def odd_parameter(parameters, gradients, averages, squares, steps):
    for tensors in (parameters, gradients, averages, squares):
        tensors.append(torch.ones(4, device="openreg")[::2])
    steps.append(torch.ones((), device="openreg"))
    return {}


def norm(contiguous):
    def build():
        x = torch.randn(256, 512, device="openreg")
        weight, bias = torch.ones(1024, device="openreg"), torch.zeros(512, device="openreg")
        weight = weight[:512] if contiguous else weight[::2]
        return lambda: functional.layer_norm(x, (512,), weight, bias)

    return build


def norm_backward(contiguous):
    def build():
        x, grad = torch.randn(256, 512, device="openreg"), torch.randn(256, 512, device="openreg")
        weight = torch.ones(1024, device="openreg")
        weight = weight[:512] if contiguous else weight[::2]
        _, mean, rstd = torch.native_layer_norm(x, (512,), None, None, 1e-5)
        backward = torch.ops.aten.native_layer_norm_backward
        return lambda: backward(grad, x, [512], mean, rstd, weight, None, [True, True, False])

    return build


def rows(call, shape=(256, 512)):
    """The call on rows of numbers; for the engine they are lazy clones, which kernels leave to it."""

    def build(lazy):
        x, y = (torch.randn(shape, device="openreg").log_softmax(-1) for _ in range(2))
        if lazy:
            x, y = torch._lazy_clone(x), torch._lazy_clone(y)
        return lambda: call(x, y)

    return on_device(lambda: build(False), lambda: build(True))


def masked(call_softmax):
    """Softmax over 8 batches of 4 heads of 64 keys, of which some are masked."""

    def build(lazy):
        x, mask = torch.randn(8, 4, 64, 64, device="openreg"), torch.zeros(8, 64, dtype=torch.bool, device="openreg")
        mask[:, 50:] = True
        x = torch._lazy_clone(x) if lazy else x
        return lambda: call_softmax(x, mask)

    return on_device(lambda: build(False), lambda: build(True))


def row(name, title, sides):
    return Row(name, f"`{title}`", 1.0, sides, rounds=31)


ROWS = [
    row("kernel-foreach-mul", "_foreach_mul_(list, 0.999)", foreach(lambda a: torch._foreach_mul_(a, 0.999), 1)),
    row("kernel-foreach-lerp", "_foreach_lerp_(list, list, 0.1)", foreach(lambda a, b: torch._foreach_lerp_(a, b, 0.1), 2)),
    row("kernel-foreach-addcmul", "_foreach_addcmul_(list, list, list)", foreach(lambda a, b, c: torch._foreach_addcmul_(a, b, c, 1e-6), 3)),
    row("kernel-foreach-addcdiv", "_foreach_addcdiv_(list, list, list)", foreach(lambda a, b, c: torch._foreach_addcdiv_(a, b, c, 1e-6), 3)),
    row("kernel-adamw", "_fused_adamw_(...)", on_device(fused_adamw(lambda *_: {}), fused_adamw(odd_parameter))),
    row("kernel-layer-norm", "layer_norm(x), 256 x 512", on_device(norm(True), norm(False))),
    row("kernel-layer-norm-backward", "layer_norm's backward, 256 x 512", on_device(norm_backward(True), norm_backward(False))),
    row("kernel-softmax", "x.softmax(1), 256 x 512", rows(lambda x, y: x.softmax(1))),
    row("kernel-softmax-short", "x.softmax(1), 64 x 10", rows(lambda x, y: x.softmax(1), (64, 10))),
    row("kernel-log-softmax", "x.log_softmax(1), 256 x 512", rows(lambda x, y: x.log_softmax(1))),
    row("kernel-safe-softmax", "_safe_softmax(x, 1), 256 x 512", rows(lambda x, y: torch._safe_softmax(x, 1))),
    row("kernel-masked-softmax", "_masked_softmax(x, mask), 2048 x 64", masked(lambda x, mask: torch._masked_softmax(x, mask, 3, 1))),
]
