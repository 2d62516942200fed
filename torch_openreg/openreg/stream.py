"""Streams: queues of work on a device that run in order, and independently of each other.

Each thread has one current stream per device. A stream belongs to one device for life; streams come from a pool
(32 per priority and device), so a stream object is only a name and costs nothing to drop.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TypeVar

import torch
from torch.types import Device

from torch_openreg import _C

from . import host_function, initialization
from .device import _get_device_index, _is_no_device
from .event import Event, _check_event, _check_stream

_S = TypeVar("_S", bound="Stream")


class Stream(torch.Stream):
    """A stream of a device, as torch.cuda.Stream.

    Args:
        device: the device that it works for; None or -1 for the current one.
        priority: lower is more urgent; a number outside `priority_range()` counts as the nearest one inside.
    """

    def __new__(cls, device: Device = None, priority: int = 0, **kwargs: int) -> Stream:
        if "stream_id" in kwargs:
            return super().__new__(cls, **kwargs)
        index = _get_device_index(None if _is_no_device(device) else device, optional=True)
        initialization._lazy_init()
        return _wrap(_C.stream_from_pool(index, priority), cls)

    @staticmethod
    def priority_range() -> tuple[int, int]:
        """The least and the greatest priority of the current device's streams; the greatest is the lower number."""
        properties = _C.device_properties(_get_device_index(None, optional=True))
        return properties["priority_least"], properties["priority_greatest"]

    def record_event(self, event: torch.Event | None = None) -> torch.Event:
        """Records the event, a new one if none is given, after the work that the stream has now."""
        event = Event() if event is None else _check_event(event)
        event.record(self)
        return event

    def wait_event(self, event: torch.Event) -> None:
        """Lets later work of the stream wait for the event's latest record."""
        super().wait_event(_check_event(event))

    def wait_stream(self, stream: torch.Stream) -> None:
        """Lets later work of the stream wait for the work that the other stream has now."""
        super().wait_stream(_check_stream(stream))

    def launch_host_func(self, function: Callable[[], object]) -> None:
        """Queues a call of `function` on the host, as cudaLaunchHostFunc: it runs after the work that the stream has now, and what is queued
        behind waits until it returns.

        It runs on a thread of its own for each stream, and may not use the device: a launch or a wait in it is a RuntimeError. What it
        raises is the stream's late error. In a capture it becomes part of the graph.
        """
        host_function.launch(self, function)

    @property
    def openreg_stream(self) -> int:
        """The driver's handle of this stream, as torch.cuda.Stream.cuda_stream."""
        return _C.stream_native_handle(self.stream_id, self.device_index)

    @property
    def priority(self) -> int:
        """The priority that the device gave the stream."""
        return _C.stream_priority(self.stream_id, self.device_index)

    @property
    def _as_parameter_(self) -> ctypes.c_void_p:
        return ctypes.c_void_p(self.openreg_stream)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, torch.Stream) and super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = torch.Stream.__hash__

    def __repr__(self) -> str:
        return f"torch.openreg.Stream(device={self.device}, stream_id={self.stream_id})"


class ExternalStream(Stream):
    """A stream that somebody else created with the same driver, as torch.cuda.ExternalStream.

    Args:
        stream_ptr: the driver's handle.
        device: the device that it was created on; None for the current one. ValueError when it is on another one, and for a
            handle that the driver does not know.

    It is never destroyed here. Whoever does so keeps it alive until its last use, the end of memory that it used included.
    """

    def __new__(cls, stream_ptr: int, device: Device = None, **kwargs: int) -> ExternalStream:
        index = _get_device_index(device, optional=True)
        initialization._lazy_init()
        return _wrap(_C.external_stream(stream_ptr, index), cls)

    def __repr__(self) -> str:
        return f"torch.openreg.ExternalStream(device={self.device}, openreg_stream={self.openreg_stream:#x})"


class StreamContext:
    """Context manager: the stream and its device are current inside; both come back after it.

    None changes nothing.
    """

    def __init__(self, stream: torch.Stream | None) -> None:
        self.stream = None if stream is None else _check_stream(stream)
        self._previous: list[tuple[int, Stream]] = []

    def __enter__(self) -> None:
        if self.stream is not None:
            self._previous.append((_C.current_device(), current_stream(self.stream.device)))
            set_stream(self.stream)

    def __exit__(self, *exc_info: object) -> None:
        if self.stream is not None:
            device_index, previous_stream = self._previous.pop()
            _C.set_stream(previous_stream.stream_id, previous_stream.device_index)
            _C.set_device(device_index)


def stream(stream: torch.Stream | None) -> StreamContext:
    """The context manager that makes a stream current."""
    return StreamContext(stream)


def current_stream(device: Device = None) -> Stream:
    """This thread's current stream of a device."""
    index = _get_device_index(device, optional=True)
    initialization._lazy_init()
    return _wrap(_C.current_stream(index))


def default_stream(device: Device = None) -> Stream:
    """The stream that is current at first, in every thread."""
    index = _get_device_index(device, optional=True)
    initialization._lazy_init()
    return _wrap(_C.default_stream(index))


def get_stream_from_external(data_ptr: int, device: Device = None) -> Stream:
    """The stream with this handle of the driver: see ExternalStream."""
    return ExternalStream(data_ptr, device)


def set_stream(stream: torch.Stream | None) -> None:
    """Makes a stream this thread's current one, and its device the current device. None changes nothing."""
    if stream is None:
        return
    _check_stream(stream)
    _C.set_stream(stream.stream_id, stream.device_index)
    _C.set_device(stream.device_index)


def _wrap(ids: tuple[int, int, int], cls: type[_S] = Stream) -> _S:  # type: ignore[assignment]
    stream_id, device_index, device_type = ids
    return torch.Stream.__new__(cls, stream_id=stream_id, device_index=device_index, device_type=device_type)
