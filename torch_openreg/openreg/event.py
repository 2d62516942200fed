"""Events: marks in streams that other streams and the host wait for, and that measure device time.

An event belongs to the device of the stream that records it first. It may be recorded again at any time; it then
stands for its latest record.
"""

from __future__ import annotations

import ctypes

import torch
from torch.types import Device

from torch_openreg import _C

from . import initialization
from .device import _get_device_index


class Event(torch.Event):
    """An event, as torch.cuda.Event.

    Args:
        enable_timing: whether `elapsed_time` works with it.
        blocking: accepted for torch.cuda's sake; every wait of openreg gives the processor free.
        interprocess: whether other processes can open it by its `ipc_handle`. Such an event belongs to the device that is
            current now, and measures no time: ValueError together with `enable_timing`.
        external: not supported: NotImplementedError when true.
    """

    def __new__(cls, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False, external: bool = False) -> Event:
        if external:
            raise NotImplementedError("An openreg graph has no external events: record and wait for the event outside the capture.")
        if interprocess and enable_timing:
            raise ValueError("An openreg event for several processes measures no time: leave out enable_timing or interprocess.")
        event = super().__new__(cls, torch.device("openreg"), enable_timing=enable_timing, blocking=blocking)
        if interprocess:
            initialization._lazy_init()
            _C.make_interprocess(event, -1)
        return event

    @classmethod
    def from_ipc_handle(cls, device: Device, handle: bytes) -> Event:
        """The event that another process made with interprocess=True and gave the handle of.

        Every process may record it and wait for it; it stands for the latest record of all. ValueError when the other process
        has ended or has dropped the event, and for an event of another device.
        """
        event = super().__new__(cls, torch.device("openreg"))
        initialization._lazy_init()
        _C.open_interprocess(event, handle)
        index = _get_device_index(device, optional=True)
        if event.device.index != index:
            raise ValueError(f"The event belongs to {event.device}, not to openreg:{index}.")
        return event

    def ipc_handle(self) -> bytes:
        """The event's name for other processes, good while an event of this process lives that shares it."""
        return _C.ipc_handle(self)

    def record(self, stream: torch.Stream | None = None) -> None:
        """Stands, from now on, for the work that the stream, None for the current one, has now."""
        super().record() if stream is None else super().record(_check_stream(stream))

    def wait(self, stream: torch.Stream | None = None) -> None:
        """Lets later work of the stream, None for the current one, wait for the event."""
        super().wait() if stream is None else super().wait(_check_stream(stream))

    def elapsed_time(self, other: torch.Event) -> float:
        """Milliseconds of device time from this event to the other one; negative when that came first.

        Both must measure time, have been recorded on the same device, and be complete.
        """
        return _C.elapsed_time(self, other)  # torch's own refuses subclasses of torch.Event

    @property
    def openreg_event(self) -> int:
        """The driver's handle of this event, as torch.cuda.Event.cuda_event; 0 before its first record."""
        return _C.event_native_handle(self)

    @property
    def _as_parameter_(self) -> ctypes.c_void_p:
        return ctypes.c_void_p(self.openreg_event)

    def __repr__(self) -> str:
        if self.event_id == 0:
            return "torch.openreg.Event(not recorded)"
        return f"torch.openreg.Event(device={self.device}, event_id={self.event_id:#x})"


# torch's own methods cast what they get without a look.
def _check_event(event: torch.Event) -> torch.Event:
    if not isinstance(event, torch.Event) or event.device.type != "openreg":
        raise TypeError(f"Expected an event of an openreg device, but got {event!r}.")
    return event


def _check_stream(stream: torch.Stream) -> torch.Stream:
    if not isinstance(stream, torch.Stream) or stream.device.type != "openreg":
        raise TypeError(f"Expected a stream of an openreg device, but got {stream!r}.")
    initialization._lazy_init()
    return stream
