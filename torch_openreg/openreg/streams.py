"""`torch.openreg.streams`, the module that torch.cuda and torch.xpu call so: streams and events under one name."""

from __future__ import annotations

from .event import Event
from .stream import ExternalStream, Stream

__all__ = ["Event", "ExternalStream", "Stream"]
