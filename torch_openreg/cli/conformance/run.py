"""`openreg conformance run`: rows run on a device, and what is left behind."""

import shlex
import sys
import time
from pathlib import Path

from torch_openreg.testing.conformance import databases, levels, report, rows
from torch_openreg.testing.conformance import gaps as gap_files
from torch_openreg.testing.conformance.pool import Plan, Pool, RunFailed

from . import options


def add_parser(actions) -> None:
    run = actions.add_parser("run", help="run rows (operator, dtype, mode) and print a table",
                             description="Runs PyTorch's operator database on a device against the CPU.")
    options.add_device(run)
    run.add_argument("--level", type=options.checked(levels.parse), default=(), metavar="LEVEL,...",
                     help=f"all, or of {','.join(levels.LEVELS)}, as in L0-L2,L4; each with all of its modes")
    run.add_argument("--db", type=options.database_names, metavar="NAME,...",
                     help=f"all, or of {','.join(databases.DATABASES)} (default: those of --level, else {databases.DEFAULT})")
    options.add_packs(run)
    run.add_argument("--ops", type=options.names, default=(), metavar="GLOB,...", help="operators by full name (default: all)")
    run.add_argument("--dtypes", type=options.dtype_names, default=(), metavar="NAME,...", help="dtypes, as in float32,int64")
    run.add_argument("--mode", type=options.mode_names, default=(), metavar="NAME,...", help=f"all, or of {','.join(rows.MODES)}")
    run.add_argument("--full", action="store_true", help="all samples, dtypes and modes, unless other options restrict them")
    run.add_argument("--workers", type=options.positive, default=min(4, options.cpus()), help="worker processes (default: %(default)s)")
    run.add_argument("--timeout", type=options.seconds, default=60.0, metavar="TIME", help="limit for one row (default: 60s)")
    run.add_argument("--time-budget", type=options.seconds, metavar="TIME", help="as in 5m: run a fair part, skip the rest")
    run.add_argument("--shard", type=options.checked(rows.parse_shard), metavar="I/N", help="run only the I-th of N parts")
    run.add_argument("--gaps", type=Path, metavar="FILE", help="known failures with reasons (default: the device's own)")
    run.add_argument("--out", type=Path, default=Path("openreg-conformance"), metavar="DIR", help="default: %(default)s")
    run.set_defaults(handler=handle)


def handle(arguments) -> int:
    try:
        path = arguments.gaps or gap_files.default_file(arguments.device)
        known = gap_files.read(path) if path else []
    except gap_files.GapFileError as error:
        print(error, file=sys.stderr)
        return 2
    names = arguments.db or levels.databases_of(arguments.level) or (("model",) if arguments.pack else (databases.DEFAULT,))
    if arguments.pack and "model" not in names:
        print("--pack is for the rows of level L6, which --level and --db leave out", file=sys.stderr)
        return 2
    modes = arguments.mode or (databases.modes_of(names) if arguments.level else ())
    plan = Plan(
        arguments.device, arguments.module, arguments.ops, arguments.dtypes, modes, arguments.full,
        arguments.samples, arguments.seed, arguments.workers, arguments.timeout, names, arguments.level, arguments.pack,
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
    if arguments.pack:
        words += ["--pack", ",".join(arguments.pack)]
    if arguments.full:
        words.append("--full")
    return shlex.join(words)
