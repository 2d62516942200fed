"""A worker process: imports PyTorch's operator database once, then runs the rows that its parent sends.

Speaks JSON lines on the standard input and output it was started with. The operators of a row may print what they
like: their output goes to standard error, which the parent keeps in a file.

Parent to worker: {"do": "list", ...}, {"do": "run", "rows": [[op, dtype, mode, samples], ...]}; end of input ends it.
Worker to parent: {"event": "ready", "torch"} or {"event": "unusable", "message"} once, {"event": "rows", "rows", "kernels"},
then per row {"event": "start", "row"}, {"event": "sample", "index"}, {"event": "done", "result"}, and
{"event": "idle"} after a batch, or {"event": "restart"} before leaving a device that does not work any more.
"""

import json
import os
import signal
import sys

from torch_openreg import child


class _Parent:
    """The pipe to the parent, moved away from file descriptors 0 and 1."""

    def __init__(self):
        self.incoming = os.fdopen(os.dup(0), "r")
        self.outgoing = os.dup(1)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(2, 1)

    def send(self, event: str, **fields) -> None:
        data = (json.dumps({"event": event, **fields}) + "\n").encode()
        while data:
            data = data[os.write(self.outgoing, data) :]


def main() -> int:
    parent = _Parent()
    config = json.loads(sys.argv[1])
    child.end_with_parent(config["parent"])
    import faulthandler

    faulthandler.register(signal.SIGUSR1)  # the parent asks where a row hangs before it kills the process
    import torch

    torch.set_num_threads(1)
    from .device import UnusableDevice, open_device

    try:
        # The backend comes before PyTorch's testing modules: those look at import for the devices that exist.
        under_test = open_device(config["device"], config["module"], config["levels"])
    except UnusableDevice as error:
        parent.send("unusable", message=str(error))
        return 0
    from . import databases

    databases.use_packs(config["packs"])
    for name in config["databases"]:
        databases.DATABASES[name].load().entries()
    parent.send("ready", torch=torch.__version__)
    for line in parent.incoming:
        request = json.loads(line)
        if request["do"] == "list":
            parent.send("rows", rows=_list(request), kernels=under_test.kernels())
        elif not _run(parent, under_test, config["seed"], request["rows"]):
            return 0
    return 0


def _list(request) -> list:
    from . import databases, levels

    options = dict(globs=request["ops"], dtypes=request["dtypes"], modes=request["modes"], full=request["full"])
    rows = [row for name in request["databases"] for row in databases.select(databases.DATABASES[name], **options)]
    rows = [row for row in rows if not request["levels"] or levels.of(row.op) in request["levels"]]
    return [[row.op, row.dtype, row.mode, databases.samples_for(row, request["samples"], request["full"])] for row in rows]


def _run(parent: _Parent, under_test, seed: int, rows) -> bool:
    """Runs a batch. False when the process must be replaced."""
    from .execution import run_row

    for op, dtype, mode, samples in rows:
        parent.send("start", row=[op, dtype, mode])
        result = run_row(
            op, dtype, mode, under_test, samples=samples, seed=seed, on_sample=lambda i: parent.send("sample", index=i)
        )
        # Still within the row's time limit: a row that leaves the device locked hangs here, and not in the next row.
        healthy = not under_test.checks_health or under_test.healthy()
        if not healthy and not result.failing:
            result.outcome, result.message = "error", "every sample agrees, and the device does not work any more after this row"
        parent.send("done", result=result.to_json())
        if not healthy or _exhausted(result):
            parent.send("restart")
            return False
    parent.send("idle")
    return True


def _exhausted(result) -> bool:
    """Whether the device or the host ran out of memory in the row. What it holds would fail the rows after it, so they get a new process."""
    words = result.message.lower()
    return result.failing and (result.error_type in ("OutOfMemoryError", "MemoryError") or "out of memory" in words or "allocate memory" in words)


if __name__ == "__main__":
    sys.exit(main())
