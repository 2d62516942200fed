"""Host time of a training step: the replay of its graph against its eager launch, both on the device.

The queue is empty before each sample, and what the device does with the work is not measured.
"""

from __future__ import annotations

import torch
from torch import nn

import training
from timing import Row, Side


def replaying(build):
    def sides(tiny):
        torch.manual_seed(0)
        model, inputs, classes = build(tiny)
        model, inputs, classes = model.to("openreg"), inputs.to("openreg"), classes.to("openreg")
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, capturable=True, fused=True)

        def step():
            optimizer.zero_grad(set_to_none=False)
            nn.functional.cross_entropy(model(inputs), classes).backward()
            optimizer.step()

        stream, graph = torch.openreg.Stream(), torch.openreg.Graph()
        stream.wait_stream(torch.openreg.current_stream())
        with torch.openreg.stream(stream):
            for _ in range(5):
                step()
        with torch.openreg.graph(graph, stream=stream):
            step()

        def eager():
            with torch.openreg.stream(stream):
                step()

        graph.replay()
        torch.openreg.synchronize()
        return Side(graph.replay, off_clock=torch.openreg.synchronize), Side(eager, off_clock=torch.openreg.synchronize)

    return sides


ROWS = [
    Row("graph-mlp", "MLP, 3 layers of 256, batch 64, fused AdamW", 0.33, replaying(training.mlp)),
    Row("graph-transformer", "Transformer encoder, 2 layers of 64, fused AdamW", 0.33, replaying(training.transformer)),
    Row("graph-cnn", "CNN with batch norm, fused AdamW", 0.33, replaying(training.cnn_with_norm)),
]
