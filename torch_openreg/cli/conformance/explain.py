"""`openreg conformance explain`: what an operator is, what reaches it, how its rows fared, and what a device needs for it."""

import json
import os
import sys
from pathlib import Path

from torch_openreg import child
from torch_openreg.testing.conformance import report
from torch_openreg.testing.conformance.environment import worker_environment

from . import options

LATEST = Path("openreg-conformance")


def add_parser(actions) -> None:
    explain = actions.add_parser("explain", help="say what an operator is and what a device needs for it",
                                 description="Says what an ATen operator is, which operators, modules and models reach it, and what a device needs for it.")
    explain.add_argument("operator", metavar="OPERATOR", help="as in aten::addmm or aten::add.out; without an overload all of them")
    explain.add_argument("--device", default="openreg", help="any device that torch knows (default: %(default)s)")
    explain.add_argument("--import", dest="module", default="", metavar="MODULE", help="module that registers the device")
    explain.add_argument("--results", type=Path, metavar="DIR", help=f"folder of a run; rows of other devices are left out (default: {LATEST}, where there is one)")
    options.add_packs(explain)
    explain.set_defaults(handler=handle)


def handle(arguments) -> int:
    results = arguments.results or (LATEST if (LATEST / report.results.NAME).exists() else None)
    try:
        report.read_results(results) if results else ()
    except report.ResultsError as error:
        print(error, file=sys.stderr)
        return 2
    config = {"operator": arguments.operator, "device": arguments.device, "module": arguments.module, "packs": arguments.pack,
              "results": os.path.abspath(results) if results else ""}  # fmt: skip
    sys.stdout.flush()
    os.execve(sys.executable, child.command("torch_openreg.testing.conformance.explain", json.dumps(config)), worker_environment(arguments.device))
