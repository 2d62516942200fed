"""What a process that has used its devices costs while it sleeps: nothing.

Counted in a process of its own: times that one of its threads was switched to, which is exact where CPU seconds are coarse.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from scale import Check

STREAMS = 8
SLEEP_SECONDS = 1.0


def checks() -> list[Check]:
    """Counts in a new process. Raises RuntimeError with its output when it fails."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OPENREG_")}
    result = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=120)
    if result.returncode != 0:
        raise RuntimeError(f"The program of idle.py failed:\n{result.stdout}{result.stderr}")
    found = json.loads(result.stdout)
    return [
        Check("idle-threads", f"Threads of {STREAMS} streams in use that ran while the process slept for a second", 0, found["awake"]),
        Check("idle-cpu", "CPU time of the process in that second, in hundredths of a second", 0, found["cpu_hundredths"]),
    ]


def count() -> dict[str, int]:
    """The counts of this process, after work on several streams with and without short waits."""
    import torch
    import torch_openreg  # noqa: F401

    x = torch.ones(64, device="openreg")
    for stream in [torch.openreg.Stream() for _ in range(STREAMS)]:
        with torch.openreg.stream(stream):
            for _ in range(20):
                x.add(1)
            for _ in range(5):
                x.add(1)
                stream.synchronize()
    torch.openreg.synchronize()
    time.sleep(0.2)  # workers look once more before they sleep
    before, cpu = _switches(), time.process_time()
    time.sleep(SLEEP_SECONDS)
    cpu = time.process_time() - cpu
    after = _switches()
    return {"awake": sum(after[thread] != before.get(thread) for thread in after), "cpu_hundredths": round(cpu * 100)}


def _switches() -> dict[str, int]:
    """How often each thread but this one has begun to run."""
    found = {}
    for thread in os.listdir("/proc/self/task"):
        if int(thread) == os.getpid():
            continue
        with open(f"/proc/self/task/{thread}/status") as file:
            found[thread] = sum(int(line.split()[1]) for line in file if "ctxt_switches" in line)
    return found


if __name__ == "__main__":
    print(json.dumps(count()))
