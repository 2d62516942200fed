"""Schedules: when queued work runs, chosen while the program runs.

A schedule holds for the whole process. It changes only when nothing is queued, so no piece of work sees two of them.
"""

from __future__ import annotations

import sys

import torch

from torch_openreg import _C

from . import initialization


def current_schedule() -> str:
    """The schedule that holds: "eager", "lazy", "random:SEED", or "" when the driver has one only."""
    initialization._lazy_init()
    return _C.current_schedule()


class schedule:
    """Context manager: work that is queued inside runs under this schedule; the one before comes back after it.

    Args:
        name: "eager", "lazy" or "random:SEED".

    Entering and leaving wait for all devices, and raise late errors as `synchronize` does: leaving raises the first one once the schedule
    has changed. Entering fails with ValueError, and nothing has changed, for another name and while a stream is being captured. An exception
    that leaves the block of a random schedule carries its name as a note (printed to stderr before Python 3.11), so that the same order can
    be had again.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._before: list[str] = []

    def __enter__(self) -> schedule:
        initialization._lazy_init()
        while (before := _C.exchange_schedule(self.name)) is None:
            _synchronize_all()
        try:
            _synchronize_all()  # raises what went wrong before
        except BaseException:
            _restore(before)
            raise
        self._before.append(before)
        return self

    def __exit__(self, kind: object, exception: BaseException | None, traceback: object) -> None:
        late = _restore(self._before.pop())
        for error in (exception, late):
            if error is not None and self.name.startswith("random:"):
                _add_note(error, f"The schedule was {self.name}: torch.openreg.schedule({self.name!r}) runs the same order again.")
        if late is not None:
            raise late


def _restore(before: str) -> BaseException | None:
    """Waits for all devices until the schedule has changed back, and returns the first error. A second Ctrl-C ends the waiting."""
    late = None
    while True:
        try:
            _synchronize_all()
        except BaseException as error:
            if isinstance(late, KeyboardInterrupt) and isinstance(error, KeyboardInterrupt):
                raise
            late = late or error
        if _C.exchange_schedule(before) is not None:
            return late


def _synchronize_all() -> None:
    for device in range(_C.device_count()):
        _C.synchronize(device)


def _add_note(exception: BaseException, note: str) -> None:
    if hasattr(exception, "add_note"):
        exception.add_note(note)
    else:
        print(note, file=sys.stderr)
