"""The end of the process: autograd's threads come to rest, queued work finishes or is dropped, the driver stops."""

from __future__ import annotations

import atexit
import os
import sys
import time
import types
from collections.abc import Callable

# At exit, queued work gets this long to finish; what is left then is dropped.
_DRAIN_TIMEOUT_MS = 5000

# Note [Exit after backward]
# torch runs backward on a thread per device (named pt_autograd_0, ...). After it has woken the caller, such a thread
# still drops its references, for which it may need the GIL. When Python is already finalizing, taking the GIL ends the
# thread from inside a destructor, and the process aborts. So, while Python is still whole, this module gives the GIL free
# until these threads sleep. It costs a few milliseconds, only after a backward, and never more than this:
_AUTOGRAD_TIMEOUT_S = 0.5


def prepare(extension: types.ModuleType, before_stop: list[Callable[[], None]], after_stop: list[Callable[[], None]]) -> None:
    """Arranges that the driver of this process stops at its end, and that the functions are called while it still runs, and afterwards."""
    atexit.register(_stop, extension, before_stop, after_stop)


def _stop(extension: types.ModuleType, before_stop: list[Callable[[], None]], after_stop: list[Callable[[], None]]) -> None:
    if extension.is_in_bad_fork() or not extension.is_initialized():
        return
    _wait_for_autograd_threads()
    for call in before_stop:
        call()
    extension.expire_host_functions(_DRAIN_TIMEOUT_MS)
    if not extension.shutdown(_DRAIN_TIMEOUT_MS):
        print(
            f"torch_openreg: work that was still queued {_DRAIN_TIMEOUT_MS / 1000:g} s after the end of the program "
            "was dropped; call torch.openreg.synchronize() before the program ends.",
            file=sys.stderr,
        )
    extension.sanitizer_flush()
    for call in after_stop:
        call()


def _wait_for_autograd_threads() -> None:
    """See Note [Exit after backward]."""
    deadline = time.monotonic() + _AUTOGRAD_TIMEOUT_S
    threads = _autograd_threads()
    asleep = 0  # looks in a row that found all of them asleep
    while threads and asleep < 3 and time.monotonic() < deadline:
        time.sleep(0.001)
        asleep = asleep + 1 if all(map(_sleeps, threads)) else 0


def _autograd_threads() -> list[str]:
    return [thread for thread in os.listdir("/proc/self/task") if _read(thread, "comm").startswith("pt_autograd")]


def _sleeps(thread: str) -> bool:
    return _read(thread, "stat").rpartition(")")[2].split()[:1] in (["S"], [])


def _read(thread: str, file: str) -> str:
    try:
        with open(f"/proc/self/task/{thread}/{file}") as text:
            return text.read()
    except OSError:  # the thread has ended
        return ""
