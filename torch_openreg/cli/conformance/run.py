"""`openreg conformance run`: rows run on a device, and what is left behind."""

import contextlib
import shlex
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

from torch_openreg.testing.conformance import databases, levels, ranking, report, rows, run_facts
from torch_openreg.testing.conformance import gaps as gap_files
from torch_openreg.testing.conformance.pool import BUDGET_SPENT, Plan, Pool, RunFailed
from torch_openreg.testing.conformance.report import diff, results

from .. import output
from . import gaps, options

INTERRUPTED = 130  # as a shell has it for SIGINT


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
    run.add_argument("--update", action="store_true", help="rewrite the file of --gaps so that it fits what this run finds")
    run.add_argument("--reason", default="", metavar="TEXT", help="with --update, the reason of new entries (default: what the device said)")
    run.add_argument("--out", type=Path, default=Path("openreg-conformance"), metavar="DIR", help="default: %(default)s")
    run.add_argument("--resume", action="store_true", help="continue the run in DIR: only rows without a result run")
    run.add_argument("--baseline", type=Path, metavar="FILE", help="an earlier run's folder or results.jsonl, to compare with")
    run.set_defaults(handler=handle)


def handle(arguments) -> int:
    options.use_driver(arguments)
    if arguments.update and not arguments.gaps:
        print("--update rewrites the file of --gaps; name one", file=sys.stderr)
        return 2
    if arguments.update and output.refused("openreg conformance run", arguments.gaps):
        return 2
    try:
        path = arguments.gaps or gap_files.default_file(arguments.device)
        known = gap_files.read(path) if path and (path.exists() or not arguments.update) else []
        # Before anything is written: the earlier run may lie where this one goes.
        baseline = report.read_results(arguments.baseline) if arguments.baseline else None
        before = run_facts.read(arguments.out) if arguments.resume else None
        kept = _kept(arguments.out, before) if arguments.resume else []
    except (gap_files.GapFileError, report.ResultsError, run_facts.RunFactsError) as error:
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
    pool = None
    try:
        with _terminated_like_interrupted():
            pool = Pool(plan)
            return _run_rows(arguments, plan, pool, known, baseline, before, kept)
    except (RunFailed, run_facts.RunFactsError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted before reports were written", file=sys.stderr)
        return INTERRUPTED
    finally:
        if pool:
            pool.close()


def _kept(directory: Path, before) -> list:
    """The results of the run to continue. What its time budget left out has none."""
    if before is None:
        if (directory / results.NAME).exists():
            raise run_facts.RunFactsError(f"{directory} has rows and no {run_facts.NAME}, so nobody knows what they belong to; leave --resume out to start again")
        return []
    found = report.read_results(directory) if (directory / results.NAME).exists() else []
    return [result for result in found if result.message != BUDGET_SPENT]


def _marked(known, found) -> list:
    """The results with the marks of these gaps, in the place of those they had."""
    return [gap_files.apply(known, replace(result, gap="", gap_reason="")) for result in found]


@contextlib.contextmanager
def _terminated_like_interrupted():
    """SIGTERM, as `timeout` and CI systems send it, ends the run as Ctrl-C does: reports are written. Python lets only the main thread do this."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run_rows(arguments, plan: Plan, pool: Pool, known, baseline, before, kept) -> int:
    started = time.monotonic()
    tasks = pool.list_rows()
    if arguments.shard:
        tasks = rows.shard(tasks, *arguments.shard)
    if not tasks:
        print("no row of the databases fits --level, --db, --ops, --dtypes, --mode and --shard", file=sys.stderr)
        return 2
    facts = _facts(arguments, plan, pool, len(tasks))
    if before is not None:
        run_facts.check_same(arguments.out, before, facts.plan)
        facts = before
    facts.write(arguments.out)
    found = _marked(known, kept)
    done = {result.id for result in found}
    todo, stop_at = [(row, samples) for row, samples in tasks if row.id not in done], None
    if arguments.time_budget:
        samples = dict(todo)
        todo = [(row, samples[row]) for row in rows.interleave(list(samples), plan.seed)]
        stop_at = started + arguments.time_budget
    stopped, status = "", 0
    progress = report.Progress(len(tasks), done=found)
    with report.ResultFile(arguments.out, kept=found) as file:
        try:
            for result in pool.run(todo, stop_at):
                gap_files.apply(known, result)
                found.append(result)
                file.add(result)
                progress.add(result)
        except KeyboardInterrupt:
            stopped, status = "interrupted", INTERRUPTED
        except RunFailed as error:
            stopped, status = str(error), 2
    progress.close()
    pool.close()
    if arguments.update and not stopped:
        found = _marked(gaps.update(arguments.gaps, found, arguments.reason), found)
        with report.ResultFile(arguments.out, kept=found):
            pass
    facts = replace(facts, exit_problems=[*facts.exit_problems, *pool.exit_problems])
    facts.write(arguments.out)
    ranked = ranking.rank(found, facts.kernels, facts.plan["packs"])
    written = report.write_files(arguments.out, found, facts, baseline=baseline, ranked=ranked)
    report.print_summary(found, options=facts.repro_options, path=file.path, exit_problems=facts.exit_problems, fix_first=ranking.lines(ranked))
    print(f"reports: {', '.join(str(arguments.out / name) for name in written)}")
    if baseline is not None:
        print(f"since {arguments.baseline}: {diff.sentence(diff.compare(baseline, found))}")
    print(f"time: {time.monotonic() - started:.0f} s with {plan.workers} workers")
    if stopped:
        print(f"{stopped}; {len(tasks) - len(found)} of {len(tasks)} rows have no result; --resume continues", file=sys.stderr)
        return status
    return 0 if report.accepted(found, facts.exit_problems) else 1


def _facts(arguments, plan: Plan, pool: Pool, count: int) -> run_facts.RunFacts:
    """What to remember about this run."""
    return run_facts.RunFacts(
        plan=run_facts.plan_of(plan, shard=arguments.shard, torch_version=pool.torch_version),
        command=shlex.join(arguments.words),
        repro_options=_repro_options(arguments),
        started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        rows=count,
        kernels=tuple(pool.kernels),
    )


def _repro_options(arguments) -> str:
    """The options that make `repro` see what the run saw, where they are not the defaults."""
    words = ["--device", arguments.device]
    if arguments.module:
        words += ["--import", arguments.module]
    if arguments.driver:
        words += ["--driver", arguments.driver]
    if arguments.seed:
        words += ["--seed", str(arguments.seed)]
    if arguments.samples:
        words += ["--samples", str(arguments.samples)]
    if arguments.pack:
        words += ["--pack", ",".join(arguments.pack)]
    if arguments.full:
        words.append("--full")
    return shlex.join(words)
