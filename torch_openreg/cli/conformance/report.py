"""`openreg conformance report`: the files of a run again, from the rows that it left, or of several runs together, such as shards."""

import sys
from dataclasses import replace
from pathlib import Path

from torch_openreg.testing.conformance import pack, ranking, report, run_facts


def add_parser(actions) -> None:
    parser = actions.add_parser("report", help="write the report files of one run, or of several together, such as shards",
                                description="Writes the report files from the rows of one or several runs. Runs nothing.")
    parser.add_argument("runs", type=Path, nargs="+", metavar="DIR", help="folder of a run; of a row in several, the last counts")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the files go (default: the only folder)")
    parser.add_argument("--baseline", type=Path, metavar="FILE", help="an earlier run's folder or results.jsonl, to compare with")
    parser.set_defaults(handler=handle)


def handle(arguments) -> int:
    if arguments.out is None and len(arguments.runs) > 1:
        print("several runs need --out, the folder for what they are together", file=sys.stderr)
        return 2
    try:
        facts = [run_facts.read(directory) for directory in arguments.runs]
        if None in facts:
            raise run_facts.RunFactsError(f"{arguments.runs[facts.index(None)]} has no {run_facts.NAME}: it is not the folder of a run")
        rows = list({row.id: row for directory in arguments.runs for row in report.read_results(directory)}.values())
        baseline = report.read_results(arguments.baseline) if arguments.baseline else None
    except (report.ResultsError, run_facts.RunFactsError) as error:
        print(error, file=sys.stderr)
        return 2
    together = replace(
        facts[0], command=" ; ".join(f.command for f in facts), rows=sum(f.rows for f in facts),
        exit_problems=[problem for f in facts for problem in f.exit_problems],
    )  # fmt: skip
    directory = arguments.out or arguments.runs[0]
    if arguments.out:
        together.write(directory)
        with report.ResultFile(directory, kept=rows) as file:
            path = file.path
    else:
        path = directory / report.results.NAME
    try:
        ranked = ranking.rank(rows, together.kernels, together.plan["packs"])
    except pack.PackError as error:
        print(error, file=sys.stderr)
        return 2
    written = report.write_files(directory, rows, together, baseline=baseline, ranked=ranked)
    report.print_summary(rows, options=together.repro_options, path=path, exit_problems=together.exit_problems, fix_first=ranking.lines(ranked))
    print(f"reports: {', '.join(str(directory / name) for name in written)}")
    return 0 if report.accepted(rows, together.exit_problems) else 1
