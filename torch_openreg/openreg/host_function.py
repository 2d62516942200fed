"""Host functions: Python functions that run in the order of a stream, on a thread for each stream that has had one."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable

import torch

from torch_openreg import _C

_numbers = itertools.count(1)
_functions: dict[int, Callable[[], object]] = {}  # those that are queued, or part of a graph
_threads: dict[tuple[int, int], threading.Thread] = {}  # by stream
_lock = threading.Lock()  # of _threads


def launch(stream: torch.Stream, function: Callable[[], object]) -> None:
    """Queues a call of the function on the stream."""
    if not callable(function):
        raise TypeError(f"Expected a function without parameters, but got {function!r}.")
    ids = stream.stream_id, stream.device_index
    with _lock:
        if ids not in _threads or _C.host_thread_is_stuck(*ids):
            for ended in _C.end_host_threads():  # those of streams that do not exist any more
                _threads.pop(ended, None)
            thread = threading.Thread(target=_serve, args=ids, name=f"openreg-host-{ids[1]}-{ids[0]}", daemon=True)
            thread.start()
            _threads[ids] = thread
    number = next(_numbers)
    _functions[number] = function
    try:
        _C.launch_host_function(*ids, number)
    except BaseException:
        # A late error of OPENREG_LAUNCH_BLOCKING=1 comes after the task, which has dropped the function itself.
        _functions.pop(number, None)
        raise


def finish(timeout_s: float = 1.0) -> None:
    """Ends the threads, once the driver has stopped. A function that does not return keeps its own."""
    _C.expire_host_functions(0)
    for thread in _threads.values():
        thread.join(timeout_s)


def _serve(stream_id: int, device_index: int) -> None:
    while (call := _C.next_host_call(stream_id, device_index)) is not None:
        number, drop = call
        if drop:
            _functions.pop(number, None)
            continue
        kind = error = ""
        try:
            _functions[number]()
        except BaseException as exception:  # SystemExit too: it ends no thread of the caller's
            kind, error = type(exception).__name__, _words(exception, number)
        finally:
            _C.finish_host_call(stream_id, device_index, kind, error)


def _words(exception: BaseException, number: int) -> str:
    """What the host function raised, and which one it was. Raises nothing: repr of a device tensor waits, which is refused here."""
    try:
        text = f"{exception} (in the host function {_functions[number]!r})"
    except BaseException:
        function = _functions.get(number)
        name = getattr(function, "__qualname__", type(function).__name__)
        text = f"{type(exception).__name__} (in the host function {name})"
    return text.encode(errors="backslashreplace").decode()
