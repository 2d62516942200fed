"""What a profile costs: small operators launched under torch.profiler against the same without it, in turn, in one process.

    python tests/benchmarks/profiler.py
    python tests/benchmarks/profiler.py --write-docs     the table goes into docs/profiler.md

The target is 2 for a profile of the device against one of the CPU alone: what torch's own part costs is not ours to change. The exit status is 0 all
the same, because timing is no test.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from pathlib import Path

import torch
import torch_openreg  # noqa: F401
from torch.profiler import ProfilerActivity, profile

import table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "profiler.md"
CALLS = 300
TARGET = 2
WAYS = {
    "nothing": contextlib.nullcontext,
    "the CPU": lambda: profile(activities=[ProfilerActivity.CPU]),
    "the device": lambda: profile(activities=[ProfilerActivity.PrivateUse1]),
    "CPU and device": lambda: profile(activities=[ProfilerActivity.CPU, ProfilerActivity.PrivateUse1]),
    "a trace": lambda: torch.openreg.trace(),
}


def launch_seconds(way, x):
    """The host's time for the launches inside the context, without its begin and its end."""
    with way():
        for _ in range(20):
            x.add_(1)
        torch.openreg.synchronize()
        start = time.perf_counter()
        for _ in range(CALLS):
            x.add_(1)
        return time.perf_counter() - start


def ratios(rounds=25):
    """{way: the median over the rounds of its time to that of nothing}."""
    x = torch.zeros(16, device="openreg")
    launch_seconds(contextlib.nullcontext, x)
    found = {name: [] for name in WAYS}
    for _ in range(rounds):
        times = {name: launch_seconds(way, x) for name, way in WAYS.items()}
        torch.openreg.synchronize()
        for name, seconds in times.items():
            found[name].append(seconds / times["nothing"])
    return {name: statistics.median(values) for name, values in found.items()}


def lines(rounds=25):
    found = ratios(rounds)
    target = found["the CPU"] * TARGET
    yield "| profiled | launch against launch without | target |"
    yield "|---|---:|---|"
    for name, ratio in found.items():
        goal = f"{target:.2f}, {TARGET} times the CPU's: {'met' if ratio <= target else '**missed**'}" if name == "CPU and device" else ""
        yield f"| {name} | {ratio:.2f} | {goal} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write-docs", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    text = "\n".join(lines())
    print(text)
    if arguments.write_docs:
        table.write_docs(PAGE, f"{table.conditions()}\n\n{text}")


if __name__ == "__main__":
    main()
