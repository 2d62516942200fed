"""Device memory: how much is used, by whom the caching allocator keeps it, and giving it back.

*Allocated* is what tensors use. *Reserved* is what the caching allocator holds: allocated memory plus blocks kept
for reuse. All numbers are of this process, in bytes unless the name says otherwise.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch.types import Device

from torch_openreg import _C

from . import initialization
from .device import _get_device_index

__all__ = [
    "empty_cache",
    "host_memory_stats",
    "max_memory_allocated",
    "max_memory_reserved",
    "mem_get_info",
    "memory_allocated",
    "memory_reserved",
    "memory_stats",
    "memory_stats_as_nested_dict",
    "memory_summary",
    "reset_accumulated_memory_stats",
    "reset_peak_memory_stats",
]


def empty_cache() -> None:
    """Gives the unused blocks of every device's caching allocator back to the driver."""
    torch.accelerator.empty_cache()


def memory_allocated(device: Device = None) -> int:
    """Bytes in use by tensors of the device."""
    return _counter(device, "allocated_bytes.all.current")


def max_memory_allocated(device: Device = None) -> int:
    """The most that `memory_allocated` has been since the start or `reset_peak_memory_stats`."""
    return _counter(device, "allocated_bytes.all.peak")


def memory_reserved(device: Device = None) -> int:
    """Bytes that the caching allocator holds: in use, or kept for reuse."""
    return _counter(device, "reserved_bytes.all.current")


def max_memory_reserved(device: Device = None) -> int:
    """The most that `memory_reserved` has been since the start or `reset_peak_memory_stats`."""
    return _counter(device, "reserved_bytes.all.peak")


def memory_stats(device: Device = None) -> dict[str, Any]:
    """The caching allocator's counters, flat: {"allocated_bytes.all.current": 512, ..., "num_ooms": 0}.

    Keys are those of torch.cuda.memory_stats. Empty before the first use of a device.
    """
    flat: dict[str, Any] = {}

    def flatten(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                flatten(f"{prefix}.{key}" if prefix else key, inner)
        else:
            flat[prefix] = value

    flatten("", memory_stats_as_nested_dict(device))
    return OrderedDict(sorted(flat.items()))


def memory_stats_as_nested_dict(device: Device = None) -> dict[str, Any]:
    """The caching allocator's counters as they are: {"allocated_bytes": {"all": {"current": 512, ...}}}."""
    index = _index_if_used(device)
    return {} if index is None else torch._C._accelerator_getDeviceStats(index)


def reset_peak_memory_stats(device: Device = None) -> None:
    """Lets every peak start again from the current value."""
    index = _index_if_used(device)
    if index is not None:
        torch._C._accelerator_resetPeakStats(index)


def reset_accumulated_memory_stats(device: Device = None) -> None:
    """Sets the totals of what was ever allocated and freed, and the event counts, to zero."""
    index = _index_if_used(device)
    if index is not None:
        torch._C._accelerator_resetAccumulatedStats(index)


def mem_get_info(device: Device = None) -> tuple[int, int]:
    """Free and total memory of the device as the driver sees them. What the cache keeps is not free."""
    index = _get_device_index(device, optional=True)
    initialization._lazy_init()
    free_bytes, total_bytes = torch._C._accelerator_getMemoryInfo(index)
    return free_bytes, total_bytes


def host_memory_stats() -> dict[str, Any]:
    """Counters of the pinned host memory that the caching host allocator holds."""
    return _C.host_memory_stats() if initialization.is_initialized() else {}


_SUMMARY_ROWS = (
    ("allocated_bytes", "Allocated memory", True),
    ("active_bytes", "Active memory", True),
    ("requested_bytes", "Requested memory", True),
    ("reserved_bytes", "Reserved memory", True),
    ("inactive_split_bytes", "Split, unused memory", True),
    ("allocation", "Allocations", False),
    ("active", "Active blocks", False),
    ("segment", "Segments", False),
    ("inactive_split", "Split, unused blocks", False),
)
_SUMMARY_POOLS = (("all", ""), ("large_pool", "  in the large pool"), ("small_pool", "  in the small pool"))
_SUMMARY_COLUMNS = ("current", "peak", "allocated", "freed")


def memory_summary(device: Device = None, abbreviated: bool = False) -> str:
    """A table of `memory_stats` for people; `abbreviated` leaves out the split by pool."""
    index = _get_device_index(device, optional=True)
    stats = memory_stats(index)
    header = "".join(f"{name:>14}" for name in ("now", "peak", "total taken", "total given"))
    lines = [
        f"Memory of openreg:{index}: {stats.get('num_ooms', 0)} out-of-memory errors, "
        f"{stats.get('num_alloc_retries', 0)} retries after emptying the cache",
        f"{'':24}{header}",
    ]
    for key, title, is_size in _SUMMARY_ROWS:
        for pool, pool_title in _SUMMARY_POOLS[: 1 if abbreviated else None]:
            values = [stats.get(f"{key}.{pool}.{column}", 0) for column in _SUMMARY_COLUMNS]
            cells = "".join(f"{_format_size(value) if is_size else str(value):>14}" for value in values)
            lines.append(f"{pool_title or title:24}{cells}")
    return "\n".join(lines) + "\n"


def _counter(device: Device, name: str) -> int:
    return int(memory_stats(device).get(name, 0))


def _format_size(size_bytes: int) -> str:
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            break
        size /= 1024
    else:
        unit = "GiB"
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def _index_if_used(device: Device) -> int | None:
    """The device's index, or None when nothing has been allocated on any device; checks it in both cases."""
    if device is None and not initialization.is_initialized():
        return None
    index = _get_device_index(device, optional=True)
    return index if torch._C._accelerator_isAllocatorInitialized() else None
