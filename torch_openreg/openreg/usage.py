"""How busy a device is, over all processes of this user: what `nvidia-smi` shows of a GPU, and `openreg smi` of these devices."""

from __future__ import annotations

from torch.types import Device

from torch_openreg import _C

from . import initialization
from .device import _get_device_index
from .memory import mem_get_info

__all__ = ["clock_rate", "device_memory_used", "utilization"]

_WINDOW_NS = 100_000_000


def utilization(device: Device = None) -> float:
    """The percentage of the next 100 milliseconds in which something ran on the device, in any process of this user.

    Returns after these 100 milliseconds. RuntimeError when the driver does not know.
    """
    return _usage(_get_device_index(device, optional=True), _WINDOW_NS)[0] * 100


def device_memory_used(device: Device = None) -> int:
    """Bytes of the device's memory that are taken, as its driver sees them: of this process on the simulated chip."""
    free_bytes, total_bytes = mem_get_info(device)
    return total_bytes - free_bytes


def clock_rate(device: Device = None) -> float:
    """The rate of the device's clock in MHz. Its ticks are nanoseconds on every device."""
    _get_device_index(device, optional=True)
    return 1000.0


def _usage(index: int, window_ns: int) -> tuple[float, int, int]:
    """The busy part, the number of streams, and that of processes."""
    initialization._lazy_init()
    usage = _C.device_usage(index, window_ns)
    if usage is None:
        raise RuntimeError(f"The driver does not know how busy openreg:{index} is: it lacks the optional entry device_usage (docs/hal.md).")
    return usage
