"""`openreg trace`: runs a program and writes a trace of its devices. Imports no torch: the program runs in a Python of its own."""

import os
import sys
from pathlib import Path

from torch_openreg import child

from . import output


def add_parser(commands) -> None:
    trace = commands.add_parser(
        "trace", help="run a program and write a trace of its devices",
        usage="openreg trace [-o FILE] [--stacks] [--max-events N] (SCRIPT | -m MODULE) [ARGUMENT ...]",
        description="Runs a Python program as `python SCRIPT` does, and writes what it asked of its devices and what they did, for https://ui.perfetto.dev "
                    "and chrome://tracing. Ends with the program's exit status.",
    )  # fmt: skip
    trace.add_argument("-o", "--output", type=Path, default=Path("trace.json"), metavar="FILE", help="default: %(default)s")
    trace.add_argument("--stacks", action="store_true", help="with the line of the program that launched an operation (OPENREG_LAUNCH_TRACE=1)")
    trace.add_argument("--max-events", type=int, default=1_000_000, metavar="N", help="records to keep (default: %(default)s)")
    trace.add_argument("-m", dest="module", action="store_true", help="SCRIPT is the name of a module, as with `python -m`")
    trace.add_argument("program", metavar="SCRIPT", help="the program")
    trace.add_argument("arguments", nargs="...", metavar="ARGUMENT", help="what the program finds in sys.argv")
    trace.set_defaults(handler=_handle)


def _handle(arguments) -> int:
    if arguments.max_events < 1:
        print("openreg trace: --max-events needs to be 1 at least", file=sys.stderr)
        return 2
    if not arguments.module and not Path(arguments.program).exists():
        print(f"openreg trace: there is no file {arguments.program}", file=sys.stderr)
        return 2
    if output.refused("openreg trace", arguments.output):
        return 2
    environment = dict(os.environ)
    environment.pop("TORCH_OPENREG_DEFER_LOAD", None)
    if arguments.stacks:
        environment["OPENREG_LAUNCH_TRACE"] = "1"
    words = [str(arguments.output.resolve()), str(arguments.max_events), "module" if arguments.module else "script", arguments.program]
    return child.run_program("torch_openreg.cli.trace_child", *words, *arguments.arguments, env=environment)
