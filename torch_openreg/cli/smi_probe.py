"""What `openreg smi` runs in a process of its own: prints one JSON object per line, each a look at all devices.

`python -m torch_openreg.cli.smi_probe SECONDS`: one look, or with SECONDS above 0 one every so many seconds, for ever.
"""

import json
import os
import sys
import time

WINDOW_NS = 100_000_000


def look() -> dict:
    """All devices that this process sees, and who uses them. This process is left out."""
    import torch_openreg

    torch_openreg.load()
    import torch
    from torch_openreg import _C

    torch.openreg.init()  # raises with the reason when there is one
    devices = [_device(torch, _C, index) for index in range(torch.openreg.device_count())]
    return {"time": time.strftime("%Y-%m-%dT%H:%M:%S"), "driver": _C.driver_info(), "devices": devices}


def _device(torch, extension, index: int) -> dict:
    processes = extension.device_processes(index)
    usage = extension.device_usage(index, WINDOW_NS // max(1, torch.openreg.device_count()))
    own = os.getpid()
    facts = {
        "index": index,
        "name": torch.openreg.get_device_name(index),
        "memory_bytes": torch.openreg.mem_get_info(index)[1],
        "compute_units": torch.openreg.get_device_properties(index).compute_units,
        "processes": None,
        "used_bytes": None,
        "utilization": None,
        "streams": None,
    }
    if processes is not None:
        facts["processes"] = [{"pid": pid, "name": _name(pid), "used_bytes": size} for pid, size in sorted(processes) if pid != own]
        facts["used_bytes"] = sum(process["used_bytes"] for process in facts["processes"])
    if usage is not None:
        facts["utilization"], facts["streams"] = round(100 * usage[0]), usage[1]
    return facts


def _name(pid: int) -> str:
    """The command line of a process, or "" when it is gone or not ours to read."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return " ".join(file.read().replace(b"\0", b" ").decode(errors="replace").split())
    except OSError:
        return ""


def main(seconds: float) -> None:
    while True:
        print(json.dumps(look()), flush=True)
        if seconds <= 0:
            return
        time.sleep(seconds)


if __name__ == "__main__":
    try:
        main(float(sys.argv[1]))
    except KeyboardInterrupt:
        sys.exit(130)
