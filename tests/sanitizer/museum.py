"""What an exhibit of the museum is: a wrong program that the sanitizer must catch, and its right twin, which it must accept.

A program is a function of a `Room`, which has two streams and two devices. Its lines that order work (`wait_stream`, `wait_event`, `record_stream`,
`synchronize`) stand alone, so that test_mutations.py can take them away one by one.
"""

import dataclasses
import inspect
import textwrap
from collections.abc import Callable

import torch


class Room:
    """The streams and tensors that exhibits share."""

    def __init__(self):
        self.device = torch.device("openreg:0")
        self.main = torch.openreg.default_stream(0)
        self.side = torch.openreg.Stream(device=0)
        self.third = torch.openreg.Stream(device=0)

    def on(self, stream):
        return torch.openreg.stream(stream)

    def full(self, *sizes, device=None):
        return torch.ones(sizes, device=device or self.device)

    def matrix(self):
        return self.full(32, 32)

    def pinned(self, *sizes):
        return torch.zeros(sizes, pin_memory=True)

    def reuse(self, sizes):
        """Takes the memory that was freed last, as the next operator of a program would."""
        return torch.zeros(sizes, device=self.device)


@dataclasses.dataclass(frozen=True)
class Exhibit:
    rule: str  # the kind of the finding
    family: str  # the operators
    modes: str
    source: str  # where programs of this kind are described
    title: str
    wrong: Callable
    right: Callable

    @property
    def name(self):
        return f"{self.rule}-{self.family}-{self.title}"


EXHIBITS: list[Exhibit] = []


def exhibit(rule, family, source, modes="races,lifetime"):
    """Decorates a class with two static functions, `wrong` and `right`."""

    def add(cls):
        EXHIBITS.append(Exhibit(rule, family, modes, source, cls.__name__, cls.wrong, cls.right))
        return cls

    return add


def source_of(function):
    """The source of an exhibit's program as a module of its own."""
    lines = inspect.getsource(function).splitlines()
    return textwrap.dedent("\n".join(line for line in lines if line.strip() != "@staticmethod"))
