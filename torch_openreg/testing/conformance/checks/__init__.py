"""Checks: what a device must do beside operators, one function per rule, in a file per area (`..levels` lists the areas).

A check is a function of a Probe whose docstring is the rule, in one sentence, for the vendor who fails it:

    @check
    def an_event_orders_two_streams(probe):
        "Work that is queued behind wait_event sees what was queued before the event."
        ...
        probe.expect(found == wanted, f"the second stream read {found}, expected {wanted}")

It raises Failed (probe.expect does) when the device breaks the rule, NotApplicable when the rule does not apply to a device of
this kind (it has one device, no streams), NotImplementedError for what it lacks; whatever else it raises is the device's error.
A check leaves the current device, streams, memory and settings as they were. Its name is never reused for another rule.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from ..calls import NotApplicable
from ..compare import Mismatch
from ..levels import LEVELS
from .probe import Probe

__all__ = ["Check", "Failed", "NotApplicable", "Probe", "check", "entries"]

Failed = Mismatch


@dataclass(frozen=True)
class Check:
    """name: of the row, `check.AREA.FUNCTION`; rule: the docstring; run(probe)."""

    name: str
    rule: str
    run: Callable[[Probe], None]


_found: dict[str, Check] = {}


def check(function):
    """Makes a row of the function: `check.` with the file's name and the function's."""
    area = function.__module__.rpartition(".")[2]
    name = f"check.{area}.{function.__name__}"
    _found[name] = Check(name, " ".join(function.__doc__.split()), function)
    return function


def entries() -> dict[str, Check]:
    """Every check by its row's name, in the order of the levels."""
    for level in LEVELS.values():
        for area in level.areas:
            importlib.import_module(f".{area}", __name__)
    areas = [area for level in LEVELS.values() for area in level.areas]
    return dict(sorted(_found.items(), key=lambda item: areas.index(item[0].split(".")[1])))
