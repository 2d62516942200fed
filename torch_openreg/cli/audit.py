"""`openreg audit`: runs a program and lists the places of its libraries that asked for cuda by name, and the tests that were skipped for it.

The program runs in a process of its own (audit_child.py) and keeps its arguments, its output and its exit status.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from torch_openreg import child

from . import output


def add_parser(commands) -> None:
    audit = commands.add_parser(
        "audit",
        help="list where a program asks for cuda by name",
        description="Runs a script or a module and lists every line that names cuda and ran: x.is_cuda, torch.cuda.is_available(), "
        "device.type == 'cuda', .to('cuda'). With -m pytest, also the tests that were skipped. Lines of torch, of this package and of "
        "Python itself are left out.",
    )
    audit.add_argument("--json", type=Path, metavar="FILE", help="write the places as JSON too")
    audit.add_argument("--only", action="append", default=[], metavar="PATH", help="look at files under this path only; may be repeated")
    audit.add_argument("-m", dest="module", action="store_true", help="the program is a module, as in python -m")
    audit.add_argument("program", help="the script, or the module after -m")
    audit.add_argument("arguments", nargs=argparse.REMAINDER, help="its arguments")
    audit.set_defaults(handler=_handle)


def _handle(arguments) -> int:
    if not arguments.module and not Path(arguments.program).is_file():
        print(f"openreg audit: there is no script {arguments.program}; a module is given as `-m {arguments.program}`.", file=sys.stderr)
        return 2
    if output.refused("openreg audit", arguments.json):
        return 2
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "places.json"
        task = {
            "out": str(found),
            "only": [os.path.abspath(path) for path in arguments.only],
            "module": arguments.module,
            "program": arguments.program,
            "arguments": arguments.arguments,
        }
        status = child.run_program("torch_openreg.cli.audit_child", json.dumps(task))
        if not found.exists():
            print(f"openreg audit: {arguments.program} ended with status {status} before its lines could be told.", file=sys.stderr)
            return 2
        result = json.loads(found.read_text())
    print(render(result), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return status


def render(result: dict) -> str:
    """Files with their lines, the most often run file first, then the skipped tests by reason."""
    files: dict[str, list[dict]] = {}
    for place in result["places"]:
        files.setdefault(place["file"], []).append(place)
    lines = ["", f"openreg audit: {len(result['places'])} lines that name cuda ran, in {len(files)} files"]
    for file, places in sorted(files.items(), key=lambda item: (-sum(place["count"] for place in item[1]), item[0])):
        lines.append(file)
        lines += [f"  {place['line']:>5}  {place['count']:>5}x  {place['function']}: {place['source']}" for place in sorted(places, key=lambda place: place["line"])]
    if result["skips"]:
        total = sum(len(tests) for tests in result["skips"].values())
        lines.append(f"{total} tests were skipped")
        for reason, tests in sorted(result["skips"].items(), key=lambda item: (-len(item[1]), item[0])):
            lines.append(f"  {len(tests):>5}x  {reason}  ({tests[0]}{', ...' if len(tests) > 1 else ''})")
    return "\n".join(lines)
