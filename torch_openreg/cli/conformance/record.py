"""`openreg conformance record`: the operator calls of a script, as a model pack."""

import argparse
import json
import os
import sys
from pathlib import Path

from torch_openreg import child
from torch_openreg.testing.conformance import pack

from .. import output


def add_parser(actions) -> None:
    record = actions.add_parser("record", help="record the operator calls of a script as a model pack",
                                description="Runs a script and writes its distinct operator calls, which `run --pack PACK` runs on any device.")
    record.add_argument("--out", type=Path, metavar="PACK",
                        help="NAME.jsonl or NAME.jsonl.gz; where it is not given here, it may be the last two words (default: the script's NAME.jsonl)")
    record.add_argument("--device", default="cpu", help="record calls on this device; the script itself puts its tensors there (default: %(default)s)")
    record.add_argument("--import", dest="module", default="", metavar="MODULE", help="module that registers the device")
    record.add_argument("program", metavar="SCRIPT")
    record.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARGUMENT", help="the script's own")
    record.set_defaults(handler=handle)


def handle(arguments) -> int:
    if not Path(arguments.program).is_file():
        print(f"there is no script {arguments.program}", file=sys.stderr)
        return 2
    if arguments.out is None and arguments.arguments[-2:-1] == ["--out"]:
        *arguments.arguments, _, out = arguments.arguments
        arguments.out = Path(out)
    arguments.out = arguments.out or Path(f"{Path(arguments.program).stem}.jsonl")
    try:
        pack.name_for(arguments.out)
    except pack.PackError as error:
        print(error, file=sys.stderr)
        return 2
    if output.refused("openreg conformance record", arguments.out):
        return 2
    task = {"out": os.path.abspath(arguments.out), **{key: getattr(arguments, key) for key in ("device", "module", "program", "arguments")}}
    sys.stdout.flush()
    return child.run_program("torch_openreg.testing.conformance.record", json.dumps(task))
