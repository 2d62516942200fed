"""Every operator of torch's operator database, with a synchronize per call: the worst that asynchrony can meet.

Samples are small, so a ratio says what a call costs, not what a kernel costs. Needs torch's operator database
(torch.testing._internal), which needs expecttest.

    python tests/benchmarks/operators.py                  ratios by family, and the calls with the largest ones
    python tests/benchmarks/operators.py --only add,mm    some entries, sample by sample
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from timing import Side, alternate

TARGET = 3.0
SAMPLES = 3  # per entry: the first, the last and the ones between, evenly
ROUNDS = 5
ROUND_SECONDS = 2e-4

# Entries without a call to compare: they measure something else than a kernel.
LEFT_OUT = {
    "empty": "allocates only; launch.py measures it",
    "empty_like": "allocates only",
    "empty_permuted": "allocates only",
    "empty_strided": "allocates only",
    "new_empty": "allocates only",
    "new_empty_strided": "allocates only",
}


@dataclass(frozen=True)
class Call:
    """One sample of one entry: its ratio, and the medians of the times in seconds."""

    entry: str
    sample: int
    family: str
    ratio: float
    device_seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Family:
    """A group of entries: how many calls were measured, and the geometric mean of their ratios."""

    name: str
    calls: int
    ratio: float
    worst: str


def family_of(op) -> str:
    """The group of an operator of the database, by the kind of its entry and by its name."""
    from torch.testing._internal.opinfo import core

    for prefix, family in (
        ("linalg", "linalg"),
        ("nn.functional", "nn.functional"),
        ("special", "special"),
        ("masked", "masked"),
        ("signal", "windows"),
        ("sparse", "sparse"),
        ("torch.ops", "others"),
    ):
        if op.name.startswith(prefix):
            return family
    for kind, family in (
        (core.UnaryUfuncInfo, "unary"),
        (core.BinaryUfuncInfo, "binary"),
        (core.ReductionOpInfo, "reductions"),
        (core.SpectralFuncInfo, "fft"),
        (core.ShapeFuncInfo, "shapes"),
    ):
        if isinstance(op, kind):
            return family
    return "others"


def mapped(value, device):
    """A sample's arguments with their tensors on `device`."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
        return type(value)(*(mapped(v, device) for v in value)) if hasattr(value, "_fields") else type(value)(mapped(v, device) for v in value)
    if isinstance(value, dict):
        return {key: mapped(v, device) for key, v in value.items()}
    if isinstance(value, torch.device) or value == "cpu":
        return torch.device(device)
    return value


def evenly(items, count):
    """At most `count` of the items with their numbers, the first and the last among them."""
    if len(items) <= count:
        return list(enumerate(items))
    return [(number, items[number]) for number in sorted({round(i * (len(items) - 1) / (count - 1)) for i in range(count)})]


def repeating(call, times):
    def work():
        for _ in range(times):
            call()

    return work


def measure(entry, number, family, on_device, on_cpu, rounds, tiny) -> Call:
    """The ratio of two calls, of which the first synchronizes."""
    for call in (on_device, on_cpu):
        for _ in range(1 if tiny else 3):
            call()
    start = time.perf_counter()
    on_cpu()
    times = 1 if tiny else max(1, min(50, int(ROUND_SECONDS / max(time.perf_counter() - start, 1e-7))))
    pairs = alternate(Side(repeating(on_device, times)), Side(repeating(on_cpu, times)), rounds, collect=False)
    return Call(
        entry,
        number,
        family,
        statistics.median(a.seconds / b.seconds for a, b in pairs),
        statistics.median(a.seconds for a, _ in pairs) / times,
        statistics.median(b.seconds for _, b in pairs) / times,
    )


def calls(only=None, samples=SAMPLES, rounds=ROUNDS, tiny=False) -> Iterator[Call]:
    """Measures float32 samples of the database's entries, entry by entry, with one intra-op thread."""
    from torch.testing._internal.common_methods_invocations import op_db

    torch.set_num_threads(1)
    for op in op_db:
        name = f"{op.name}.{op.variant_test_name}" if op.variant_test_name else op.name
        if op.name in LEFT_OUT or torch.float32 not in op.supported_dtypes("cpu") or (only and name not in only):
            continue
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            try:
                chosen = evenly(list(op.sample_inputs("cpu", torch.float32)), samples)
            except Exception:  # noqa: BLE001 - an entry that needs a package which is not installed (scipy)
                continue
            for number, sample in chosen:
                pair = []
                for device in ("openreg", "cpu"):
                    parts = [mapped(part, device) for part in (sample.input, sample.args, sample.kwargs)]
                    pair.append(lambda parts=parts: op(parts[0], *parts[1], **parts[2]))
                device_call, cpu_call = pair
                synchronize = torch.openreg.synchronize

                def on_device(call=device_call):
                    call()
                    synchronize()

                try:
                    on_device()
                    cpu_call()
                except Exception:  # noqa: BLE001 - what does not run is the conformance kit's business
                    continue
                yield measure(name, number, family_of(op), on_device, cpu_call, rounds, tiny)


def geometric_mean(ratios) -> float:
    return math.exp(statistics.fmean(map(math.log, ratios)))


def families(measured: list[Call]) -> list[Family]:
    """One line per family, the most expensive first, and one for all."""
    groups: dict[str, list[Call]] = {}
    for call in measured:
        groups.setdefault(call.family, []).append(call)
    lines = []
    for name, group in groups.items():
        worst = max(group, key=lambda call: call.ratio)
        lines.append(Family(name, len(group), geometric_mean([call.ratio for call in group]), f"{worst.entry} ({worst.ratio:.1f})"))
    lines.sort(key=lambda line: -line.ratio)
    total = Family("all", len(measured), geometric_mean([call.ratio for call in measured]), "")
    return [*lines, total]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Ratios of openreg to cpu over the operator database, with a synchronize per call.")
    parser.add_argument("--only", help="entries, separated by commas")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="samples per entry")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="pairs per sample")
    parser.add_argument("--worst", type=int, default=40, help="how many of the worst calls to print")
    options = parser.parse_args(arguments)
    import torch_openreg  # noqa: F401

    only = set(options.only.split(",")) if options.only else None
    measured = list(calls(only, options.samples, options.rounds))
    for call in sorted(measured, key=lambda call: -call.ratio)[: options.worst]:
        print(f"{call.ratio:8.2f}  {call.device_seconds * 1e6:9.1f} us  {call.cpu_seconds * 1e6:9.1f} us  {call.entry} #{call.sample}")
    for line in families(measured):
        print(f"{line.name:15} {line.calls:5}  {line.ratio:6.2f}  {line.worst}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
