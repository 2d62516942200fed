"""A hot section: code in which the host neither waits for the device nor computes in its place.

Inside, a call that makes the host wait (`.item()`, `.cpu()`, `nonzero`, ...) raises RuntimeError where it is, by torch.openreg.set_sync_debug_mode, and
so does an operator whose result is a CPU tensor with a dimension. Views of CPU tensors and uploads from pinned memory pass.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _DeviceOnly(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not _makes_view(func):
            for tensor in tree_leaves(result):
                if isinstance(tensor, torch.Tensor) and tensor.device.type == "cpu" and tensor.dim() > 0:
                    raise RuntimeError(
                        f"{func} ran on the CPU in a hot section: its result, of shape {tuple(tensor.shape)}, is a CPU tensor. "
                        f"Make its operands on the device (`device=`), or move the call out of the section."
                    )
        return result


def _makes_view(func: Any) -> bool:
    return any(returned.alias_info is not None and not returned.alias_info.is_write for returned in func._schema.returns)


@contextlib.contextmanager
def hot_section() -> Iterator[None]:
    """Raises RuntimeError where the code inside waits for a device or computes on the CPU. Waits are told of in all threads of the process."""
    _enter()
    try:
        with _DeviceOnly():
            yield
    finally:
        _leave()


_lock = threading.Lock()
_open = 0  # sections of all threads. LOCK: _lock
_before = 0  # the mode outside of them. LOCK: _lock


def _enter() -> None:
    global _open, _before
    with _lock:
        if _open == 0:
            _before = torch.openreg.get_sync_debug_mode()
            torch.openreg.set_sync_debug_mode("error")
        _open += 1


def _leave() -> None:
    global _open
    with _lock:
        _open -= 1
        if _open == 0:
            torch.openreg.set_sync_debug_mode(_before)
