"""What one test leaves behind on the devices: memory, another current device or stream, errors that nobody has seen.

`DeviceCheck` is a context manager around the test. It serves any test runner; `device_type.py` puts it around the
tests of torch.testing.
"""

from __future__ import annotations

import gc
import time

import torch

from torch_openreg.openreg.device import _synchronize_all

_ATTEMPTS = 10


class DeviceCheck:
    """Fails what runs inside, with AssertionError, when it leaves a device other than it found it.

    Waits for all devices at the end, so that a late error is raised here and not in a later test. After an exception
    nothing is checked, because its traceback keeps tensors alive; current device and streams are set back, and late
    errors are discarded, so that the next test begins with a clean device. `memory=False` leaves the memory out.
    """

    def __init__(self, name: str, *, memory: bool = True) -> None:
        self.name = name
        self.memory = memory

    def __enter__(self) -> DeviceCheck:
        self._current = _current()
        self._memory = MemoryCheck(self.name) if self.memory else None
        return self

    def __exit__(self, exc_type: object, exc_value: object, traceback: object) -> None:
        changed = _current() != self._current
        found = _describe(_current())
        if changed:
            _restore(self._current)
        if exc_type is not None:
            discard_errors()
            return
        _wait_for_devices()
        if changed:
            raise AssertionError(f"{self.name} left {found} current; before it, that was {_describe(self._current)}.")
        if self._memory is not None:
            self._memory.finish()


class MemoryCheck:
    """Device memory that is in use from now on. Tests whose fixtures end later than their bodies finish it after both."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._before = memory_in_use()
        if any(self._before):
            gc.collect()
            self._before = memory_in_use()

    def allow(self, earlier: list[int]) -> None:
        """What has come since `memory_in_use` was `earlier` may stay."""
        self._before = [before + max(0, now - then) for before, now, then in zip(self._before, memory_in_use(), earlier)]

    def grown(self) -> bool:
        """Whether more is in use now than may be, garbage included."""
        return any(now > before for now, before in zip(memory_in_use(), self._before))

    def finish(self) -> None:
        """AssertionError when more is in use than may be. Garbage in cycles, and what the threads of autograd still hold, has a moment to go first."""
        for attempt in range(_ATTEMPTS):
            now = memory_in_use()
            leaks = [
                f"{after - before} bytes on openreg:{index} ({before} bytes in use before, {after} after)"
                for index, (before, after) in enumerate(zip(self._before, now))
                if after > before
            ]
            if not leaks:
                return
            gc.collect()
            time.sleep(0.01 * attempt)
        raise AssertionError(f"{self.name} leaked device memory: {', '.join(leaks)}.")


def memory_in_use() -> list[int]:
    """Bytes by device."""
    return [torch.openreg.memory_allocated(index) for index in _devices()]


def _devices() -> range:
    return range(torch.openreg.device_count())


def _current() -> tuple[int, list[torch.Stream]]:
    return torch.openreg.current_device(), [torch.openreg.current_stream(index) for index in _devices()]


def _describe(current: tuple[int, list[torch.Stream]]) -> str:
    device, streams = current
    numbers = ", ".join(f"openreg:{index}: {stream.stream_id}" for index, stream in enumerate(streams))
    return f"openreg:{device} (streams {{{numbers}}})"


def _restore(current: tuple[int, list[torch.Stream]]) -> None:
    device, streams = current
    for stream in streams:
        torch.openreg.set_stream(stream)
    torch.openreg.set_device(device)


def _wait_for_devices() -> None:
    """Waits for every device; the first error is raised once none is left that a later test would get."""
    try:
        _synchronize_all()
    except Exception:
        discard_errors()
        raise


def discard_errors() -> bool:
    """Waits for every device and forgets what failed. False when a device goes on failing: it is lost.

    One error is reported per wait, so several streams that failed need several.
    """
    return all(_is_silent(index) for index in _devices())


def _is_silent(index: int) -> bool:
    for _ in range(_ATTEMPTS):
        try:
            torch.openreg.synchronize(index)
            return True
        except Exception:
            continue
    return False
