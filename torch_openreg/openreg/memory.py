"""Device memory: how much is used, by whom the caching allocator keeps it, and giving it back.

*Allocated* is what tensors use. *Reserved* is what the caching allocator holds: allocated memory plus blocks kept
for reuse. All numbers are of this process, in bytes unless the name says otherwise.
"""

from __future__ import annotations

import contextlib
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.types import Device

from torch_openreg import _C

from . import initialization
from .device import _get_device_index
from .memory_history import (
    _allocation_traceback,
    _dump_snapshot,
    _get_memory_metadata,
    _record_memory_history,
    _set_memory_metadata,
    _snapshot,
    memory_snapshot,
)
from .memory_pool import MemPool, use_mem_pool
from .stream import current_stream

__all__ = [
    "_allocation_traceback",
    "_dump_snapshot",
    "_get_memory_metadata",
    "_record_memory_history",
    "_set_memory_metadata",
    "_snapshot",
    "MemPool",
    "attach_out_of_memory_observer",
    "caching_allocator_alloc",
    "caching_allocator_delete",
    "caching_allocator_disabled",
    "caching_allocator_enable",
    "empty_cache",
    "get_allocator_backend",
    "get_per_process_memory_fraction",
    "host_memory_stats",
    "host_memory_stats_as_nested_dict",
    "list_gpu_processes",
    "max_memory_allocated",
    "max_memory_cached",
    "max_memory_reserved",
    "mem_get_info",
    "memory_allocated",
    "memory_cached",
    "memory_reserved",
    "memory_snapshot",
    "memory_stats",
    "memory_stats_as_nested_dict",
    "memory_summary",
    "reset_accumulated_host_memory_stats",
    "reset_accumulated_memory_stats",
    "reset_max_memory_allocated",
    "reset_max_memory_cached",
    "reset_peak_host_memory_stats",
    "reset_peak_memory_stats",
    "set_per_process_memory_fraction",
    "use_mem_pool",
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

    Keys are those of torch.cuda.memory_stats; docs/memory.md says what each counts. A pool's id (0, 1) is written
    0_1 in them. Empty before the first use of a device.
    """
    return _flat(memory_stats_as_nested_dict(device))


def memory_stats_as_nested_dict(device: Device = None) -> dict[str, Any]:
    """The caching allocator's counters as they are: {"allocated_bytes": {"all": {"current": 512, ...}}}."""
    index = _index_if_used(device)
    return {} if index is None else _C.memory_stats(index)


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
    """Counters of the pinned host memory that the caching host allocator holds, flat, with the keys of torch.cuda."""
    return _flat(host_memory_stats_as_nested_dict())


def host_memory_stats_as_nested_dict() -> dict[str, Any]:
    """The same as they are: {"allocated_bytes": {"current": 4096, ...}, ...}. Times are in microseconds."""
    return _C.host_memory_stats() if _C.is_initialized() else {}  # pinning starts the driver without Python's share in it


def reset_accumulated_host_memory_stats() -> None:
    """Sets the totals of pinned memory that was ever allocated and freed to zero."""
    _C.reset_accumulated_host_memory_stats()


def reset_peak_host_memory_stats() -> None:
    """Lets every peak of pinned memory start again from the current value."""
    _C.reset_peak_host_memory_stats()


def memory_cached(device: Device = None) -> int:
    """The old name of `memory_reserved`."""
    warnings.warn("torch.openreg.memory_cached has been renamed to torch.openreg.memory_reserved", FutureWarning, stacklevel=2)
    return memory_reserved(device)


def max_memory_cached(device: Device = None) -> int:
    """The old name of `max_memory_reserved`."""
    warnings.warn("torch.openreg.max_memory_cached has been renamed to torch.openreg.max_memory_reserved", FutureWarning, stacklevel=2)
    return max_memory_reserved(device)


def reset_max_memory_allocated(device: Device = None) -> None:
    """The old name of `reset_peak_memory_stats`."""
    warnings.warn("torch.openreg.reset_max_memory_allocated now resets every peak: use torch.openreg.reset_peak_memory_stats", FutureWarning, stacklevel=2)
    reset_peak_memory_stats(device)


def reset_max_memory_cached(device: Device = None) -> None:
    """The old name of `reset_peak_memory_stats`."""
    warnings.warn("torch.openreg.reset_max_memory_cached now resets every peak: use torch.openreg.reset_peak_memory_stats", FutureWarning, stacklevel=2)
    reset_peak_memory_stats(device)


def set_per_process_memory_fraction(fraction: float, device: Device = None) -> None:
    """Lets this process reserve at most this part, 0.0 to 1.0, of the device's memory; beyond it is out of memory."""
    if not isinstance(fraction, float):
        raise TypeError(f"The memory fraction is a float from 0.0 to 1.0, not {type(fraction).__name__}.")
    initialization._lazy_init()
    _C.set_memory_fraction(_get_device_index(device, optional=True), fraction)


def get_per_process_memory_fraction(device: Device = None) -> float:
    """What `set_per_process_memory_fraction` set; 1.0 at first."""
    initialization._lazy_init()
    return _C.memory_fraction(_get_device_index(device, optional=True))


def caching_allocator_alloc(size: int, device: Device = None, stream: torch.Stream | int | None = None) -> int:
    """The address of `size` bytes of device memory, for other libraries; 0 for no bytes.

    Args:
        size: in bytes.
        device: whose memory; None for the current device.
        stream: the stream of the device that it is for, or its `stream_id`; None for the current one. ValueError for one that is not there.
    """
    index = _get_device_index(device, optional=True)
    initialization._lazy_init()
    if stream is None:
        stream = current_stream(index)
    if isinstance(stream, torch.Stream):
        if stream.device_index != index:
            raise ValueError(f"The stream belongs to openreg:{stream.device_index}, and the memory to openreg:{index}.")
        stream = stream.stream_id
    if not isinstance(stream, int):
        raise TypeError(f"stream is a torch.openreg.Stream or its stream_id, not {type(stream).__name__}.")
    return _C.allocate_block(index, stream, size)


def caching_allocator_delete(mem_ptr: int) -> None:
    """Gives back what `caching_allocator_alloc` returned. ValueError for another address, a tensor's too."""
    _C.free_block(mem_ptr)


def caching_allocator_enable(value: bool = True) -> None:
    """Whether memory that is freed from now on stays in the cache. Memory from a time without caching never does."""
    _C.set_memory_caching(value)


@contextlib.contextmanager
def caching_allocator_disabled() -> Iterator[None]:
    """No caching inside the block, in all threads: each allocation asks the driver."""
    before = _C.memory_caching()
    caching_allocator_enable(False)
    try:
        yield
    finally:
        caching_allocator_enable(before)


def get_allocator_backend() -> str:
    """The name of the allocator, which is always "native"."""
    return "native"


def attach_out_of_memory_observer(observer: Callable[[int, int, int, int], object]) -> None:
    """Calls observer(device index, bytes asked for, bytes allocated, bytes free) before each OutOfMemoryError, for ever."""
    _C.attach_out_of_memory_observer(observer)


def list_gpu_processes(device: Device = None) -> str:
    """The processes that hold memory of the device, a line each, as torch.cuda writes them.

    Their ids and sizes are those that the driver knows; it sees processes of this user.
    """
    index = _get_device_index(device, optional=True)
    initialization._lazy_init()
    processes = _C.device_processes(index)
    lines = [f"GPU:{index}"]
    if processes is None:
        return f"GPU:{index}\nthe driver does not know the processes"
    if not processes:
        lines.append("no processes are running")
    lines += [f"process {pid:>10d} uses {size / 2**20:>12.3f} MB GPU memory" for pid, size in sorted(processes)]
    return "\n".join(lines)


def _set_allocator_settings(env: str) -> None:
    """Changes the allocator's settings, a string as in PYTORCH_ALLOC_CONF. Of those that it does not name,
    max_split_size_mb, roundup_power2_divisions and garbage_collection_threshold return to their defaults, by torch's
    rule, and the others stay. ValueError for a string that makes no sense, and nothing has changed."""
    _C.set_allocator_settings(env)


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
_SUMMARY_TOTALS = (("oversize_allocations", "Oversize allocations"), ("oversize_segments", "Oversize segments"))
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
    if not abbreviated:
        for key, title in _SUMMARY_TOTALS:
            cells = "".join(f"{stats.get(f'{key}.{column}', 0):>14}" for column in _SUMMARY_COLUMNS)
            lines.append(f"{title:24}{cells}")
    return "\n".join(lines) + "\n"


def _counter(device: Device, name: str) -> int:
    """One number of memory_stats, without making all of its names: programs ask for it at every step."""
    found: Any = memory_stats_as_nested_dict(device)
    if not found:
        return 0
    for key in name.split("."):
        found = found[key]
    return int(found)


def _flat(nested: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}

    def flatten(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                name = "_".join(map(str, key)) if isinstance(key, tuple) else key
                flatten(f"{prefix}.{name}" if prefix else name, inner)
        else:
            flat[prefix] = value

    flatten("", nested)
    return OrderedDict(sorted(flat.items()))


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
