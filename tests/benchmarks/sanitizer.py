"""What the sanitizer costs: the training steps of training.py with a mode on against the same steps with it off, in turn, in one process.

    python tests/benchmarks/sanitizer.py                  races,lifetime, and every other mode alone
    python tests/benchmarks/sanitizer.py --modes init     one line of modes
    python tests/benchmarks/sanitizer.py --write-docs     all lines, and the table goes into docs/sanitizer.md

The target for races,lifetime is 3. The exit status is 0 all the same, because timing is no test.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from pathlib import Path

import torch
import torch_openreg  # noqa: F401

import table
import training

PAGE = Path(__file__).resolve().parents[2] / "docs" / "sanitizer.md"
MODES = ("races,lifetime", "init", "bounds", "leaks", "poison")
MODELS = {
    "mlp": (training.mlp, training.adamw),
    "transformer": (training.transformer, training.adamw),
    "cnn": (lambda tiny: training.cnn(tiny, True), training.sgd),
}
TARGET = 3


def seconds(step, steps):
    start = time.perf_counter()
    for _ in range(steps):
        step()
    torch.openreg.synchronize()
    return time.perf_counter() - start


def ratio(name, modes, rounds=15, steps=10, tiny=False):
    """The median over the rounds of the time with the modes on to the time without."""
    build, optimizer = MODELS[name]
    model, inputs, classes = build(tiny)
    model = copy.deepcopy(model).to("openreg")
    step = training.stepping(model, inputs.to("openreg"), classes.to("openreg"), optimizer(model.parameters()))
    seconds(step, 3)
    ratios = []
    for _ in range(rounds):
        torch.openreg.sanitizer.enable(modes)
        seconds(step, 2)
        on = seconds(step, steps)
        torch.openreg.sanitizer.disable()
        seconds(step, 2)
        ratios.append(on / seconds(step, steps))
    return statistics.median(ratios)


def lines(modes, **sizes):
    """The table, line by line, as it is measured."""
    yield "| modes | " + " | ".join(MODELS) + " | target |"
    yield "|---|" + "---:|" * len(MODELS) + "---|"
    for names in modes:
        ratios = [ratio(name, names, **sizes) for name in MODELS]
        target = "" if names != MODES[0] else f"{TARGET}: " + ("met" if max(ratios) <= TARGET else "**missed**")
        yield f"| `{names}` | " + " | ".join(f"{value:.2f}" for value in ratios) + f" | {target} |"


def main():
    parser = argparse.ArgumentParser(description="Cost of the sanitizer on training steps, as ratios.")
    parser.add_argument("--modes", action="append", help="modes to switch on together; may come again")
    parser.add_argument("--write-docs", action="store_true", help=f"put the table into {PAGE.name}")
    options = parser.parse_args()
    if options.modes and options.write_docs:
        parser.error("--write-docs writes all lines; leave --modes away")
    torch.set_num_threads(1)
    shown = []
    for line in lines(options.modes or MODES):
        shown.append(line)
        print(line, flush=True)
    if options.write_docs:
        table.write_docs(PAGE, table.conditions() + "\n\n" + "\n".join(shown))


if __name__ == "__main__":
    main()
