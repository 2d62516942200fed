"""Private memory pools: memory of one device that only chosen allocations come from and go back to.

A pool keeps its cached memory for itself while it lives. Graphs need that, and so do programs that want one part's
memory apart from the rest.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch.types import Device

from torch_openreg import _C

from . import initialization
from .device import _get_device_index
from .memory_history import memory_snapshot


class MemPool:
    """A pool on the device that is current now, as torch.cuda.MemPool. When it dies, its cached memory goes back to the
    driver, which waits for the device.

    Args:
        allocator: None. Pools with an allocator of their own are not supported.
        use_on_oom: whether the pool's free memory serves other requests before those run out of memory.
        no_split: whether each segment of the pool serves one block only.
    """

    _device: int | None = None

    def __init__(self, allocator: object = None, use_on_oom: bool = False, no_split: bool = False) -> None:
        if allocator is not None:
            raise NotImplementedError("A MemPool of openreg takes its memory from the driver; it has no allocator argument.")
        initialization._lazy_init()
        device = _get_device_index(None, optional=True)
        self._id = _C.new_memory_pool_id(True)
        _C.retain_memory_pool(device, self._id, no_split, use_on_oom)
        self._device = device

    @property
    def id(self) -> tuple[int, int]:
        """Two numbers that no other pool of this process has."""
        return self._id

    @property
    def device(self) -> int:
        """The index of the device whose memory it is."""
        return self._device

    def use_count(self) -> int:
        """1 for this object, and 1 for each `use_mem_pool` that is open."""
        return _C.memory_pool_use_count(self._device, self._id)

    def snapshot(self, include_traces: bool = True) -> list[dict[str, Any]]:
        """The pool's segments, as `torch.openreg.memory_snapshot` gives them."""
        return memory_snapshot(self._id, include_traces)

    def __del__(self) -> None:
        if self._device is None or not initialization.is_initialized():
            return
        _C.release_memory_pool(self._device, self._id)
        _C.empty_memory_pool(self._id)


@contextlib.contextmanager
def use_mem_pool(pool: MemPool, device: Device = None) -> Iterator[None]:
    """Inside the block, the device's allocations of this thread come from the pool. Another thread's do not, such as
    those of a backward pass. The innermost block counts.

    Args:
        pool: a MemPool.
        device: whose allocations; None for the current device.
    """
    index = _get_device_index(device, optional=True)
    initialization._lazy_init()
    _C.begin_allocate_current_thread_to_pool(index, pool.id)
    try:
        yield
    finally:
        _C.end_allocate_to_pool(index, pool.id)
        _C.release_memory_pool(index, pool.id)
