"""Runs one row in this process: every chosen sample on the CPU and on the device, compared.

What the CPU itself cannot run is not held against the device. See Note [Random operators].
"""

import functools
import re
import time
import warnings
from contextlib import contextmanager, nullcontext

import torch
from torch.testing._internal.common_methods_invocations import op_db

from . import samples as sampling
from .compare import Mismatch, Rules, compare, operator_tolerances
from .device import DeviceUnderTest
from .result import FAILING, RowResult
from .rows import Row

# Note [Random operators]
# A random operator is one whose CPU result changes with the seed. To find out, the kit watches whether a call
# moves the CPU generator or seeds it (several entries wrap their operator in a fixed seed), and only then calls
# again with up to 16 other seeds and compares. Where the results differ, the device's values cannot be predicted:
# metadata, finiteness and mean are compared, and the same seed must give the same values twice on the device.
# Where they do not differ (dropout with p=0, singular values from a random projection) values are compared.

# The signs of their vectors follow from a random projection, which may agree for many seeds of one generator and not for another's.
RANDOM_PROJECTION = {"pca_lowrank", "svd_lowrank"}
UNINITIALISED = {"empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided"}


class _CpuCannot(Exception):
    """The CPU raises for this sample too."""


class _BackendBreaksCpu(Exception):
    """The CPU raises for this sample, and what it says is about the device under test."""


class _Stage:
    """What the device is doing, for the message of an error."""

    def __init__(self):
        self.name = ""

    def __call__(self, name: str) -> None:
        self.name = name


@functools.cache
def operators() -> dict:
    return {op.full_name: op for op in op_db}


def run_row(op, dtype, mode="forward", device="cpu", *, samples=8, only=None, seed=0, on_sample=None, propagate=False) -> RowResult:
    """Runs one row and returns what became of it; raises only for a wrong argument, never for the device's failure.

    op: an OpInfo or its full name. dtype: a torch.dtype or its name. device: a name or a DeviceUnderTest.
    samples: how many to run, 0 for all; only: the index of the one sample to run instead.
    on_sample(index): called before each sample. propagate: let the first failure's exception through (for a debugger).
    """
    info = operators()[op] if isinstance(op, str) else op
    dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    under_test = device if isinstance(device, DeviceUnderTest) else DeviceUnderTest(str(device))
    row = Row(info.full_name, str(dtype).removeprefix("torch."), mode)
    result = RowResult(row.op, row.dtype, row.mode, under_test.name, "pass", seed=seed)
    started = time.perf_counter()
    with warnings.catch_warnings(), sampling.kept_generators():
        warnings.simplefilter("ignore")
        _run(info, dtype, row, under_test, result, samples, only, on_sample, propagate)
    result.seconds = round(time.perf_counter() - started, 4)
    return result


def _run(info, dtype, row, under_test, result, wanted, only, on_sample, propagate) -> None:
    row_seed = sampling.row_seed(result.seed, row.id)
    try:
        drawn = sampling.draw(info, dtype, row.mode, row_seed)
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
    floors = operator_tolerances(info, row.mode)
    for index in chosen:
        if on_sample is not None:
            on_sample(index)
        result.samples_run += 1
        outcome, error, stage = _run_sample(info, row.mode, drawn[index], under_test, floors, row_seed + index)
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


def _run_sample(info, mode, sample, under_test, floors, seed):
    """Returns (outcome, exception or None, what the device was doing when it failed or "")."""
    stage = _Stage()
    try:
        run = _gradient if mode == "gradient" else _forward
        run(info, sample, under_test, floors, seed, stage)
        return "pass", None, ""
    except _CpuCannot as error:
        return "cpu-cannot", error.__cause__, ""
    except _BackendBreaksCpu as error:
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


def _forward(info, sample, under_test, floors, seed, stage) -> None:
    expected, random, _ = _on_cpu(info, sample, under_test, seed)
    values = "none" if info.name in UNINITIALISED or info.has_nondeterministic_output else "random" if random else "close"
    rules = Rules(under_test.device, values, strides=values != "none", floors=floors)
    actual = _on_device(info, sample, under_test, seed, stage)
    stage("copy back")
    compare(expected, actual, rules)
    if values == "random":
        again = _on_device(info, sample, under_test, seed, stage)
        stage("copy back")
        _compare_repeated(actual, again, under_test)
    stage("synchronize")
    under_test.synchronize()


