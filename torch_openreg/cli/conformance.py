"""`openreg conformance run`, `repro` and `testfile`: arguments in, exit status out."""

import argparse
import json
import os
import re
import shlex
import sys
import time
from pathlib import Path

from torch_openreg import child
from torch_openreg.testing.conformance import gaps as gap_files
from torch_openreg.testing.conformance import databases, levels, report, rows, testfile
from torch_openreg.testing.conformance.environment import worker_environment
from torch_openreg.testing.conformance.pool import Plan, Pool, RunFailed


def add_parser(commands) -> None:
    conformance = commands.add_parser("conformance", help="run PyTorch's operator database on a device")
    actions = conformance.add_subparsers(title="actions", metavar="ACTION", required=True)

    run = actions.add_parser("run", help="run rows (operator, dtype, mode) and print a table",
                             description="Runs PyTorch's operator database on a device against the CPU.")
    _add_device_arguments(run)
    run.add_argument("--level", type=_checked(levels.parse), default=(), metavar="LEVEL,...",
                     help=f"all, or of {','.join(levels.LEVELS)}, as in L0-L2,L4; each with all of its modes")
    run.add_argument("--db", type=_databases, metavar="NAME,...",
                     help=f"all, or of {','.join(databases.DATABASES)} (default: those of --level, else {databases.DEFAULT})")
    run.add_argument("--ops", type=_names, default=(), metavar="GLOB,...", help="operators by full name (default: all)")
    run.add_argument("--dtypes", type=_dtype_names, default=(), metavar="NAME,...", help="dtypes, as in float32,int64")
    run.add_argument("--mode", type=_modes, default=(), metavar="NAME,...", help=f"all, or of {','.join(rows.MODES)}")
    run.add_argument("--full", action="store_true", help="all samples, dtypes and modes, unless other options restrict them")
    run.add_argument("--workers", type=_positive, default=min(4, _cpus()), help="worker processes (default: %(default)s)")
    run.add_argument("--timeout", type=_seconds, default=60.0, metavar="TIME", help="limit for one row (default: 60s)")
    run.add_argument("--time-budget", type=_seconds, metavar="TIME", help="as in 5m: run a fair part, skip the rest")
    run.add_argument("--shard", type=_checked(rows.parse_shard), metavar="I/N", help="run only the I-th of N parts")
    run.add_argument("--gaps", type=Path, metavar="FILE", help="known failures with reasons (default: the device's own)")
    run.add_argument("--out", type=Path, default=Path("openreg-conformance"), metavar="DIR", help="default: %(default)s")
    run.set_defaults(handler=_run)

    repro = actions.add_parser("repro", help="rerun one row, with the whole traceback")
    repro.add_argument("row", type=_row_id, metavar="ID", help="OP:DTYPE:MODE or OP:DTYPE:MODE#SAMPLE")
    _add_device_arguments(repro)
    repro.add_argument("--full", action="store_true", help="all samples, when ID names none")
    repro.set_defaults(handler=_repro)

    tests = actions.add_parser("testfile", help="run a device-generic test file on the CPU and on a device, and show what differs",
                               description="Runs the tests that a file makes with instantiate_device_type_tests, on the CPU and on a device.")
    tests.add_argument("file", type=Path, metavar="FILE", help="a test file, as it is")
    tests.add_argument("--device", default="openreg", help="as in openreg:1 (default: %(default)s)")
    tests.add_argument("--import", dest="module", default="", metavar="MODULE", help="module that registers the device")
    tests.add_argument("--tests", type=_names, default=(), metavar="GLOB,...", help="tests by name, as in TestMine.test_x_float32")
    tests.add_argument("--timeout", type=_seconds, default=60.0, metavar="TIME", help="limit for one test (default: 60s)")
    tests.set_defaults(handler=_testfile)


def _add_device_arguments(parser) -> None:
    parser.add_argument("--device", default="openreg", help="any device that torch knows, as in openreg:1 (default: %(default)s)")
    parser.add_argument("--import", dest="module", default="", metavar="MODULE", help="module that registers the device")
    parser.add_argument("--samples", type=_positive, metavar="N", help="samples per row")
    parser.add_argument("--seed", type=int, default=0, help="seed of samples and random operators (default: 0)")


