"""`openreg conformance gaps`: a gap file checked, updated from a run, or written as torch's own dictionaries."""

import sys
from pathlib import Path

from torch_openreg import child
from torch_openreg.testing.conformance import gap_update, report
from torch_openreg.testing.conformance import gaps as gap_files
from torch_openreg.testing.conformance.environment import worker_environment

from .. import output


def add_parser(actions) -> None:
    gaps = actions.add_parser("gaps", help="check a gap file, fit it to a run, or write it for torch's set_test_configs")
    gaps.add_argument("file", type=Path, metavar="FILE", help="the gap file")
    gaps.add_argument("--update-from", type=Path, metavar="DIR", help="make it fit the results of a run, as `run --update` does")
    gaps.add_argument("--reason", default="", metavar="TEXT", help="reason of new entries (default: what the device said)")
    gaps.add_argument("--test-configs", type=Path, metavar="OUT.py", help="write the dictionaries that PrivateUse1TestBase.set_test_configs takes")
    gaps.set_defaults(handler=handle)


def handle(arguments) -> int:
    if output.refused("openreg conformance gaps", arguments.test_configs):
        return 2
    if arguments.update_from and output.refused("openreg conformance gaps", arguments.file):
        return 2
    try:
        if arguments.update_from:
            results = report.read_results(arguments.update_from)
            update(arguments.file, results, arguments.reason)
        entries = gap_files.read(arguments.file)
    except (gap_files.GapFileError, report.ResultsError) as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.test_configs:
        return child.run_program("torch_openreg.testing.conformance.torch_configs", str(arguments.file), str(arguments.test_configs),
                                 env=worker_environment("cpu"))
    unsupported = sum(entry.kind == "unsupported" for entry in entries)
    print(f"{arguments.file}: {len(entries)} entries, {unsupported} unsupported and {len(entries) - unsupported} expected failures")
    return 0


def update(path: Path, results, reason: str) -> list[gap_files.Gap]:
    """Makes the gap file fit the results, says what changed and returns its entries. A file that is not there is begun. Raises GapFileError."""
    change = gap_update.updated(gap_files.read(path) if path.exists() else [], results, reason)
    gap_update.write(path, change.entries)
    print(f"{path}: {len(change.added)} entries are new, {len(change.removed)} are gone, {len(change.entries)} in all")
    return change.entries
