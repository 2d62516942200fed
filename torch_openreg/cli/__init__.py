"""The `openreg` command. Imports neither torch nor the extension: help is fast, and `doctor` works when they cannot load."""

import argparse
import os
import select
import signal
import sys


def main(argv=None) -> int:
    """Runs the command line and returns its exit status: 0 good, 1 something failed, 2 it cannot run."""
    # A command that needs the device starts processes of its own, which load it.
    os.environ.setdefault("TORCH_OPENREG_DEFER_LOAD", "1")
    from . import audit, conformance, doctor, memory, smi, trace

    parser = argparse.ArgumentParser(prog="openreg", description="The openreg PyTorch device: tests, diagnosis, memory snapshots and traces.")
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    audit.add_parser(commands)
    conformance.add_parser(commands)
    doctor.add_parser(commands)
    memory.add_parser(commands)
    smi.add_parser(commands)
    trace.add_parser(commands)
    words = sys.argv[1:] if argv is None else list(argv)
    arguments = parser.parse_args(words)
    arguments.words = words  # as they were given, for what a command remembers about itself
    if arguments.version:
        import torch_openreg

        print(torch_openreg.__version__)
        return 0
    if not hasattr(arguments, "handler"):
        parser.print_help()
        return 2
    try:
        status = arguments.handler(arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        if not _reader_has_gone():
            raise
        return 128 + signal.SIGPIPE


def _reader_has_gone() -> bool:
    """Whether nobody reads the output any more, as behind `| head`; what is left of it is dropped then."""
    output = sys.stdout.fileno()
    ends = select.poll()
    ends.register(output, 0)
    gone = any(event & select.POLLERR for _, event in ends.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return gone