def _run(arguments) -> int:
    try:
        path = arguments.gaps or gap_files.default_file(arguments.device)
        known = gap_files.read(path) if path else []
    except gap_files.GapFileError as error:
        print(error, file=sys.stderr)
        return 2
    names = arguments.db or levels.databases_of(arguments.level) or (databases.DEFAULT,)
    modes = arguments.mode or (databases.modes_of(names) if arguments.level else ())
    plan = Plan(
        arguments.device, arguments.module, arguments.ops, arguments.dtypes, modes, arguments.full,
        arguments.samples, arguments.seed, arguments.workers, arguments.timeout, names, arguments.level,
    )
    pool = Pool(plan)
    try:
        return _run_rows(arguments, plan, pool, known)
    except RunFailed as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        pool.close()


def _run_rows(arguments, plan: Plan, pool: Pool, known) -> int:
    started = time.monotonic()
    tasks = pool.list_rows()
    if arguments.shard:
        tasks = rows.shard(tasks, *arguments.shard)
    if not tasks:
        print("no row of the databases fits --level, --db, --ops, --dtypes, --mode and --shard", file=sys.stderr)
        return 2
    stop_at = None
    if arguments.time_budget:
        samples = dict(tasks)
        tasks = [(row, samples[row]) for row in rows.interleave(list(samples), plan.seed)]
        stop_at = started + arguments.time_budget
    results, stopped, status = [], "", 0
    progress = report.Progress(len(tasks))
    with report.ResultFile(arguments.out) as file:
        try:
            for result in pool.run(tasks, stop_at):
                gap_files.apply(known, result)
                results.append(result)
                file.add(result)
                progress.add(result)
        except KeyboardInterrupt:
            stopped, status = "interrupted", 130
        except RunFailed as error:
            stopped, status = str(error), 2
    progress.close()
    pool.close()
    report.print_summary(results, options=_repro_options(arguments), path=file.path, exit_problems=pool.exit_problems)
    print(f"time: {time.monotonic() - started:.0f} s with {plan.workers} workers")
    if stopped:
        print(f"{stopped}; {len(tasks) - len(results)} of {len(tasks)} rows have no result", file=sys.stderr)
        return status
    return 0 if report.accepted(results, pool.exit_problems) else 1


def _repro_options(arguments) -> str:
    """The options that make `repro` see what the run saw, where they are not the defaults."""
    words = ["--device", arguments.device]
    if arguments.module:
        words += ["--import", arguments.module]
    if arguments.seed:
        words += ["--seed", str(arguments.seed)]
    if arguments.samples:
        words += ["--samples", str(arguments.samples)]
    if arguments.full:
        words.append("--full")
    return shlex.join(words)


def _repro(arguments) -> int:
    config = {key: getattr(arguments, key) for key in ("row", "device", "module", "seed", "samples", "full")}
    sys.stdout.flush()
    command = child.command("torch_openreg.testing.conformance.repro", json.dumps(config))
    os.execve(sys.executable, command, worker_environment(arguments.device))


def _testfile(arguments) -> int:
    try:
        return testfile.compare(arguments.file, arguments.device, arguments.module, arguments.tests, arguments.timeout)
    except RunFailed as error:
        print(error, file=sys.stderr)
        return 2


# -- argument types: each returns a value or raises ArgumentTypeError with a sentence --


def _checked(parse):
    def convert(text):
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return convert


def _row_id(text: str) -> str:
    _checked(rows.parse_id)(text)
    return text


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in (part.strip() for part in text.split(",")) if name)


def _dtype_names(text: str) -> tuple[str, ...]:
    return tuple(name.removeprefix("torch.") for name in _names(text))


def _modes(text: str) -> tuple[str, ...]:
    names, every = _names(text), databases.modes_of(databases.DATABASES)
    if names == ("all",):
        return every
    if unknown := [name for name in names if name not in every]:
        raise argparse.ArgumentTypeError(f"unknown mode {', '.join(unknown)}; the modes are {', '.join(every)}")
    return names


def _databases(text: str) -> tuple[str, ...]:
    names, every = _names(text), tuple(databases.DATABASES)
    if names == ("all",):
        return every
    if unknown := [name for name in names if name not in every]:
        raise argparse.ArgumentTypeError(f"unknown database {', '.join(unknown)}; the databases are {', '.join(every)}")
    return names


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 up")
    return int(text)


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h|)", text)
    if not match or float(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; write 90, 90s, 5m or 1h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
