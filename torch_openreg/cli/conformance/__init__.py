"""`openreg conformance`: a file for each action. Each has `add_parser(actions)`, whose handler takes the arguments and returns the exit status."""

from . import diff, explain, gaps, record, report, repro, run, testfile


def add_parser(commands) -> None:
    conformance = commands.add_parser("conformance", help="run PyTorch's operator database on a device")
    actions = conformance.add_subparsers(title="actions", metavar="ACTION", required=True)
    for action in (run, repro, explain, diff, report, gaps, record, testfile):
        action.add_parser(actions)
