"""Reruns one row, or one sample of it, in a process of its own, with the whole traceback of its first failure.

A sample that passes alone may fail after others, so the row's samples then run in order, as they did in the run.
Started by `openreg conformance repro`; exit status 0 when it passes, 1 when it fails, 2 when it cannot run.
"""

import json
import sys
import traceback


def main() -> int:
    config = json.loads(sys.argv[1])
    import faulthandler

    faulthandler.enable()
    import torch

    torch.set_num_threads(1)
    from . import levels
    from .device import UnusableDevice, open_device
    from .rows import parse_id

    row, sample = parse_id(config["row"])
    try:
        under_test = open_device(config["device"], config["module"], [levels.of(row.op)])
    except UnusableDevice as error:
        print(error, file=sys.stderr)
        return 2
    from . import databases, samples
    from .execution import run_row
    from .result import RowResult

    databases.use_packs(config["pack"])
    database = databases.of(row.op).load()
    info = database.entries().get(row.op)
    if info is None or row.dtype not in ("none", *database.dtypes(info, row.mode)):
        print(f"the databases have no row {row.id}", file=sys.stderr)
        return 2
    drawn = database.draw(info, getattr(torch, row.dtype, row.dtype), row.mode, samples.row_seed(config["seed"], row.id))
    if sample is not None:
        if sample >= len(drawn):
            print(f"{row.id} has {len(drawn)} samples, there is no sample {sample}", file=sys.stderr)
            return 2
        print(drawn[sample].summary())
    def run(only) -> RowResult:
        options = dict(samples=databases.samples_for(row, config["samples"], config["full"]), only=only, seed=config["seed"])

        def announce(index):
            print(f"sample {index} of {len(drawn)}", flush=True)

        try:
            result = run_row(row.op, row.dtype, row.mode, under_test, propagate=True, on_sample=announce, **options)
        except Exception:
            traceback.print_exc()
            result = run_row(row.op, row.dtype, row.mode, under_test, **options)
        print(f"{row.id} on {under_test.name}: {result.outcome}{': ' if result.message else ''}{result.sentence}", flush=True)
        return result

    result = run(sample)
    if sample is not None and result.outcome == "pass":
        print("The sample passes alone. The whole row, in case the samples before it matter:")
        result = run(None)
    return 1 if result.failing else 0


if __name__ == "__main__":
    sys.exit(main())
