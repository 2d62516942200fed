"""Operators on large tensors, where the kernel is everything: they must run at the CPU's own speed.

Both sides allocate their result anew in every call, as programs do.
"""

from __future__ import annotations

import torch

from timing import Row, Side


def on_large(call, size, *, count):
    """`call` on `count` square tensors of side `size`, with a synchronize per call."""

    def sides(tiny):
        shape = (32, 32) if tiny else (size, size)
        works = []
        for device in ("openreg", "cpu"):
            arguments = [torch.randn(shape, device=device) for _ in range(count)]
            works.append(lambda arguments=arguments: call(*arguments))
            for _ in range(3):
                works[-1]()
        torch.openreg.synchronize()
        return Side(works[0], on_clock=torch.openreg.synchronize), Side(works[1])

    return sides


ROWS = [
    Row("mm", "`x @ y`, 1024 x 1024", 1.05, on_large(torch.mm, 1024, count=2), rounds=51),
    Row("softmax", "`x.softmax(1)`, 1024 x 1024", 1.05, on_large(lambda x: x.softmax(1), 1024, count=1), rounds=301),
    Row("add-large", "`x + y`, 2048 x 2048", 1.05, on_large(torch.add, 2048, count=2), rounds=201),
]
