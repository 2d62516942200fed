"""Traces: what the program asked of its devices, and when the devices did it.

A trace holds the driver's records: calls on host threads and operations on streams, with the device's time. docs/tracing.md shows its use.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass

import torch

from torch_openreg import _C

from . import chrome_trace, initialization
from .device import _synchronize_all

_KINDS = dict(enumerate(("launch", "copy", "fill", "record", "wait", "alloc", "free", "sync", "graph"))) | {64: "range"}
_STATUSES = {0: "ok", 1: "not ready", 8: "failed", 9: "device lost"}
_HOST = -1


@dataclass(frozen=True)
class TraceEvent:
    """One call of a host thread, or one operation of a stream. Times are nanoseconds of the device's clock, CLOCK_MONOTONIC in the simulator."""

    kind: str  # "launch", "copy", "fill", "record", "wait", "alloc", "free", "sync", "graph", or "range" under emit_ranges
    is_operation: bool  # False: the call
    name: str  # of the operator, or of the driver's entry
    device: int | None  # None: host memory
    stream: int  # the number that errors name; 0: none
    correlation: int  # the same for a call and its operations
    cause: int  # of a wait: the correlation of the record that it waits for; 0: none, or before the trace
    begin_ns: int
    end_ns: int
    bytes: int
    address: int
    destination: int | None  # device of a copy's destination; None: host memory
    source: int | None
    status: str  # "ok", "not ready" (a wait that timed out), "failed" (or skipped), "device lost", "refused" (the call)
    thread: int  # the system's number of the thread that made the call or ran the operation
    site: str  # the line that launched it, under OPENREG_LAUNCH_TRACE=1


class trace:
    """Context manager: records what is asked of the devices in the block, and what the devices do.

    Args:
        max_events: how many records are kept. Later ones are counted in `dropped`.

    Leaving the block waits for all devices, so that the operations are there, and raises late errors as `synchronize` does; after an
    exception it does not wait. `start()` and `stop()` do the same without a block. A trace before the first use of a device begins with
    it. Several traces may run at a time. NotImplementedError for a driver that keeps no trace.
    """

    def __init__(self, max_events: int = 1_000_000) -> None:
        if max_events < 1:
            raise ValueError(f"max_events is {max_events}: a trace needs room for one event at least.")
        self._buffer = _C.TraceBuffer(max_events)
        self._state = "new"
        self._used_bytes: dict[int, int] = {}
        self._threads: dict[int, str] = {}

    def __enter__(self) -> trace:
        self.start()
        return self

    def __exit__(self, kind: object, exception: BaseException | None, traceback: object) -> None:
        self.stop(synchronize=exception is None)

    def start(self) -> None:
        """Begins; once."""
        if self._state != "new":
            raise RuntimeError("A trace is started once; make a new one.")
        self._state = "waits"
        try:
            initialization._lazy_call(self._begin)
        except BaseException:
            self._state = "new"
            raise

    def stop(self, synchronize: bool = True) -> None:
        """Ends. With `synchronize` it waits for the devices first; the trace ends also when that raises. Again: does nothing."""
        if self._state == "runs":
            try:
                if synchronize:
                    _synchronize_all()
            finally:
                self._note_threads()
                self._buffer.stop()
        self._state = "over"

    def events(self) -> list[TraceEvent]:
        """What was recorded so far, by the begin."""
        return [_event(*fields) for fields in self._buffer.events()]

    @property
    def dropped(self) -> int:
        """How many records came after the first `max_events`."""
        return self._buffer.dropped()

    def export_chrome_trace(self, path: str | os.PathLike[str]) -> None:
        """Writes the trace as JSON for https://ui.perfetto.dev and chrome://tracing: a lane for each stream and each host thread, arrows from calls
        to their operations and from records to the waits for them, and counters of device memory."""
        document = chrome_trace.document(self.events(), self._used_bytes, self._threads, self.dropped)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(document, file)

    def _begin(self) -> None:
        if self._state != "waits":  # it ended before the first use of a device
            return
        for device in range(_C.device_count()):
            free, total = torch._C._accelerator_getMemoryInfo(device)
            self._used_bytes[device] = total - free
        self._note_threads()
        self._buffer.start()
        self._state = "runs"

    def _note_threads(self) -> None:
        self._threads.update((thread.native_id, thread.name) for thread in threading.enumerate() if thread.native_id is not None)


def _event(kind, is_operation, name, device, stream, correlation, cause, begin, end, size, address, destination, source, status, thread, site):
    return TraceEvent(
        _KINDS[kind], is_operation, name, _device(device), stream, correlation, cause, begin, end, size, address, _device(destination), _device(source),
        _STATUSES.get(status, "refused"), thread, site,
    )  # fmt: skip


def _device(index: int) -> int | None:
    return None if index == _HOST else index
