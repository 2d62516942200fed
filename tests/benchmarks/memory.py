"""The device allocator: the time of an allocation, how much more is reserved than used over long traces, and many tensors.

Times are against the CPU's, as everywhere. Reserved memory is against allocated memory, each at its peak, over a million allocations
of traces.py on a device of 16 GiB. The counting runs in processes of its own, because peaks belong to one.
`python tests/benchmarks/memory.py` prints this part alone.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from dataclasses import dataclass

import torch

from scale import Check
from timing import Row, Side

CALLS = 200
ALLOCATIONS = 1_000_000
TENSORS = 100_000
TARGET = 1.25
RESIDENT_MIB = 256
TRACES = {
    "random": "Random sizes from 16 bytes to 16 MiB, random lifetimes, about 1 GiB in use",
    "training": "Two training steps of a transformer, again and again",
    "generate": "100 tokens with growing keys and values, again and again",
    "training-768": "Three training steps of a transformer of width 768 with batches of several lengths, again and again",
    "generate-768": "100 tokens from a decoder of width 768, with embedding and feed-forward layers, again and again",
}


@dataclass(frozen=True)
class Overhead:
    """Peak of reserved memory to peak of allocated memory."""

    name: str
    title: str
    allocations: int
    allocated_mib: float
    ratio: float
    expandable_ratio: float
    target: float = TARGET

    @property
    def met(self) -> bool:
        return self.ratio <= self.target


def allocating(size_bytes: int):
    def sides(tiny):
        def empties(device):
            def work():
                for _ in range(CALLS):
                    torch.empty(size_bytes, dtype=torch.uint8, device=device)

            work()
            return Side(work)

        return empties(torch.device("openreg")), empties(torch.device("cpu"))

    return sides


ROWS = [
    Row("empty-4k", "`torch.empty` of 4 KiB, freed at once: 200 times", 1.2, allocating(4 << 10)),
    Row("empty-4m", "`torch.empty` of 4 MiB, freed at once: 200 times", 1.2, allocating(4 << 20)),
]


def overheads(tiny: bool = False) -> list[Overhead]:
    """Replays every trace twice, with segments and with expandable segments, each in a new process."""
    allocations = 5_000 if tiny else ALLOCATIONS
    lines = []
    for name, title in TRACES.items():
        plain = _process({}, "replay", name, str(allocations))
        growing = _process({"OPENREG_ALLOC_CONF": "expandable_segments:True"}, "replay", name, str(allocations))
        ratios = [found["reserved"] / found["allocated"] for found in (plain, growing)]
        lines.append(Overhead(name, title, plain["allocations"], plain["allocated"] / 2**20, *ratios))
    return lines


def checks() -> list[Check]:
    found = _process({}, "count")
    return [
        Check("live-tensors", f"Tensors with their own values of {TENSORS:,} that live at the same time", TENSORS, found["right"]),
        Check("given-back", f"Percent of {RESIDENT_MIB} MiB that the process gives back to the system in `empty_cache`", 100, found["percent"]),
    ]


def _process(more: dict[str, str], *arguments: str) -> dict[str, int]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OPENREG_")}
    environment |= {"OPENREG_MEMORY": "16GiB", **more}
    result = subprocess.run([sys.executable, __file__, *arguments], env=environment, capture_output=True, text=True, timeout=600)
    if result.returncode != 0:
        raise RuntimeError(f"The program of memory.py failed:\n{result.stdout}{result.stderr}")
    return json.loads(result.stdout)


def replay(name: str, allocations: int) -> dict[str, int]:
    """Peaks of this process, which must not have used a device yet, after at least so many allocations."""
    import traces
    from torch_openreg import _C

    trace = traces.random_trace(1, allocations) if name == "random" else traces.recorded_trace(name)
    torch.openreg.init()
    allocate, free, done = _C.allocate_block, _C.free_block, 0
    while done < allocations:
        addresses = []
        for entry in trace:
            if entry > 0:
                addresses.append(allocate(0, 0, entry))
            else:
                free(addresses[-entry - 1])
        done += len(addresses)
    stats = torch.openreg.memory_stats(0)
    assert stats["allocation.all.current"] == 0 and stats["allocation.all.allocated"] == done
    return {"allocations": done, "reserved": stats["reserved_bytes.all.peak"], "allocated": stats["allocated_bytes.all.peak"]}


def count() -> dict[str, int]:
    tensors = [torch.full((4,), number, device="openreg") for number in range(TENSORS)]
    right = sum((torch.stack(tensors)[:, 3].cpu() == torch.arange(TENSORS)).tolist())
    del tensors
    gc.collect()
    torch.openreg.empty_cache()
    before = _resident_mib()
    filled = torch.ones(RESIDENT_MIB << 20, dtype=torch.uint8, device="openreg")
    torch.openreg.synchronize()
    most = _resident_mib()
    assert most - before > 0.95 * RESIDENT_MIB
    del filled
    torch.openreg.empty_cache()
    return {"right": right, "percent": min(100, round(100 * (most - _resident_mib()) / RESIDENT_MIB))}


def _resident_mib() -> float:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


if __name__ == "__main__":
    if len(sys.argv) > 1:
        import torch_openreg  # noqa: F401

        print(json.dumps(replay(sys.argv[2], int(sys.argv[3])) if sys.argv[1] == "replay" else count()))
    else:
        import memory  # whose classes table knows
        import table

        print(*map(table.line, [*memory.overheads(), *memory.checks()]), sep="\n")
