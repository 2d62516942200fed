"""A worker that computes nothing and needs no torch: what the tests of whole runs use, when they are about the parent.

Speaks the protocol of torch_openreg.testing.conformance.worker. STUB_ROWS has its rows, as op=outcome separated by commas; the outcome
`wait` never comes, `kill` ends the process, and after `stall` it says nothing any more. `python stub_worker.py command ...` is `openreg ...` with
these workers.
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

ROWS = [entry.split("=") for entry in os.environ.get("STUB_ROWS", "").split(",") if entry]


def send(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


def work():
    from torch_openreg import child

    config = json.loads(sys.argv[2])
    child.end_with_parent(config["parent"])
    device = config["device"]
    send("ready", torch="2.13.0")
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "list":
            send("rows", rows=[[op, "float32", "forward", 1] for op, _ in ROWS], kernels=[])
            continue
        for op, dtype, mode, _ in request["rows"]:
            send("start", row=[op, dtype, mode])
            outcome = dict(ROWS)[op]
            if outcome == "wait":
                signal.pause()
            if outcome == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            message = "" if outcome in ("pass", "stall") else f"{op} is not what the CPU gives"
            told = "pass" if outcome == "stall" else outcome
            send("done", result={"op": op, "dtype": dtype, "mode": mode, "device": device, "outcome": told, "message": message, "seconds": 0.5})
            if outcome == "stall":
                signal.pause()
        send("idle")


def command():
    from torch_openreg.cli import main
    from torch_openreg.testing.conformance import pool

    pool.child = Workers

    sys.exit(main(sys.argv[2:]))


class Workers:
    """Takes the place of `child` in the pool."""

    @staticmethod
    def command(module, *arguments):
        return [sys.executable, __file__, "work", *arguments]


def package_root():
    """The folder that torch_openreg is imported from."""
    return str(Path(importlib.util.find_spec("torch_openreg").origin).parents[1])


def start(*arguments, rows, folder, env=None):
    """The command in a process of its own, with pipes for its output. rows: {op: outcome}."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OPENREG_")}
    environment["PYTHONPATH"] = package_root()
    environment["TORCH_OPENREG_DEFER_LOAD"] = "1"
    environment["STUB_ROWS"] = ",".join(f"{op}={outcome}" for op, outcome in rows.items())
    return subprocess.Popen([sys.executable, __file__, "command", "conformance", *map(str, arguments)], cwd=folder,
                            env={**environment, **(env or {})}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip


if __name__ == "__main__":
    {"work": work, "command": command}[sys.argv[1]]()
