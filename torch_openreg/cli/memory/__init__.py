"""`openreg memory`: a memory snapshot as a summary in the terminal and as a page that needs nothing but a browser.

Reads what torch.openreg.memory._dump_snapshot wrote, and what torch.cuda's wrote. Imports no torch.
"""

import sys
from pathlib import Path

from . import page, report, snapshot, summary


def add_parser(commands) -> None:
    memory = commands.add_parser(
        "memory", help="show a memory snapshot",
        description="Prints what a memory snapshot holds and writes an HTML page of its segments and its timeline.",
    )
    memory.add_argument("snapshot", type=Path, help="file of torch.openreg.memory._dump_snapshot()")
    memory.add_argument("-o", "--output", type=Path, metavar="FILE", help="the page (default: the snapshot's name with .html)")
    memory.add_argument("--no-page", action="store_true", help="print the summary only")
    memory.add_argument("--top", type=int, default=10, metavar="N", help="lines per table of the summary (default: %(default)s)")
    memory.set_defaults(handler=_handle)


def _handle(arguments) -> int:
    output = arguments.output or arguments.snapshot.with_suffix(".html")
    try:
        if not arguments.no_page and output.exists() and output.samefile(arguments.snapshot):
            raise snapshot.SnapshotError(f"the page would overwrite the snapshot {arguments.snapshot}; choose another name with -o.")
        facts = report.build(snapshot.read(arguments.snapshot))
        print(summary.text(facts, arguments.top))
        if not arguments.no_page:
            output.write_text(page.html(facts, arguments.snapshot.name), encoding="utf-8")
            print(f"page: {output}")
    except (snapshot.SnapshotError, OSError) as error:
        print(f"openreg memory: {error}", file=sys.stderr)
        return 2
    return 0
