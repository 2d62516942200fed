"""One measurement: the same work on the device and on the CPU, in turn (A B A B ...), in one process.

A machine that is busy with something else slows down both of two neighbouring samples, so every round gives one
ratio, and the result is the median of the ratios of all rounds. Needs torch only.
"""

from __future__ import annotations

import gc
import statistics
import time
from dataclasses import dataclass
from typing import Callable

import torch

BLOCKS = 6


def nothing() -> None:
    """The default of the two ends of a Side."""


@dataclass(frozen=True)
class Side:
    """One way to do the work of a row.

    work: what is measured. on_clock: follows it and is measured too. off_clock: follows it and is not measured.
    """

    work: Callable[[], object]
    on_clock: Callable[[], object] = nothing
    off_clock: Callable[[], object] = nothing

    def sample(self) -> Sample:
        cpu_start, start = time.process_time(), time.perf_counter()
        self.work()
        self.on_clock()
        sample = Sample(time.perf_counter() - start, time.process_time() - cpu_start)
        self.off_clock()
        return sample


@dataclass(frozen=True)
class Sample:
    """seconds: by the clock on the wall. cpu_seconds: CPU time of the process, all threads together."""

    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Row:
    """One line of the table.

    name: what --only takes. title: what the reader sees. target: the largest ratio that is good enough.
    sides: the device's and the CPU's Side, prepared and warm; with `tiny`, on sizes that only show that it runs.
    rounds: how many pairs are taken. cores: measure the CPU with two threads, and the CPU time, as well.
    """

    name: str
    title: str
    target: float
    sides: Callable[[bool], tuple[Side, Side]]
    rounds: int = 101
    cores: bool = False


@dataclass(frozen=True)
class Result:
    """What a Row gave. Times are medians in seconds; ratios are medians of the rounds' ratios.

    cpu_time_ratio: CPU time of the process with the device, to that with the CPU. two_threads_ratio: time of the CPU
    with two threads, to that with one. Both are None in rows without `cores`.
    """

    name: str
    title: str
    target: float
    ratio: float
    device_seconds: float
    cpu_seconds: float
    cpu_time_ratio: float | None = None
    two_threads_ratio: float | None = None

    @property
    def met(self) -> bool:
        return self.ratio <= self.target


def alternate(first: Side, second: Side, rounds: int, collect: bool = True) -> list[tuple[Sample, Sample]]:
    """`rounds` pairs of samples; every other round begins with the second side, so that neither always follows.

    Garbage is not collected between samples, and with `collect` once before them.
    """
    pairs = []
    if collect:
        gc.collect()
    gc.disable()
    try:
        for number in range(rounds):
            if number % 2 == 0:
                a = first.sample()
                b = second.sample()
            else:
                b = second.sample()
                a = first.sample()
            pairs.append((a, b))
    finally:
        gc.enable()
    return pairs


def measure(row: Row, rounds: int | None = None, tiny: bool = False) -> Result:
    """Measures one row with one intra-op thread."""
    torch.set_num_threads(1)
    device, cpu = row.sides(tiny)
    rounds = rounds or row.rounds
    pairs = alternate(device, cpu, rounds)
    cores = {}
    if row.cores:
        cores["cpu_time_ratio"] = _cpu_time(device, cpu, rounds)
        cores["two_threads_ratio"] = _two_threads(cpu, rounds)
    return Result(
        row.name,
        row.title,
        row.target,
        ratio=statistics.median(a.seconds / b.seconds for a, b in pairs),
        device_seconds=statistics.median(a.seconds for a, _ in pairs),
        cpu_seconds=statistics.median(b.seconds for _, b in pairs),
        **cores,
    )


def _cpu_time(device: Side, cpu: Side, rounds: int) -> float:
    """CPU time of the process with the device, to that with the CPU.

    In blocks of many samples with a rest after each, because the system counts other threads' time only at its ticks
    and when they sleep.
    """

    def block(side):
        def work():
            for _ in range(max(1, rounds // BLOCKS)):
                side.sample()

        return Side(work, on_clock=lambda: time.sleep(0.01))

    pairs = alternate(block(device), block(cpu), min(rounds, BLOCKS))
    return sum(a.cpu_seconds for a, _ in pairs) / sum(b.cpu_seconds for _, b in pairs)


def _two_threads(cpu: Side, rounds: int) -> float:
    """The CPU with two intra-op threads against the CPU with one. Measured apart from the device, because the second
    thread of the pool goes on spinning for a while after its work."""

    def with_two():
        torch.set_num_threads(2)
        cpu.work()

    def with_one():
        torch.set_num_threads(1)
        cpu.work()

    try:
        with_two()
        pairs = alternate(Side(with_two), Side(with_one), rounds)
    finally:
        torch.set_num_threads(1)
    time.sleep(0.05)
    return statistics.median(a.seconds / b.seconds for a, b in pairs)
