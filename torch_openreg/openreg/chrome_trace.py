"""Trace events as the JSON that Perfetto and chrome://tracing read. Needs no device.

A process for the host, with a lane for each thread, and one for each device, with a lane for each stream. Times are microseconds since the first event.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .trace import TraceEvent

_FIRST_DEVICE = 10_000_000  # as the number of a process: above every process of the system


def document(events: list[TraceEvent], used_bytes: dict[int, int], threads: dict[int, str], dropped: int) -> dict[str, Any]:
    """The whole file. used_bytes: memory in use at the begin, by device; threads: names by number; dropped: how many events are missing."""
    events = _merged(events)
    origin = min((event.begin_ns for event in events), default=0)
    lines = [*_names(events, threads), *_slices(events, origin), *_arrows(events, origin), *_memory(events, used_bytes, origin)]
    return {"traceEvents": lines, "displayTimeUnit": "ns", "otherData": {"begin_ns": origin, "dropped_events": dropped}}


def _merged(events: list[TraceEvent]) -> list[TraceEvent]:
    """A long wait of the host is many calls, each with a limit; here it is one."""
    kept: list[TraceEvent] = []
    waiting: dict[int, int] = {}  # thread -> where its unfinished wait stands in `kept`
    for event in events:
        at = waiting.pop(event.thread, None) if event.kind == "sync" else None
        if at is not None and (kept[at].name, kept[at].device, kept[at].stream) == (event.name, event.device, event.stream):
            kept[at] = type(event)(**{**event.__dict__, "begin_ns": kept[at].begin_ns})
        else:
            at = len(kept)
            kept.append(event)
        if event.kind == "sync" and event.status == "not ready":
            waiting[event.thread] = at
        elif not event.is_operation and event.kind != "range":
            waiting.pop(event.thread, None)
    return kept


def _lane(event: TraceEvent) -> dict[str, int]:
    if event.is_operation and event.device is not None:
        return {"pid": _FIRST_DEVICE + event.device, "tid": event.stream}
    return {"pid": os.getpid(), "tid": event.thread}


def _names(events: list[TraceEvent], threads: dict[int, str]) -> Iterator[dict[str, Any]]:
    host = os.getpid()
    lanes = sorted({tuple(_lane(event).values()) for event in events})
    for pid in sorted({host, *(pid for pid, _ in lanes)}):
        name = "host" if pid == host else f"openreg:{pid - _FIRST_DEVICE}"
        yield {"ph": "M", "name": "process_name", "pid": pid, "args": {"name": name}}
        yield {"ph": "M", "name": "process_sort_index", "pid": pid, "args": {"sort_index": 0 if pid == host else pid}}
    for pid, tid in lanes:
        name = threads.get(tid, f"thread {tid}") if pid == host else f"stream {tid}"
        yield {"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": name}}


def _slices(events: list[TraceEvent], origin: int) -> Iterator[dict[str, Any]]:
    for event in events:
        details: dict[str, Any] = {} if event.kind == "range" else {"correlation": event.correlation, "status": event.status}
        if event.cause:
            details["cause"] = event.cause
        if event.bytes:
            details["bytes"] = event.bytes
        if event.kind == "copy":
            details["from"], details["to"] = _place(event.source), _place(event.destination)
        if not event.is_operation and event.device is not None:
            details["device"], details["stream"] = f"openreg:{event.device}", event.stream
        if event.site:
            details["site"] = event.site
        yield {
            **_lane(event), "ph": "X", "cat": event.kind, "name": event.name, "ts": (event.begin_ns - origin) / 1000,
            "dur": (event.end_ns - event.begin_ns) / 1000, "args": details,
        }  # fmt: skip


def _place(device: int | None) -> str:
    return "host" if device is None else f"openreg:{device}"


def _arrows(events: list[TraceEvent], origin: int) -> Iterator[dict[str, Any]]:
    """From each call to its operations, and from what a wait waits for to the wait's end."""
    numbers = itertools.count(1)
    calls = {event.correlation: event for event in events if not event.is_operation and event.correlation}
    operations: dict[int, list[TraceEvent]] = {}
    for event in events:
        if event.is_operation:
            operations.setdefault(event.correlation, []).append(event)
    for event in events:
        if event.is_operation and event.correlation in calls:
            call = calls[event.correlation]
            yield from _arrow("launch", call, call.begin_ns, event, event.begin_ns, next(numbers), origin)
        if event.is_operation and event.kind == "wait" and (source := _source(event, operations.get(event.cause, []))):
            yield from _arrow("wait", source, source.begin_ns, event, event.end_ns, next(numbers), origin)


def _source(wait: TraceEvent, candidates: list[TraceEvent]) -> TraceEvent | None:
    """The record that a wait waits for. All operations of a graph launch have one correlation: then it is the last that ended in time."""
    ended = [event for event in candidates if event.end_ns <= wait.end_ns and event is not wait]
    return max(ended, key=lambda event: (event.kind == "record", event.end_ns), default=None)


def _arrow(kind, source, begin, target, end, number, origin):
    yield {**_lane(source), "ph": "s", "cat": kind, "name": kind, "id": number, "ts": (begin - origin) / 1000}
    yield {**_lane(target), "ph": "f", "bp": "e", "cat": kind, "name": kind, "id": number, "ts": (end - origin) / 1000}


def _memory(events: list[TraceEvent], used_bytes: dict[int, int], origin: int) -> Iterator[dict[str, Any]]:
    used = dict(used_bytes)
    for device, bytes_ in used.items():
        yield _counter(device, bytes_, 0)
    for event in sorted((e for e in events if e.kind in ("alloc", "free") and e.status == "ok" and e.device is not None), key=lambda e: e.end_ns):
        used[event.device] = used.get(event.device, 0) + (event.bytes if event.kind == "alloc" else -event.bytes)
        yield _counter(event.device, used[event.device], (event.end_ns - origin) / 1000)


def _counter(device: int, bytes_: int, ts: float) -> dict[str, Any]:
    return {"ph": "C", "name": "device memory", "pid": _FIRST_DEVICE + device, "ts": ts, "args": {"bytes": bytes_}}
