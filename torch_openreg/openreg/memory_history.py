"""Memory history: recording who allocates device memory, and snapshots of what the caching allocator holds.

The functions are torch.cuda.memory's, and the dictionaries are those that PyTorch's memory viewer reads. docs/memory-snapshots.md
shows their use.
"""

from __future__ import annotations

import inspect
import pickle
import sys
from typing import Any

from torch._utils import _augment_memory_snapshot_stack_traces
from torch.types import Device

from torch_openreg import _C

from . import initialization
from .device import _get_device_index

_ACTIONS = ("alloc", "free_requested", "free_completed", "segment_alloc", "segment_free", "segment_map", "segment_unmap", "snapshot", "oom")
_LEVELS = {None: 0, "state": 1, "alloc": 2, "all": 3}  # the values of c10's RecordContext


def _record_memory_history(enabled: str | bool | None = "all", *args: Any, **kwargs: Any) -> None:
    """Starts, changes or ends the recording of memory history.

    Args:
        enabled: "all" keeps the stacks of live allocations and a trace of events; "state" keeps the stacks alone;
            None ends the recording and forgets the trace.
        context: which events keep their stack: None, "state" (live allocations), "alloc" (allocations in the trace too) or
            "all" (frees too).
        stacks: "python", or "all" for C++ frames as well.
        max_entries: how long the trace of a device becomes before the oldest entry makes room.
        device: the only device to trace; None for all. Live allocations keep their stacks on all devices.
        clear_history: forgets what was traced before.
        compile_context: entries name the compiled region that they happened in.
        global_record_annotations: `external_annotations` has the `torch.profiler.record_function` ranges of all threads, not only
            those of the calling one.
        skip_actions: events to leave out of the trace, by their names in it.

    ValueError for a word that is not listed here. A bool for `enabled` selects the older signature of torch.cuda.memory.
    """
    (_record_older if isinstance(enabled, bool) else _record)(enabled, *args, **kwargs)


def _record(
    enabled: str | None = "all",
    context: str | None = "all",
    stacks: str = "all",
    max_entries: int = sys.maxsize,
    device: Device = None,
    clear_history: bool = False,
    compile_context: bool = False,
    global_record_annotations: bool = False,
    skip_actions: list[str] | None = None,
) -> None:
    _check("enabled", enabled, (None, "state", "all"))
    _check("context", context, tuple(_LEVELS))
    _check("stacks", stacks, ("python", "all"))
    for action in skip_actions or ():
        _check("skip_actions", action, _ACTIONS)
    if max_entries < 0:
        raise ValueError(f"max_entries is {max_entries}; a trace keeps a number of entries, 0 or more.")
    if enabled is None:
        _C.stop_memory_history()
        return
    index = None if device is None else _get_device_index(device, optional=True)
    initialization._lazy_init()
    _C.start_memory_history(
        stacks=_LEVELS[context],
        cpp_stacks=stacks == "all",
        max_entries=max_entries if enabled == "all" else 0,
        skipped_actions=list(skip_actions or ()),
        device=index,
        clear=clear_history,
        compile_context=compile_context,
        annotations_of_all_threads=global_record_annotations,
    )


def _record_older(
    enabled: bool,
    record_context: bool = True,
    trace_alloc_max_entries: int = 1,
    trace_alloc_record_context: bool = False,
    device: Device = None,
    record_context_cpp: bool = False,
    clear_history: bool = False,
    compile_context: bool = False,
    global_record_annotations: bool = False,
    skip_actions: list[str] | None = None,
) -> None:
    _record(
        "all" if enabled else None,
        context="alloc" if trace_alloc_record_context else "state" if record_context else None,
        stacks="all" if record_context_cpp else "python",
        max_entries=trace_alloc_max_entries,
        device=device,
        clear_history=clear_history,
        compile_context=compile_context,
        global_record_annotations=global_record_annotations,
        skip_actions=skip_actions,
    )


_record_memory_history.__signature__ = inspect.signature(_record)  # type: ignore[attr-defined]


def _snapshot(device: Device = None, augment_with_fx_traces: bool = False) -> dict[str, Any]:
    """The segments and blocks of the caching allocators, and the traces recorded so far, as plain dictionaries and lists.

    Keys: `segments` (each with `blocks`), `device_traces` (a list per device), `allocator_settings`, `external_annotations`. With
    `device` the other devices have no segments and empty traces. With `augment_with_fx_traces` frames of generated FX code name
    the source that it was made from.
    """
    index = None if device is None else _get_device_index(device, optional=True)
    initialization._lazy_init()
    snapshot = _C.memory_snapshot(index, True)
    return _augment_memory_snapshot_stack_traces(snapshot) if augment_with_fx_traces else snapshot


def _dump_snapshot(filename: str = "dump_snapshot.pickle", augment_with_fx_traces: bool = False) -> None:
    """Pickles `_snapshot()` into a file, for `openreg memory`, torch.cuda._memory_viz and pytorch.org/memory_viz."""
    snapshot = _snapshot(augment_with_fx_traces=augment_with_fx_traces)
    with open(filename, "wb") as file:
        pickle.dump(snapshot, file)


def memory_snapshot(mempool_id: tuple[int, int] | None = None, include_traces: bool = True) -> list[dict[str, Any]]:
    """The segments of `_snapshot`, or those of one pool.

    `include_traces` is there for torch.cuda's sake: traces are never part of the answer; with True they get an entry for the snapshot.
    """
    initialization._lazy_init()
    segments = _C.memory_snapshot(None, include_traces)["segments"]
    return [segment for segment in segments if mempool_id is None or segment["segment_pool_id"] == tuple(mempool_id)]


def _allocation_traceback(data_ptr: int) -> list[dict[str, Any]] | None:
    """The frames that made the allocation which begins at `data_ptr`, innermost first.

    None when no live allocation begins there, or when history with stacks was not on.
    """
    return _C.allocation_traceback(data_ptr)


def _set_memory_metadata(metadata: str) -> None:
    """A text that events of this thread carry as `user_metadata` from now on; "" for none."""
    _C.set_memory_metadata(metadata)


def _get_memory_metadata() -> str:
    """The text of this thread's `_set_memory_metadata`."""
    return _C.memory_metadata()


def _check(name: str, value: object, words: tuple[str | None, ...]) -> None:
    if value not in words:
        raise ValueError(f"{name} is {value!r}; it is one of {', '.join(map(repr, words))}.")
