"""Tensors between processes: what pickles a device storage into a message of torch.multiprocessing, and out of it.

torch's own reducers turn tensors, parameters and their kin into a storage and metadata; only the storage needs help. The message holds no
data: receiver and sender work on the same memory. The sender keeps it until the receivers have let go, whether they drop the
tensor, end or crash.
"""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler

import torch
from torch.multiprocessing import reductions

from torch_openreg import _C

from . import initialization

_BACKEND = "openreg"


def ipc_collect() -> None:
    """Frees device memory whose receivers have let go, and unmaps memory that was received and dropped.

    Sending and receiving do it too, and so does the allocator before it reports that memory is used up.
    """
    _C.collect_shared_memory()


def prepare() -> None:
    """Makes torch.multiprocessing's pickler know device storages. Those of every other device go where they went before."""
    ForkingPickler.register(torch.UntypedStorage, _reduce_storage)


def _reduce_storage(storage: torch.UntypedStorage) -> tuple[Callable[..., object], tuple[object, ...]]:
    if storage.device.type != _BACKEND:
        return reductions.reduce_storage(storage)
    return _rebuild_storage, (_C.share_storage(storage),)


def _rebuild_storage(name: bytes) -> torch.UntypedStorage:
    initialization._lazy_init()
    return _C.open_storage(name)
