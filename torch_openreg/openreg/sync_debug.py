"""Sync debug mode: tells of calls that make the host wait for the device, as `torch.cuda.set_sync_debug_mode` does."""

from __future__ import annotations

from torch_openreg import _C

from . import initialization

__all__ = ["get_sync_debug_mode", "set_sync_debug_mode"]

_MODES = {"default": 0, "warn": 1, "error": 2}


def set_sync_debug_mode(debug_mode: int | str) -> None:
    """Lets calls that wait pass ("default" or 0), warn ("warn" or 1) or raise RuntimeError ("error" or 2), in the whole process.

    Meant are calls whose result asks for the wait: `.item()`, `.cpu()` and other blocking copies from and to the host, operators whose result's
    shape depends on data, such as `nonzero`, and `Stream.synchronize`. `torch.openreg.synchronize` and events wait without a word, as on cuda,
    and so does the first call of an operator with new types, which waits on this device only.
    """
    mode = _MODES.get(debug_mode) if isinstance(debug_mode, str) else debug_mode
    if isinstance(mode, bool) or mode not in (0, 1, 2):
        raise RuntimeError(f"The sync debug mode is 'default' (0), 'warn' (1) or 'error' (2), not {debug_mode!r}.")
    initialization._lazy_init()
    _C.set_sync_debug_mode(mode)


def get_sync_debug_mode() -> int:
    """The mode's number: 0, 1 or 2."""
    return _C.sync_debug_mode()
