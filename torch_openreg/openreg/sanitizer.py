"""`torch.openreg.sanitizer`: finds programs that are wrong about order, lifetime and contents of device memory.

The modes are `races` (accesses that nothing orders), `lifetime` (memory used after it was freed, or reused while a stream still uses it),
`init` (memory read that nobody has written), `bounds` (accesses outside of an allocation) and `leaks` (allocations that nobody gives
back). OPENREG_SANITIZE=races,lifetime switches them on for a whole process. docs/sanitizer.md tells how to read a report.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch

from torch_openreg import _C, driver

__all__ = ["Access", "Finding", "Report", "SanitizerError", "collect", "disable", "enable", "enabled", "leak_scope", "possible"]

MODES = driver.SANITIZER_MODES
_collecting: list[Report] = []  # of the collect() blocks that are open, the innermost last


class SanitizerError(RuntimeError):
    """What the sanitizer found since the last error. Raised by the next call that waits for a device."""


@dataclass(frozen=True)
class Access:
    """One call that touches the memory of a finding."""

    operator: str
    stream: str
    touched: str  # "writes float32[4, 4]"
    stack: str  # lines of Python, innermost first; "" when the call came from no Python


@dataclass(frozen=True)
class Finding:
    """One mistake. `report` is the text that is printed."""

    kind: str  # "race", "lifetime", "init", "bounds" or "leak"
    sentence: str
    accesses: tuple[Access, ...]
    allocation: str
    allocation_stack: str
    free_stack: str
    remedy: str
    report: str

    def __str__(self) -> str:
        return self.report


@dataclass
class Report:
    """What was found in a `collect()` block, in the order in which it was found."""

    findings: list[Finding] = field(default_factory=list)

    @property
    def kinds(self) -> list[str]:
        return [finding.kind for finding in self.findings]

    def __bool__(self) -> bool:
        return bool(self.findings)

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings)) or "The sanitizer found nothing."


def enable(modes: str | Iterable[str] = "races,lifetime") -> None:
    """Looks for mistakes of these modes from now on. Waits for every device first, and forgets what happened before.

    Raises ValueError for a mode that does not exist; nothing has changed then.
    """
    _C.sanitizer_set(_bits(driver.parse_sanitizer_modes("modes", modes)))


def disable() -> None:
    """Looks for nothing any more. What was found and not raised yet is still raised by the next call that waits."""
    _C.sanitizer_set(0)


def enabled() -> tuple[str, ...]:
    """The modes that are on."""
    bits = _C.sanitizer_modes()
    return tuple(mode for i, mode in enumerate(MODES) if bits & 1 << i)


@contextlib.contextmanager
def collect(modes: str | Iterable[str] | None = None) -> Iterator[Report]:
    """Collects what is found in the block into a Report instead of raising it; `modes` switches these on for the block.

    Waits for every device at the end, so that what its tasks have to tell is in the report. Blocks nest: a finding belongs to the innermost.
    """
    before = enabled()
    if modes is not None:
        enable(modes)
    report = Report()
    if _collecting:
        _collecting[-1].findings += map(_finding, _C.sanitizer_take())
    else:
        _C.sanitizer_flush()  # what was found before the block is raised
    _collecting.append(report)
    _C.sanitizer_collect(True)
    try:
        yield report
    finally:
        try:
            _wait_for_devices()
        finally:
            report.findings += map(_finding, _C.sanitizer_take())
            _collecting.pop()
            _C.sanitizer_collect(bool(_collecting))
            if modes is not None:
                _C.sanitizer_set(_bits(before))


def possible() -> list[Finding]:
    """Pairs of calls that race if their indices meet, as far as no task has told yet which elements it touched. Not errors."""
    return [_finding(entry) for entry in _C.sanitizer_possible()]


@contextlib.contextmanager
def leak_scope() -> Iterator[None]:
    """What is allocated inside and still in use at the end is a finding. The mode `leaks` must be on."""
    if "leaks" not in enabled():
        raise RuntimeError("leak_scope() needs the mode 'leaks': call torch.openreg.sanitizer.enable('leaks') or set OPENREG_SANITIZE=leaks.")
    last = max((number for number, _ in _C.sanitizer_blocks(0)), default=0)
    yield
    gc.collect()
    _wait_for_devices()
    _C.sanitizer_report_leaks([number for number, _ in _C.sanitizer_blocks(last)])


def prepare() -> None:
    """Tells the extension how to raise, and switches on what OPENREG_SANITIZE names. A bad value is reported at the first use."""
    _C.sanitizer_prepare(SanitizerError)
    try:
        modes = driver.read_settings().sanitize
    except ValueError:
        return
    if modes:
        _C.sanitizer_set(_bits(modes))


def finish() -> None:
    """Before the driver stops: keeps stacks as text, and excuses what the program still holds by a name from being a leak.

    Python does not take apart every object at its end, so a tensor that it still holds now is none.
    """
    if not enabled():
        return
    _C.sanitizer_freeze_stacks()
    if "leaks" in enabled():
        gc.collect()
        held = set()
        for value in gc.get_objects():
            if issubclass(type(value), torch.Tensor) and value.device.type == "openreg":
                with contextlib.suppress(RuntimeError):  # a tensor without memory: fake, functional, batched
                    held.update(_storages(value))
        _C.sanitizer_excuse([number for number, address in _C.sanitizer_blocks(0) if address in held])


def _storages(tensor: torch.Tensor) -> Iterator[int]:
    for part in (tensor, tensor.grad if tensor.is_leaf else None):
        if part is not None and part.layout == torch.strided:
            yield part.untyped_storage().data_ptr()


def _bits(modes: Iterable[str]) -> int:
    return sum(1 << MODES.index(mode) for mode in modes)


def _wait_for_devices() -> None:
    from .device import device_count, synchronize
    from .initialization import is_initialized

    if is_initialized():
        if "bounds" in enabled():
            _C.sanitizer_check_guards()
        for index in range(device_count()):
            synchronize(index)


def _finding(entry: dict[str, object]) -> Finding:
    accesses = tuple(Access(**access) for access in entry.pop("accesses"))
    return Finding(accesses=accesses, **entry)
