"""`openreg conformance repro`: one row again, in this process's place."""

import json
import os
import sys

from torch_openreg import child
from torch_openreg.testing.conformance.environment import worker_environment

from . import options


def add_parser(actions) -> None:
    repro = actions.add_parser("repro", help="rerun one row, with the whole traceback")
    repro.add_argument("row", type=options.row_id, metavar="ID", help="OP:DTYPE:MODE or OP:DTYPE:MODE#SAMPLE")
    options.add_device(repro)
    options.add_packs(repro)
    repro.add_argument("--full", action="store_true", help="all samples, when ID names none")
    repro.set_defaults(handler=handle)


def handle(arguments) -> int:
    options.use_driver(arguments)
    config = {key: getattr(arguments, key) for key in ("row", "device", "module", "seed", "samples", "full", "pack")}
    sys.stdout.flush()
    command = child.command("torch_openreg.testing.conformance.repro", json.dumps(config))
    os.execve(sys.executable, command, worker_environment(arguments.device))
