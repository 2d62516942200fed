"""Finds the lines of a running program that ask for cuda: `x.is_cuda`, `torch.cuda.is_available()`, `device.type == "cuda"`, `.to("cuda:0")`.

Nothing is replaced. The watch looks at the byte code of every function that starts, and where a line of it names cuda, notes when that line runs.
Needs no torch. From Python 3.12 on it uses `sys.monitoring`, before that `sys.settrace`.
"""

from __future__ import annotations

import dis
import linecache
import re
import sys
import threading
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_DEVICE = re.compile(r"cuda(:\d*)?\Z")
_NAMES = ("cuda", "is_cuda")
_MONITORING = getattr(sys, "monitoring", None)


@dataclass(frozen=True)
class Place:
    """A line that names cuda, and ran."""

    file: str
    line: int
    function: str

    @property
    def source(self) -> str:
        return linecache.getline(self.file, self.line).strip()

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}: {self.source}"


def lines_with_cuda(code: types.CodeType) -> frozenset[int]:
    """The lines of a code object, not of the functions inside it, that load a name or a text that means cuda."""
    found = set()
    line = code.co_firstlineno
    for instruction in dis.get_instructions(code):
        if sys.version_info < (3, 13):
            line = instruction.starts_line or line
        else:
            line = instruction.line_number or line
        value = instruction.argval
        if instruction.opname in ("LOAD_ATTR", "LOAD_METHOD", "LOAD_GLOBAL", "LOAD_NAME", "IMPORT_NAME", "IMPORT_FROM"):
            named = isinstance(value, str) and any(part in _NAMES for part in value.split("."))
        else:
            named = instruction.opname in ("LOAD_CONST", "RETURN_CONST") and _means_cuda(value)
        if named:
            found.add(line)
    return frozenset(found)


def _means_cuda(value: object) -> bool:
    if isinstance(value, str):
        return _DEVICE.match(value) is not None
    return isinstance(value, (tuple, frozenset)) and any(map(_means_cuda, value))


class CudaWatch:
    """Context manager: notes which lines that name cuda run inside, in this thread and those that start inside; from Python 3.12 on in all. `places` counts them, in the order of their first run.

    Args:
        watches: says of a file's path whether its lines count.

    RuntimeError on entering when another tool, a debugger or coverage, traces this thread before Python 3.12.
    """

    def __init__(self, watches: Callable[[str], bool]) -> None:
        self.places: dict[Place, int] = {}
        self._watches = watches
        self._lines: dict[tuple[str, types.CodeType], frozenset[int]] = {}  # equal code of two files is one key without the file

    def __enter__(self) -> CudaWatch:
        if _MONITORING is not None:
            self._tool = _free_tool()
            _MONITORING.use_tool_id(self._tool, "openreg")
            events = _MONITORING.events
            _MONITORING.register_callback(self._tool, events.PY_START, self._start)
            _MONITORING.register_callback(self._tool, events.LINE, self._line)
            _MONITORING.set_events(self._tool, events.PY_START)
            _MONITORING.restart_events()  # functions that an earlier watch has seen, too
        else:
            if sys.gettrace() is not None:
                raise RuntimeError(
                    "Another tool traces this program (a debugger, or coverage), so lines that name cuda cannot be watched. Leave it out, or use Python 3.12."
                )
            threading.settrace(self._trace)
            sys.settrace(self._trace)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if _MONITORING is not None:
            _MONITORING.set_events(self._tool, 0)  # first, so that no thread adds code any more
            for _, code in list(self._lines):
                _MONITORING.set_local_events(self._tool, code, 0)
            _MONITORING.free_tool_id(self._tool)
        else:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]

    def _interesting(self, code: types.CodeType) -> frozenset[int]:
        lines = self._lines.get((code.co_filename, code))
        if lines is None:
            lines = lines_with_cuda(code) if self._watches(code.co_filename) else frozenset()
            self._lines[code.co_filename, code] = lines
        return lines

    def _note(self, code: types.CodeType, line: int) -> None:
        place = Place(code.co_filename, line, getattr(code, "co_qualname", code.co_name))
        self.places[place] = self.places.get(place, 0) + 1

    # sys.settrace
    def _trace(self, frame: types.FrameType, event: str, argument: object) -> Callable[..., object] | None:
        return self._trace_line if self._interesting(frame.f_code) else None

    def _trace_line(self, frame: types.FrameType, event: str, argument: object) -> Callable[..., object]:
        if event == "line" and frame.f_lineno in self._interesting(frame.f_code):
            self._note(frame.f_code, frame.f_lineno)
        return self._trace_line

    # sys.monitoring
    def _start(self, code: types.CodeType, offset: int) -> object:
        if self._interesting(code):
            _MONITORING.set_local_events(self._tool, code, _MONITORING.events.LINE)
        return _MONITORING.DISABLE

    def _line(self, code: types.CodeType, line: int) -> object:
        if line not in self._interesting(code):
            return _MONITORING.DISABLE
        self._note(code, line)
        return None


def _free_tool() -> int:
    for tool in range(6):
        if _MONITORING.get_tool(tool) is None:
            return tool
    raise RuntimeError("Six other tools monitor this program (sys.monitoring), so lines that name cuda cannot be watched.")


def describe(places: dict[Place, int]) -> Iterator[str]:
    """A line for each place, with how often it ran."""
    for place, count in places.items():
        yield f"{place}  ({count} times)" if count > 1 else str(place)
