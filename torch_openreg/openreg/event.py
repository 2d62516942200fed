"""Events: marks in streams that other streams and the host wait for, and that measure device time.

An event belongs to the device of the stream that records it first. It may be recorded again at any time; it then
stands for its latest record.
"""

from __future__ import annotations

import torch

from torch_openreg import _C


class Event(torch.Event):
    """An event, as torch.cuda.Event.

    Args:
        enable_timing: whether `elapsed_time` works with it.
        blocking: accepted for torch.cuda's sake; every wait of openreg gives the processor free.
        interprocess: NotImplementedError when true: events stay in their process.
    """

    def __new__(cls, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False) -> Event:
        if interprocess:
            raise NotImplementedError("openreg events cannot be shared with another process (interprocess=True).")
        return super().__new__(cls, torch.device("openreg"), enable_timing=enable_timing, blocking=blocking)

    def elapsed_time(self, other: torch.Event) -> float:
        """Milliseconds of device time from this event to the other one; negative when that came first.

        Both must measure time, have been recorded on the same device, and be complete.
        """
        return _C.elapsed_time(self, other)  # torch's own refuses subclasses of torch.Event

    def __repr__(self) -> str:
        if self.event_id == 0:
            return "torch.openreg.Event(not recorded)"
        return f"torch.openreg.Event(device={self.device}, event_id={self.event_id:#x})"
