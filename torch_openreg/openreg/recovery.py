"""Lost devices: giving one up, asking, and bringing it back, in place of the restart that other accelerators need.

A lost device raises torch.AcceleratorError at every call that needs it, until it is reset.
"""

from __future__ import annotations

import time

import torch

from torch_openreg import _C

from . import initialization
from .device import Device, _get_device_index


def abandon(device: Device = None, reason: str = "the program gave it up") -> None:
    """Gives a device up, as failing hardware would: it is lost from now on, for the given reason.

    Work that is queued on it is dropped, and waits for it in other threads end with the error. A kernel that is running is not waited for. Nothing
    happens to a device that is lost already.
    """
    index = _get_device_index(device, optional=True)
    initialization._lazy_init()
    _C.abandon_device(index, str(reason))


def is_lost(device: Device = None) -> bool:
    """Whether a device is lost. Never waits, and never raises its error."""
    index = _get_device_index(device, optional=True)
    initialization._lazy_init()
    return _C.loss_reason(index) is not None


def reset(device: Device = None, timeout: float = 10.0) -> None:
    """Brings a lost device back, with empty streams. Nothing happens to a device that is not lost.

    Tensors keep their memory and its addresses, and lose their values: fill them again, from a checkpoint for example. Streams, events, graphs and
    random generators stay valid.

    Waits up to `timeout` seconds for a kernel that was running when the device was lost, because it could still write to memory; RuntimeError,
    and the device stays lost, when the kernel has not ended by then.
    """
    index = _get_device_index(device, optional=True)
    initialization._lazy_init()
    deadline = time.monotonic() + timeout
    while not _C.try_reset_device(index):
        if time.monotonic() >= deadline:
            raise RuntimeError(
                f"openreg:{index} cannot be reset: a kernel that was running when the device was lost has not ended within {timeout:g} s, "
                "and it could write to memory that others get."
            )
        time.sleep(0.001)
    torch.openreg.synchronize(index)
