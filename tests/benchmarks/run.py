"""The benchmark: what device="openreg" costs against device="cpu", as ratios taken in one alternating run.

    python tests/benchmarks/run.py                         all lines, about five minutes
    python tests/benchmarks/run.py --only mlp,add-launch   some of them
    python tests/benchmarks/run.py --write-docs            and put the tables into docs/performance.md

A ratio above its target is shown as MISSED; the exit status is 0 all the same, because timing is no test.
docs/performance.md says how to read the table. Needs torch and the built package.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import graph
import idle
import kernels
import launch
import large
import memory
import operators
import scale
import table
import timing
import training
import transfer

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
ROWS = [*training.ROWS, *launch.ROWS, *large.ROWS, *transfer.ROWS, *kernels.ROWS, *memory.ROWS, *graph.ROWS]
SCALE = "scale"  # the counts
OPERATORS = "operators"  # the operator database
MEMORY = "memory"  # the allocator's traces and counts


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time of openreg against cpu, as ratios.")
    names = ", ".join([*(row.name for row in ROWS), SCALE, OPERATORS, MEMORY])
    parser.add_argument("--only", metavar="NAME,...", help=f"these lines only: {names}")
    parser.add_argument("--rounds", type=int, help="pairs of samples per line, instead of each line's own number")
    parser.add_argument("--tiny", action="store_true", help="sizes that show that everything runs, and no figures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown at the end")
    parser.add_argument("--write-docs", action="store_true", help=f"put the tables into {PAGE.name}")
    options = parser.parse_args(arguments)
    options.only = options.only.split(",") if options.only else None
    unknown = set(options.only or []) - {row.name for row in ROWS} - {SCALE, OPERATORS, MEMORY}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}. There are: {names}")
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds takes at least 1")
    if options.write_docs and (options.only or options.tiny):
        parser.error("--write-docs writes all lines; leave --only and --tiny away")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    import torch
    import torch_openreg  # noqa: F401

    torch.manual_seed(0)
    results, checks, families, overheads = [], [], [], []
    for row in ROWS:
        if options.only is None or row.name in options.only:
            results.append(timing.measure(row, options.rounds, options.tiny))
            print(table.line(results[-1]), flush=True)
    if options.only is None or SCALE in options.only:
        checks = [*scale.checks(), *idle.checks()]
        print(*map(table.line, checks), sep="\n", flush=True)
    if options.only is None or OPERATORS in options.only:
        families = operators.families(list(operators.calls(tiny=options.tiny, rounds=options.rounds or operators.ROUNDS)))
        print(*map(table.line, families), sep="\n", flush=True)
    if options.only is None or MEMORY in options.only:
        overheads, counted = memory.overheads(options.tiny), memory.checks()
        checks += counted
        print(*map(table.line, [*overheads, *counted]), sep="\n", flush=True)
    if options.json:
        entries = {"results": results, "checks": checks, "overheads": overheads}
        options.json.write_text(json.dumps(entries, default=_fields, indent=1))
    text = table.markdown(results, checks, families, overheads)
    if options.markdown:
        print(text)
    if options.write_docs:
        table.write_docs(PAGE, text)
    return 0


def _fields(entry):
    return {**dataclasses.asdict(entry), "met": entry.met}


if __name__ == "__main__":
    sys.exit(main())
