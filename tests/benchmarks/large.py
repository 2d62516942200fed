"""Operators on large tensors, where the kernel is everything: they must run at the CPU's own speed.

At least 2^20 elements go in (matrix products, convolutions: 2^20 come out or more). Both sides allocate their result anew in every call,
as programs do.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from timing import Row, Side

TARGET = 1.05


def on_large(call, *shapes, indices=None):
    """`call` on random tensors of these shapes, with a synchronize per call. `indices`: the shape and bound of a last argument of integers."""

    def sides(tiny):
        generator = torch.Generator().manual_seed(0)
        arguments = [torch.randn([min(n, 16) for n in shape] if tiny else shape, generator=generator) for shape in shapes]
        if indices:
            shape, bound = indices
            shape, bound = ([min(n, 16) for n in shape], min(bound, 16)) if tiny else (shape, bound)
            arguments.append(torch.randint(bound, shape, generator=generator))
        works = []
        for device in ("openreg", "cpu"):
            own = [argument.to(device) for argument in arguments]
            works.append(lambda own=own: call(*own))
            for _ in range(3):
                works[-1]()
        torch.openreg.synchronize()
        return Side(works[0], on_clock=torch.openreg.synchronize), Side(works[1])

    return sides


SQUARE = (1024, 1024)
WIDE = (2048, 2048)
IMAGES = (16, 32, 56, 56)


def row(name, title, call, *shapes, rounds=41, **options):
    return Row(name, f"`{title}`", TARGET, on_large(call, *shapes, **options), rounds=rounds)


ROWS = [
    row("add-large", "x + y", torch.add, WIDE, WIDE),
    row("mul-large", "x * 2", lambda x: x * 2, WIDE),
    row("add_-large", "x.add_(y, alpha=0.1)", lambda x, y: x.add_(y, alpha=1e-3), WIDE, WIDE),
    row("div-broadcast", "x / row", torch.div, WIDE, (2048,)),
    row("compare-large", "x > y", torch.gt, WIDE, WIDE),
    row("where", "torch.where(x > y, x, y)", lambda x, y: torch.where(x > y, x, y), SQUARE, SQUARE),
    row("exp", "x.exp()", torch.exp, SQUARE),
    row("tanh", "x.tanh()", torch.tanh, SQUARE),
    row("sigmoid", "x.sigmoid()", torch.sigmoid, SQUARE),
    row("gelu", "gelu(x)", functional.gelu, SQUARE),
    row("silu", "silu(x)", functional.silu, SQUARE),
    row("relu-large", "relu(x)", functional.relu, WIDE),
    row("clamp", "x.clamp(-1, 1)", lambda x: x.clamp(-1, 1), WIDE),
    row("pow", "x.pow(2)", lambda x: x.pow(2), WIDE),
    row("sqrt-large", "x.abs().sqrt()", lambda x: x.abs().sqrt(), WIDE),
    row("to-half", "x.half()", lambda x: x.half(), WIDE),
    row("transpose-large", "x.t().contiguous()", lambda x: x.t().contiguous(), SQUARE),
    row("cat", "torch.cat([x, y], 1)", lambda x, y: torch.cat([x, y], 1), SQUARE, SQUARE),
    row("masked-fill", "x.masked_fill(x > 0, 0)", lambda x: x.masked_fill(x > 0, 0), SQUARE),
    row("dropout", "dropout(x)", lambda x: functional.dropout(x, 0.5), SQUARE),
    row("rand", "torch.rand_like(x)", torch.rand_like, SQUARE),
    row("sum", "x.sum()", torch.sum, WIDE),
    row("sum-rows", "x.sum(1)", lambda x: x.sum(1), WIDE),
    row("sum-columns", "x.sum(0)", lambda x: x.sum(0), WIDE),
    row("mean", "x.mean(1)", lambda x: x.mean(1), WIDE),
    row("var", "x.var(1)", lambda x: x.var(1), SQUARE),
    row("amax", "x.amax(1)", lambda x: x.amax(1), WIDE),
    row("max", "x.max(1)", lambda x: x.max(1), SQUARE),
    row("argmax", "x.argmax(1)", lambda x: x.argmax(1), SQUARE),
    row("norm", "x.norm()", torch.norm, WIDE),
    row("softmax", "x.softmax(1)", lambda x: x.softmax(1), SQUARE),
    row("log-softmax", "x.log_softmax(1)", lambda x: x.log_softmax(1), SQUARE),
    row("layer-norm", "layer_norm(x)", lambda x, w, b: functional.layer_norm(x, w.shape, w, b), SQUARE, (1024,), (1024,)),
    row("batch-norm", "batch_norm(x)", lambda x: functional.batch_norm(x, None, None, training=True), IMAGES),
    row("mm", "x @ y", torch.mm, SQUARE, SQUARE, rounds=31),
    row("linear", "linear(x, weight, bias)", functional.linear, (2048, 512), (512, 512), (512,), rounds=31),
    row("conv", "conv2d(x, weight)", lambda x, w: functional.conv2d(x, w, padding=1), IMAGES, (32, 32, 3, 3), rounds=31),
    row("max-pool", "max_pool2d(x, 2)", lambda x: functional.max_pool2d(x, 2), IMAGES),
    row("interpolate", "interpolate(x, scale_factor=2)", lambda x: functional.interpolate(x, scale_factor=2.0), (16, 16, 64, 64)),
    row("embedding", "embedding(indices, weight)", lambda w, i: functional.embedding(i, w), (4096, 256), indices=((8192,), 4096)),
    row("sort", "x.sort(1)", lambda x: x.sort(1), SQUARE, rounds=15),
    row("topk", "x.topk(8)", lambda x: x.topk(8), SQUARE, rounds=21),
    row("cumsum", "x.cumsum(1)", lambda x: x.cumsum(1), SQUARE),
    row("gather", "x.gather(1, indices)", lambda x, i: x.gather(1, i), SQUARE, indices=(SQUARE, 1024)),
    row("index-select", "x.index_select(0, indices)", lambda x, i: x.index_select(0, i), SQUARE, indices=((1024,), 1024)),
    row("scatter-add", "x.scatter_add(1, indices, x)", lambda x, i: x.scatter_add(1, i, x), SQUARE, indices=(SQUARE, 1024)),
    row("index-add", "x.index_add(0, indices, x)", lambda x, i: x.index_add(0, i, x), SQUARE, indices=((1024,), 1024)),
]
