"""Four small models, generated tasks whose answers are known, and the training loop that the tests of this folder share.

A task is (model, batch of inputs, batch of classes) as functions of a seed, made on the CPU, so that every device sees
the same numbers. Needs torch only; works on any device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import torch
from torch import nn

BATCH = 32


@dataclass(frozen=True)
class Task:
    """model: built after torch.manual_seed. batch: takes a CPU generator, gives inputs and their classes."""

    model: Callable[[], nn.Module]
    batch: Callable[[torch.Generator], tuple[torch.Tensor, torch.Tensor]]


def points(generator):
    """Points in 16 dimensions; the class is the nearest of four fixed corners."""
    corners = torch.sign(torch.sin(torch.arange(64.0).reshape(4, 16) ** 2))
    inputs = torch.randn(BATCH, 16, generator=generator)
    return inputs, torch.cdist(inputs, corners).argmin(1)


def bars(generator):
    """Noisy images of 12 x 12 with one bright bar; the class is its direction: across, down, diagonal."""
    inputs = 0.3 * torch.randn(BATCH, 1, 12, 12, generator=generator)
    classes = torch.randint(3, (BATCH,), generator=generator)
    places = torch.randint(12, (BATCH,), generator=generator)
    along = torch.arange(12)
    for image, direction, place in zip(inputs, classes.tolist(), places.tolist()):
        rows = place if direction == 0 else along
        columns = along if direction == 0 else place if direction == 1 else (along + place) % 12
        image[0, rows, columns] += 1
    return inputs, classes


def votes(generator):
    """Sequences of 15 votes, +1 or -1; the class is the majority."""
    inputs = torch.randint(2, (BATCH, 15, 1), generator=generator) * 2.0 - 1.0
    return inputs, (inputs.sum((1, 2)) > 0).long()


def words(generator):
    """Sequences of 8 tokens out of 20, with one 0 and one 1 among them; the class is whether the 0 comes first."""
    tokens = torch.randint(2, 20, (BATCH, 8), generator=generator)
    places = torch.rand(BATCH, 8, generator=generator).argsort(1)[:, :2]
    return tokens.scatter_(1, places, torch.arange(2).expand(BATCH, 2)), (places[:, 0] < places[:, 1]).long()


def mlp():
    return nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 4))


def cnn():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(144, 3),
    )


class Recurrent(nn.Module):
    """An LSTM of two layers, read at the last step."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(1, 24, num_layers=2, batch_first=True)
        self.classes = nn.Linear(24, 2)

    def forward(self, inputs):
        return self.classes(self.lstm(inputs)[0][:, -1])


class Encoder(nn.Module):
    """Embedding with positions, two encoder layers (scaled dot product attention), mean over the sequence."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(20, 32)
        self.positions = nn.Parameter(torch.randn(8, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.classes = nn.Linear(32, 2)

    def forward(self, tokens):
        return self.classes(self.layers(self.tokens(tokens) + self.positions).mean(1))


TASKS = {
    "mlp": Task(mlp, points),
    "cnn": Task(cnn, bars),
    "lstm": Task(Recurrent, votes),
    "transformer": Task(Encoder, words),
}

OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=3e-3, foreach=False),
    "adamw_foreach": lambda parameters: torch.optim.AdamW(parameters, lr=3e-3, foreach=True),
    "adamw_fused": lambda parameters: torch.optim.AdamW(parameters, lr=3e-3, fused=True),
}


class Training:
    """A model, its optimizer and its data on one device, trained step by step."""

    def __init__(self, task: str, optimizer: str, device, seed: int = 0):
        torch.manual_seed(seed)
        self.task, self.device = TASKS[task], torch.device(device)
        self.model = self.task.model().to(self.device)
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        self.data = torch.Generator().manual_seed(seed)

    def batch(self):
        """The next batch, on the device."""
        return [tensor.to(self.device) for tensor in self.task.batch(self.data)]

    def step(self, inputs, classes):
        """One training step. Returns the loss, which stays on the device."""
        self.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.model(inputs), classes)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def curve(self, steps: int) -> list[float]:
        """The losses of that many steps. They are read after the last one."""
        return torch.stack([self.step(*self.batch()) for _ in range(steps)]).tolist()

    def accuracy(self) -> float:
        """The share of right answers on new data."""
        self.model.eval()
        with torch.no_grad():
            batches = [self.batch() for _ in range(4)]
            right = [(self.model(inputs).argmax(1) == classes).float().mean() for inputs, classes in batches]
        return torch.stack(right).mean().item()

    def state(self) -> dict:
        """A checkpoint; `load` takes it back."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "data": self.data.get_state()}

    def load(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.data.set_state(state["data"].cpu())