def _gradient(info, sample, under_test, floors, seed, stage) -> None:
    expected, random, wanted = _on_cpu(info, sample, under_test, seed, with_gradients=True)
    values = "none" if info.has_nondeterministic_output else "random" if random else "close"
    rules = Rules(under_test.device, values, strides=False, floors=floors)
    stage("copy to device")
    copy = sampling.copy_sample(sample, under_test.device)
    stage("call")
    sampling.seed_everything(seed)
    outputs = _differentiable(copy, _call(info, sample, copy, under_test))
    if [output.requires_grad for output in outputs] != [output.requires_grad for output in expected]:
        raise Mismatch(f"requires_grad of the outputs is {[o.requires_grad for o in outputs]}, "
                       f"expected {[o.requires_grad for o in expected]}")
    for place, (left, right) in enumerate(zip(expected, outputs)):
        if left.shape != right.shape or left.dtype != right.dtype:
            raise Mismatch(f"output[{place}]: {right.dtype} {tuple(right.shape)}, expected {left.dtype} {tuple(left.shape)}")
    stage("backward")
    found = _gradients(outputs, sampling.leaves(copy), seed)
    stage("copy back")
    compare([_missing(g) for g in wanted], [_missing(g) for g in found], rules, "gradient")
    stage("synchronize")
    under_test.synchronize()


def _missing(gradient):
    return "no gradient" if gradient is None else gradient


def _on_device(info, sample, under_test, seed, stage):
    stage("copy to device")
    copy = sampling.copy_sample(sample, under_test.device)
    stage("call")
    sampling.seed_everything(seed)
    return _call(info, sample, copy, under_test)


def _call(info, sample, copy, under_test):
    """Calls the operator on a device copy. A factory that no argument sends to a device is sent there by the default device."""
    makes = info.is_factory_function or not any(True for _ in sampling.tensors((copy.input, copy.args, copy.kwargs)))
    with under_test.device if makes and not sampling.names_device(sample) else nullcontext():
        return info(copy.input, *copy.args, **copy.kwargs)


def _compare_repeated(first, second, under_test) -> None:
    try:
        compare(_fetch(first), second, Rules(under_test.device, strides=False))
    except Mismatch as error:
        raise Mismatch(f"torch.manual_seed does not repeat the device's values: {error}") from None


def _fetch(value):
    if isinstance(value, torch.Tensor):
        return value.cpu()
    if isinstance(value, (list, tuple)):
        return [_fetch(item) for item in value]
    return value


def _on_cpu(info, sample, under_test, seed, with_gradients=False):
    """(the CPU's answer, whether it changes with the seed, the gradients when asked for, else ()). Raises _CpuCannot."""

    def answer(shift):
        copy = sampling.copy_sample(sample, torch.device("cpu"))
        sampling.seed_everything(seed + shift)
        with _watched_generator(shift) as watch:
            output = info(copy.input, *copy.args, **copy.kwargs)
        if not with_gradients:
            return output, watch.used, ()
        outputs = _differentiable(copy, output)
        if not any(item.requires_grad for item in outputs):
            raise RuntimeError("no output of the CPU requires a gradient")
        return outputs, watch.used, _gradients(outputs, sampling.leaves(copy), seed)

    try:
        output, used, gradients = answer(0)
        random = info.name in RANDOM_PROJECTION
        if used and not random:
            answered = (output, [_missing(g) for g in gradients])
            for shift in range(1, 17):  # few seeds may agree by chance on a small sample
                other, _, other_gradients = answer(shift)
                if random := _differ(answered, (other, [_missing(g) for g in other_gradients])):
                    break
    except Exception as error:
        about_device = under_test.device.type != "cpu" and re.search(rf"\b{under_test.device.type}\b", str(error))
        raise (_BackendBreaksCpu if about_device else _CpuCannot) from error
    return output, random, gradients


def _differ(left, right) -> bool:
    try:
        compare(left, right, Rules(torch.device("cpu"), strides=False))
        return False
    except Mismatch:
        return True


@contextmanager
def _watched_generator(shift: int):
    """Sets `used` when the body moves or seeds the CPU generator; seeds that the body asks for are shifted."""

    class Watch:
        used = False

    original, before = torch.manual_seed, torch.get_rng_state()

    def shifted(seed):
        Watch.used = True
        return original(seed + shift)

    torch.manual_seed = shifted
    try:
        yield Watch
    finally:
        torch.manual_seed = original
    Watch.used = Watch.used or not torch.equal(before, torch.get_rng_state())


def _differentiable(sample, output) -> list[torch.Tensor]:
    """The outputs that a gradient can flow through, after the sample's own choice."""
    chosen = sample.output_process_fn_grad(output)
    return [item for item in sampling.tensors(chosen) if item.is_floating_point() or item.is_complex()]


def _gradients(outputs, inputs, seed):
    """Gradients of the inputs for seeded cotangents, the same on every device. None where no gradient flows."""
    outputs = [output for output in outputs if output.requires_grad]
    generator = torch.Generator().manual_seed(seed)
    cotangents = []
    for output in outputs:
        wide = torch.complex64 if output.is_complex() else torch.float32
        values = torch.randn(output.shape, dtype=wide, generator=generator).to(output.dtype)
        cotangents.append(values.to(output.device) if output.layout == torch.strided else torch.ones_like(output))
    return torch.autograd.grad(outputs, inputs, cotangents, allow_unused=True)
