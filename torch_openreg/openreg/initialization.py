"""The start of the driver, at the first use of a device, and the calls that wait for it.

Two ways lead here, Python (`_lazy_init`) and C++ (torch's own lazy initialisation calls `_lazy_init` too, once);
both are idempotent.
"""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable

from torch_openreg import _C, driver

_started = False
_start_lock = threading.Lock()
_starting = threading.local()

# Calls made before the start, oldest first: (kind, call, where it was made).
_waiting: list[tuple[str, Callable[[], object], str]] = []

# A later call of the first kind makes an earlier call of the second kind pointless.
_SUPERSEDES = {"seed": ("seed",), "seed_all": ("seed", "seed_all"), "": ()}


def init() -> None:
    """Starts the driver. Only needed before direct use of the C++ interface: everything else starts it."""
    _lazy_init()


def is_initialized() -> bool:
    """Whether the driver runs in this process. False in a forked child, whatever its parent has done."""
    return _started and not _C.is_in_bad_fork()


def _is_in_bad_fork() -> bool:
    """Whether this process is a fork of one that had started the driver; devices cannot be used here."""
    return _C.is_in_bad_fork()


def _lazy_init() -> None:
    """Starts the driver, and then makes the calls that waited for it, unless this has happened.

    RuntimeError in a forked child, without a driver library and without a visible device; ValueError for a bad
    OPENREG_* variable. All but the first leave the process as it was, so that a later call may succeed.
    """
    global _started
    if is_initialized() or getattr(_starting, "active", False):
        return
    if _C.is_in_bad_fork():
        raise RuntimeError(
            "Cannot re-initialize openreg in forked subprocess. To use openreg with multiprocessing, you must use "
            "the 'spawn' start method"
        )
    with _start_lock:
        if is_initialized():
            return
        _starting.active = True
        try:
            if not _C.is_initialized():
                driver.apply(_C)
            _C.init()
            if _C.device_count() == 0:
                raise RuntimeError(
                    "No openreg device is visible: OPENREG_VISIBLE_DEVICES is "
                    f"'{os.environ.get('OPENREG_VISIBLE_DEVICES', '')}'."
                )
            from .faults import begin_for_process

            begin_for_process()
            _make_waiting_calls()
            _started = True
        finally:
            _starting.active = False


def _lazy_call(call: Callable[[], object], *, seed: bool = False, seed_all: bool = False) -> None:
    """Makes the call now when the driver runs, else right after its start, in the order of calls.

    `seed` and `seed_all` mark calls that seed one generator or all: of those only the latest counts.
    """
    if is_initialized():
        call()
        return
    kind = "seed_all" if seed_all else "seed" if seed else ""
    _waiting[:] = [entry for entry in _waiting if entry[0] not in _SUPERSEDES[kind]]
    _waiting.append((kind, call, "".join(traceback.format_stack(limit=8)[:-1])))


def _make_waiting_calls() -> None:
    while _waiting:
        _, call, made_at = _waiting.pop(0)
        try:
            call()
        except Exception as error:
            raise RuntimeError(
                f"A call that waited for the openreg driver to start failed: {error}\n\nIt was made at:\n{made_at}"
            ) from error


def _after_fork_in_child() -> None:
    global _start_lock
    _start_lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)
