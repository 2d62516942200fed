"""Training steps of three small models: forward, backward, optimizer, and one synchronize per step.

The batch and the model are on the device, and nothing reads a result between steps.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from timing import Row, Side


def mlp(tiny):
    width = 16 if tiny else 256
    model = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))
    batch = 4 if tiny else 64
    return model, torch.randn(batch, width), torch.randint(10, (batch,))


class Encoder(nn.Module):
    """Tokens to classes: embedding, two encoder layers, mean over the sequence, linear."""

    def __init__(self, width, heads):
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, batch_first=True)
        self.embedding = nn.Embedding(1000, width)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.classes = nn.Linear(width, 10)

    def forward(self, tokens):
        return self.classes(self.layers(self.embedding(tokens)).mean(1))


def transformer(tiny):
    batch, length, width = (2, 4, 16) if tiny else (8, 32, 64)
    return Encoder(width, 4), torch.randint(1000, (batch, length)), torch.randint(10, (batch,))


def cnn(tiny, norm):
    channels, side, batch = (2, 8, 2) if tiny else (16, 28, 16)
    normalise = nn.BatchNorm2d if norm else nn.Identity
    model = nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1),
        normalise(channels),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(channels, 2 * channels, 3, padding=1),
        normalise(2 * channels),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * channels * (side // 4) ** 2, 10),
    )
    return model, torch.randn(batch, 1, side, side), torch.randint(10, (batch,))


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=1e-3)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=1e-2, momentum=0.9)


def stepping(model, inputs, classes, optimizer):
    """One training step as a function without arguments."""

    def step():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), classes)
        loss.backward()
        optimizer.step()

    return step


def training(build, optimizer):
    """The step on the device and on the CPU, from the same start, after five warm-up steps."""

    def sides(tiny):
        torch.manual_seed(0)
        model, inputs, classes = build(tiny)
        steps = []
        for device in ("openreg", "cpu"):
            own = copy.deepcopy(model).to(device)
            steps.append(stepping(own, inputs.to(device), classes.to(device), optimizer(own.parameters())))
            for _ in range(5):
                steps[-1]()
            torch.openreg.synchronize()
        return Side(steps[0], on_clock=torch.openreg.synchronize), Side(steps[1])

    return sides


def cnn_with_norm(tiny):
    return cnn(tiny, norm=True)


def cnn_without_norm(tiny):
    return cnn(tiny, norm=False)


ROWS = [
    Row("mlp", "MLP, 3 layers of 256, batch 64, AdamW: training step", 0.85, training(mlp, adamw), rounds=301, cores=True),
    Row(
        "transformer",
        "Transformer encoder, 2 layers of 64, batch 8, 32 tokens, AdamW: training step",
        0.85,
        training(transformer, adamw),
        rounds=151,
        cores=True,
    ),
    Row("cnn", "CNN, 2 convolutions, 28 x 28, batch 16, SGD: training step", 0.85, training(cnn_without_norm, sgd), rounds=151, cores=True),
    Row(
        "cnn-norm",
        "The same CNN with batch norm: training step",
        0.85,
        training(cnn_with_norm, sgd),
        rounds=151,
        cores=True,
    ),
]
