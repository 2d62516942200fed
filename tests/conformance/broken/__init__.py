"""Our device, wrong on purpose in one way at a time: what the kit's checks and rows are tested against.

    BROKEN=ignored_set_device openreg conformance run --device openreg --import broken --level L1

Importing this package with BROKEN=NAME breaks the device of this process; without, it only has the list. A variant is a function in the
file of its area that is called once, with torch_openreg imported and no device used yet.
"""

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass

AREAS = (  # the files of this folder with variants
    "driver",
    "device",
    "guard",
    "hooks",
    "module",
    "memory",
    "stream",
    "event",
    "error",
    "autograd",
    "amp",
    "random",
    "serialization",
    "dlpack",
    "ipc",
    "profiler",
    "graph",
    "compile",
    "distributed",
    "operators",
)


@dataclass(frozen=True)
class Variant:
    """fails: row -> words that the row's message has. `check.AREA.NAME` alone, or OP:DTYPE:MODE. environment: before the device starts."""

    name: str
    fails: dict[str, str]
    apply: Callable[[], object]
    environment: dict[str, str]

    @property
    def rule(self) -> str:
        return " ".join(self.apply.__doc__.split())


VARIANTS: dict[str, Variant] = {}
kept = []  # what variants made that must live on: registered operators, patched functions


def variant(fails: dict[str, str], **environment: str):
    """Makes a variant of the function, whose docstring says in one sentence what is wrong with the device. What it returns lives on."""

    def add(function):
        name = function.__name__
        assert name not in VARIANTS, f"two variants are called {name}"
        VARIANTS[name] = Variant(name, fails, function, environment)
        return function

    return add


def row_id(row: str) -> str:
    """The whole name of a row that a variant names."""
    return row if ":" in row else f"{row}:none:check"


def break_device(name: str) -> None:
    """Makes the device of this process wrong, as the variant says, for the rest of its life. ValueError for a name that is none."""
    if name not in VARIANTS:
        raise ValueError(f"BROKEN names a variant, not {name!r}; there are {', '.join(sorted(VARIANTS))}")
    os.environ.update(VARIANTS[name].environment)
    kept.append(VARIANTS[name].apply())


for area in AREAS:
    importlib.import_module(f".{area}", __name__)

if os.environ.get("BROKEN"):
    import torch_openreg

    torch_openreg.load()
    break_device(os.environ["BROKEN"])
