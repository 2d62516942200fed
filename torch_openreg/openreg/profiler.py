"""Ranges of the program in a trace. `torch.profiler` needs nothing of this; see docs/profiler.md."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch_openreg import _C

from . import initialization

__all__ = ["emit_ranges"]


@contextlib.contextmanager
def emit_ranges() -> Iterator[None]:
    """Inside, every operator, backward node and record_function block of any thread is a "range" in the traces that run.

    What torch.autograd.profiler.emit_nvtx and emit_itt are for those tools. Without a trace it costs time and does nothing.
    """
    initialization._lazy_init()
    _C.begin_ranges()
    try:
        yield
    finally:
        _C.end_ranges()
