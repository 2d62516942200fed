"""`openreg conformance diff`: two runs, row by row. Exit status 1 when something broke."""

import json
import sys
from pathlib import Path

from torch_openreg.testing.conformance.report import ResultsError, diff, read_results


def add_parser(actions) -> None:
    parser = actions.add_parser("diff", help="compare two runs: broken, fixed, changed, new and gone rows",
                                description="Compares two runs row by row. The exit status is 1 when a row broke.")
    parser.add_argument("before", type=Path, metavar="BEFORE", help="folder or results.jsonl of the earlier run")
    parser.add_argument("now", type=Path, metavar="NOW", help="of the later run")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(handler=handle)


def handle(arguments) -> int:
    try:
        found = diff.compare(read_results(arguments.before), read_results(arguments.now))
    except ResultsError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(diff.to_json(found), indent=1) if arguments.json else diff.text(found))
    return 1 if found.broken else 0
