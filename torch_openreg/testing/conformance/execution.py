"""Runs one row in this process: every chosen sample through the row's mode, and what became of it."""

import time
import warnings

import torch

from . import databases
from . import samples as sampling
from .calls import BackendBreaksCpu, Case, CpuCannot, NotApplicable, Stage
from .compare import Mismatch
from .device import DeviceUnderTest
from .result import FAILING, RowResult
from .rows import Row


def operators() -> dict:
    """The entries of the default database by full name."""
    return databases.DATABASES[databases.DEFAULT].load().entries()


def run_row(op, dtype, mode="forward", device="cpu", *, samples=8, only=None, seed=0, on_sample=None, propagate=False) -> RowResult:
    """Runs one row and returns what became of it; raises only for a wrong argument, never for the device's failure.

    op: a row's name in any database, or an OpInfo. dtype: a torch.dtype or its name. device: a name or a DeviceUnderTest.
    samples: how many to run, 0 for all; only: the index of the one sample to run instead.
    on_sample(index): called before each sample. propagate: let the first failure's exception through (for a debugger).
    """
    name = op if isinstance(op, str) else op.full_name
    database = databases.of(name).load()
    info = database.entries()[op] if isinstance(op, str) else op
    dtype = getattr(torch, dtype, dtype) if isinstance(dtype, str) else dtype
    under_test = device if isinstance(device, DeviceUnderTest) else DeviceUnderTest(str(device))
    row = Row(name, str(dtype).removeprefix("torch."), mode)
    result = RowResult(row.op, row.dtype, row.mode, under_test.name, "pass", seed=seed)
    started = time.perf_counter()
    with warnings.catch_warnings(), sampling.kept_generators():
        warnings.simplefilter("ignore")
        _run(database, info, dtype, row, under_test, result, samples, only, on_sample, propagate)
    result.seconds = round(time.perf_counter() - started, 4)
    return result


def _run(database, info, dtype, row, under_test, result, wanted, only, on_sample, propagate) -> None:
    row_seed = sampling.row_seed(result.seed, row.id)
    try:
        drawn = database.draw(info, dtype, row.mode, row_seed)
    except Exception as error:
        result.outcome, result.message = "skip", f"the entry cannot make samples: {_sentence(error)}"
        return
    result.samples_total = len(drawn)
    chosen = sampling.choose(len(drawn), wanted) if only is None else [only]
    if not drawn:
        result.outcome, result.message = "skip", "the entry has no samples"
        return
    if chosen[-1] >= len(drawn):
        raise IndexError(f"{row.id} has {len(drawn)} samples, there is no sample {only}")
    floors = database.tolerances(info, row.mode)
    run = database.RUNNERS[row.mode]
    for index in chosen:
        if on_sample is not None:
            on_sample(index)
        result.samples_run += 1
        outcome, error, stage = _run_sample(run, info, drawn[index], under_test, floors, row_seed + index)
        if outcome == "pass":
            continue
        if propagate and outcome in FAILING:
            raise error
        _record(result, outcome, error, stage, index, drawn[index])
        if outcome in FAILING and under_test.checks_health and not under_test.healthy():
            result.message += "; the device does not work any more after this"
            return
    if result.outcome == "pass":
        if result.samples_cpu_cannot == result.samples_run:
            result.outcome = "cpu-cannot"
        else:
            result.message = ""


def _record(result: RowResult, outcome: str, error: Exception, stage: str, index: int, sample) -> None:
    if outcome == "cpu-cannot":
        result.samples_cpu_cannot += 1
        if not result.message:
            result.message = _sentence(error)
        return
    if outcome == "skip":
        result.outcome, result.message = outcome, _sentence(error, with_type=False)
        return
    result.samples_failed += 1
    if result.outcome in FAILING and FAILING.index(result.outcome) <= FAILING.index(outcome):
        return
    result.outcome, result.sample = outcome, index
    result.error_type = "" if isinstance(error, Mismatch) else type(error).__name__
    result.stage, result.message = stage, _sentence(error, with_type=not isinstance(error, Mismatch))
    result.sample_summary = sample.summary()[:600]


def _sentence(error: Exception, with_type: bool = True) -> str:
    text = " ".join(str(error).split())[:600]
    return f"{type(error).__name__}: {text}" if with_type else text


def _run_sample(run, info, sample, under_test, floors, seed):
    """Returns (outcome, exception or None, what the device was doing when it failed or "")."""
    stage = Stage()
    try:
        run(Case(info, sample, under_test, floors, seed, stage))
        return "pass", None, ""
    except NotApplicable as error:
        return "skip", error, ""
    except CpuCannot as error:
        return "cpu-cannot", error.__cause__ or error, ""
    except BackendBreaksCpu as error:
        return "error", error.__cause__, "on the CPU, with the device's module loaded"
    except Mismatch as error:
        outcome, caught = "mismatch", error
    except NotImplementedError as error:
        outcome, caught = "unsupported", error
    except Exception as error:
        outcome, caught = "error", error
    try:  # what is still queued belongs to this sample: let it fail here and not in the next one
        under_test.synchronize()
    except Exception as late:
        if outcome != "error":
            return "error", late, "synchronize"
    return outcome, caught, "" if outcome == "mismatch" else stage.name
