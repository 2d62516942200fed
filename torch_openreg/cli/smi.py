"""`openreg smi`: devices, their memory, streams, processes and utilization, as nvidia-smi shows GPUs.

The look itself is smi_probe.py's, in a process of its own that loads torch; this one only prints.
"""

import argparse
import json
import subprocess
import sys

from torch_openreg import child
from torch_openreg.cli.memory.summary import size

WIDTHS = (8, 32, 26, 9, 13)
HEADINGS = ("device", "name", "memory", "streams", "utilization")


def add_parser(commands) -> None:
    smi = commands.add_parser("smi", help="show devices, memory, streams, processes and utilization")
    smi.add_argument("--json", action="store_true", help="print a JSON object, with --watch one per line")
    smi.add_argument("--watch", type=_seconds, nargs="?", const=1.0, default=0.0, metavar="SECONDS",
                     help="look again every so many seconds, until Ctrl-C (default: 1)")  # fmt: skip
    smi.set_defaults(handler=_handle)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError(f"a number of seconds above 0, at most 3600, not {text}")
    return seconds


def _handle(arguments) -> int:
    command = child.command("torch_openreg.cli.smi_probe", str(arguments.watch))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as probe:
        try:
            for line in probe.stdout:
                look = json.loads(line)
                if arguments.json:
                    print(json.dumps(look, indent=None if arguments.watch else 2), flush=True)
                else:
                    clear = "\033[2J\033[H" if arguments.watch and sys.stdout.isatty() else ""
                    print(clear + render(look), flush=True)
        except KeyboardInterrupt:
            probe.terminate()
            return 0
        errors = probe.stderr.read()
    if probe.returncode != 0:
        print(f"openreg smi: the devices cannot be looked at; `openreg doctor` tells more.\n{errors.strip()}", file=sys.stderr)
        return 2
    return 0


def render(look: dict) -> str:
    """One look as a table: a line per device, then a line per process and device."""
    driver = look["driver"]
    lines = [
        f"{look['time']}  driver {driver['name']} (HAL {driver['major']}.{driver['minor']})",
        "",
        _row(HEADINGS),
        _row(["-" * (width - 2) for width in WIDTHS]),
    ]
    for device in look["devices"]:
        used = "?" if device["used_bytes"] is None else size(device["used_bytes"])
        busy = "?" if device["utilization"] is None else f"{device['utilization']}%"
        streams = "?" if device["streams"] is None else str(device["streams"])
        lines.append(_row((str(device["index"]), device["name"], f"{used} of {size(device['memory_bytes'])}", streams, busy)))
    if not look["devices"]:
        lines.append("no devices")
    lines += ["", f"{'device':8}{'pid':>9}  {'memory':>12}  process"]
    users = [(device["index"], process) for device in look["devices"] for process in device["processes"] or []]
    lines += [f"{index:<8}{process['pid']:>9}  {size(process['used_bytes']):>12}  {_short(process['name'])}" for index, process in users]
    if not users:
        unknown = any(device["processes"] is None for device in look["devices"])
        lines.append("the driver does not know the processes" if unknown else "no process has memory of a device")
    return "\n".join(lines)


def _row(cells) -> str:
    return "".join(f"{_short(cell, width - 2):{width}}" for cell, width in zip(cells, WIDTHS)).rstrip()


def _short(text: str, width: int = 80) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
