"""`torch.openreg.faults`: makes chosen calls of a program go wrong, as a plan says, to try what the program does then.

docs/faults.md has the grammar of plans. OPENREG_FAULTS holds a plan for a whole process.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from torch_openreg import _C

from . import initialization

_of_process: int | None = None  # the plan of OPENREG_FAULTS


@dataclass(frozen=True)
class Fault:
    """One fault that happened."""

    rule: str  # of the plan
    call: str  # the operator, "allocation", or "time"
    device: int
    number: int  # of the calls that the rule has matched, from 1 on


class FaultReport:
    """What a plan has done so far, in order."""

    def __init__(self, plan: int) -> None:
        self._plan: int | None = plan
        self._kept: dict = {}

    def _read(self) -> dict:
        return self._kept if self._plan is None else _C.fault_report(self._plan)

    def _end(self) -> None:
        self._kept = self._read()
        self._plan = None

    @property
    def fired(self) -> list[Fault]:
        """The faults that happened, the first 10,000 of them."""
        return [Fault(**entry) for entry in self._read()["fired"]]

    @property
    def count(self) -> int:
        """How many faults happened."""
        return self._read()["count"]

    @property
    def waiting(self) -> list[str]:
        """The rules of which nothing has happened yet."""
        return self._read()["waiting"]

    def __bool__(self) -> bool:
        return self.count > 0

    def __str__(self) -> str:
        report = self._read()
        lines = [f"{fault['rule']}: {fault['call']} on openreg:{fault['device']}, call {fault['number']}" for fault in report["fired"]]
        lines += [f"{rule}: never happened" for rule in report["waiting"]]
        return "\n".join(lines)


class faults:
    """Context manager: the plan holds inside. Gives a FaultReport.

    Args:
        plan: rules with `;` between them, such as "alloc:3=oom; launch:aten::mm#10=error; device:1@t=2s=lost".

    Blocks nest; where two plans have a fault for one call, the inner one happens. A plan that does not hold costs nothing. ValueError, with the
    position, for what is no plan.
    """

    def __init__(self, plan: str) -> None:
        self.plan = plan
        self._reports: list[FaultReport] = []

    def __enter__(self) -> FaultReport:
        initialization._lazy_init()
        self._reports.append(FaultReport(_C.begin_faults("The plan", self.plan)))
        return self._reports[-1]

    def __exit__(self, *exc_info: object) -> None:
        report = self._reports.pop()
        plan = report._plan
        report._end()
        _C.end_faults(plan)


def begin_for_process() -> None:
    """Lets the plan of OPENREG_FAULTS hold, once. The driver runs."""
    global _of_process
    plan = os.environ.get("OPENREG_FAULTS", "")
    if plan and _of_process is None:
        _of_process = _C.begin_faults("OPENREG_FAULTS", plan)


def finish() -> None:
    """At the end of the process: says what the plan of OPENREG_FAULTS has done, and ends it, so that nothing hangs any more."""
    if _of_process is None:
        return
    report = FaultReport(_of_process)
    count = report.count
    print(f"torch_openreg: OPENREG_FAULTS made {count} fault{'' if count == 1 else 's'} happen.", file=sys.stderr)
    for rule in report.waiting:
        print(f"torch_openreg: '{rule}' of OPENREG_FAULTS never happened.", file=sys.stderr)
    _C.end_faults(_of_process)
