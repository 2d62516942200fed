"""What a call costs the host: launching a small operator, draining many of them, views and allocation.

The tensors have 16 elements, so that the arithmetic is nothing and the way to the kernel is everything.
"""

from __future__ import annotations

import torch

from timing import Row, Side

LAUNCHES = 500


def repeated(call, *arguments):
    """`call(*arguments)` 500 times."""

    def work():
        for _ in range(LAUNCHES):
            call(*arguments)

    return work


def on_both(call, *shapes):
    """The work on the device and on the CPU, both warm."""
    works = []
    for device in ("openreg", "cpu"):
        work = repeated(call, *(torch.randn(shape, device=device) for shape in shapes))
        work()
        torch.openreg.synchronize()
        works.append(work)
    return works


def launching(call, *shapes):
    """Host time of the launches; the device finishes after the clock has stopped."""

    def sides(tiny):
        device, cpu = on_both(call, *shapes)
        return Side(device, off_clock=torch.openreg.synchronize), Side(cpu)

    return sides


def draining(call, *shapes):
    """Host time of the launches and of one synchronize."""

    def sides(tiny):
        device, cpu = on_both(call, *shapes)
        return Side(device, on_clock=torch.openreg.synchronize), Side(cpu)

    return sides


def allocating(tiny):
    def empties(device):
        def work():
            for _ in range(LAUNCHES):
                torch.empty(16, device=device)

        return work

    device, cpu = empties(torch.device("openreg")), empties(torch.device("cpu"))
    device()
    cpu()
    return Side(device), Side(cpu)


ROWS = [
    Row("add-launch", "`x + y`, 16 elements: 500 launches, host time before the synchronize", 1.5, launching(torch.add, 16, 16)),
    Row("add-drained", "`x + y`, 16 elements: 500 launches and a synchronize", 2.0, draining(torch.add, 16, 16)),
    Row("slice", "`x[1:]`", 1.2, launching(lambda x: x[1:], 16)),
    Row("view", "`x.view(4, 4)`", 1.2, launching(lambda x: x.view(4, 4), 16)),
    Row("transpose", "`x.t()`", 1.2, launching(lambda x: x.t(), (4, 4))),
    Row("empty", "`torch.empty(16)`", 1.2, allocating),
]
