"""The levels of the kit, from the driver up to whole models. This module does not import torch.

A level is made of areas, which are checks written for the kit, and of databases, whose rows are operator calls. A device climbs:
what fails on a lower level is the first suspect for what fails above it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Level:
    """areas: of `check.AREA.NAME` rows. databases: those that belong to the level whole."""

    title: str
    areas: tuple[str, ...] = ()
    databases: tuple[str, ...] = ()


LEVELS = {
    "L0": Level("driver", areas=("driver",)),
    "L1": Level("device, guard, hooks, module", areas=("device", "guard", "hooks", "module")),
    "L2": Level("memory, streams, events, errors", areas=("memory", "stream", "event", "error")),
    "L3": Level("operators", databases=("op", "foreach", "fused", "module", "optim")),
    "L4": Level("what a training script needs", areas=("autograd", "amp", "random", "serialization", "dlpack", "ipc", "profiler")),
    "L5": Level("graphs, compile, distributed", areas=("graph", "compile", "distributed")),
    "L6": Level("calls of real models", databases=("model",)),
}
_OF_AREA = {area: name for name, level in LEVELS.items() for area in level.areas}
_OF_DATABASE = {database: name for name, level in LEVELS.items() for database in level.databases} | {"python_ref": "L3"}
CHECKS = "check"  # the database of the areas


def of(row_name: str) -> str:
    """The level of a row, by the row's name: "L2" for check.stream.wait_event."""
    from . import databases

    database = databases.of(row_name).name
    return _OF_AREA[row_name.split(".")[1]] if database == CHECKS else _OF_DATABASE[database]


def databases_of(names) -> tuple[str, ...]:
    """The databases that these levels take rows from, each once."""
    found = [name for level in names for name in ((CHECKS,) if LEVELS[level].areas else LEVELS[level].databases)]
    return tuple(dict.fromkeys(found))


def parse(text: str) -> tuple[str, ...]:
    """Reads `L0,L2`, `L0-L2` or `all`, in the levels' order. Raises ValueError with a sentence."""
    order, chosen = list(LEVELS), set()
    for part in text.split(","):
        first, dash, last = part.strip().upper().partition("-")
        last = last if dash else first
        if first == "ALL":
            first, last = order[0], order[-1]
        if first not in order or last not in order or order.index(first) > order.index(last):
            raise ValueError(f"{part!r} is not a level; the levels are {', '.join(order)}, as in L0-L2,L4 or all")
        chosen.update(order[order.index(first) : order.index(last) + 1])
    return tuple(name for name in order if name in chosen)
