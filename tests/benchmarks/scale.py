"""Many of everything at once: 8 devices, 10,000 live tensors on each, 64 streams of one device in use.

These lines of the table have no time: they count. The counting runs in a process of its own, because the number of
devices is chosen before the first use.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass

DEVICES = 8
STREAMS = 64
TENSORS = 10_000


@dataclass(frozen=True)
class Check:
    """What must be counted, in words, and what was."""

    name: str
    title: str
    expected: int
    found: int

    @property
    def met(self) -> bool:
        return self.found == self.expected


def checks() -> list[Check]:
    """Counts in a new process. Raises RuntimeError with its output when it fails."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OPENREG_")}
    environment["OPENREG_DEVICES"] = str(DEVICES)
    result = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=300)
    if result.returncode != 0:
        raise RuntimeError(f"The program of scale.py failed:\n{result.stdout}{result.stderr}")
    found = json.loads(result.stdout)
    return [
        Check("tensors", "Devices with 10,000 live tensors, all with their own values", DEVICES, found["right_devices"]),
        Check("threads", "Threads beside the process's own, after one stream of each of 8 devices: theirs and the watchdog's", DEVICES + 1, found["one_each"]),
        Check("idle-streams", "Threads more, after 63 new streams that nobody used", 0, found["idle"]),
        Check("streams", "Streams of device 0, 64 in use, with the right result", STREAMS, found["right_streams"]),
        Check("stream-threads", "Threads more, after their first use", STREAMS - 1, found["used"]),
    ]


def count() -> dict[str, int]:
    """The counts of this process, which must not have used a device yet."""
    import torch
    import torch_openreg  # noqa: F401

    torch.set_num_threads(1)
    torch.openreg.init()
    assert torch.openreg.device_count() == DEVICES
    own = _threads()

    tensors = [[torch.full((16,), value, device=f"openreg:{index}") for value in range(TENSORS)] for index in range(DEVICES)]
    _synchronize()
    one_each = _threads() - own
    expected = torch.arange(TENSORS)[:, None].expand(TENSORS, 16)
    right_devices = sum(torch.equal(torch.stack(row).cpu(), expected) for row in tensors)

    streams = [torch.openreg.default_stream(0)]
    streams += [torch.openreg.Stream(0, priority=0) for _ in range(STREAMS // 2)]
    streams += [torch.openreg.Stream(0, priority=-1) for _ in range(STREAMS // 2 - 1)]
    assert len({stream.stream_id for stream in streams}) == STREAMS
    idle = _threads() - own - one_each
    results = []
    for number, stream in enumerate(streams):
        with torch.openreg.stream(stream):
            results.append(torch.full((16,), number, device="openreg:0") + 1)
    _synchronize()
    return {
        "right_devices": right_devices,
        "one_each": one_each,
        "idle": idle,
        "used": _threads() - own - one_each,
        "right_streams": sum(result.tolist() == [number + 1] * 16 for number, result in enumerate(results)),
    }


def _threads() -> int:
    """The threads of this process."""
    return len(os.listdir("/proc/self/task"))


def _synchronize() -> None:
    import torch

    for index in range(DEVICES):
        torch.openreg.synchronize(index)


if __name__ == "__main__":
    print(json.dumps(count()))
