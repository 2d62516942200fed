"""Runs a form of a call on the CPU, whose outcome is the reference, and on the device, and compares the two.

A form is a function `form(copy, side) -> {name: value}`: it gets a sample of its own on one side and returns what is to be
compared. What the CPU itself cannot run is not held against the device. See Note [Random operators].
"""

import re
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch.testing._internal.opinfo.core import SampleInput

from . import samples as sampling
from .attempt import Attempt, attempt, check_error, check_warnings
from .compare import Mismatch, Rules, compare

# Note [Random operators]
# A random operator is one whose CPU result changes with the seed. To find out, the kit watches whether a call
# moves the CPU generator or seeds it (several entries wrap their operator in a fixed seed), and only then calls
# again with up to 16 other seeds and compares. Where the results differ, the device's values cannot be predicted:
# metadata, finiteness and mean are compared, and the same seed must give the same values twice on the device.
# Where they do not differ (dropout with p=0, singular values from a random projection) values are compared.

# The signs of their vectors follow from a random projection, which may agree for many seeds of one generator and not for another's.
RANDOM_PROJECTION = {"pca_lowrank", "svd_lowrank"}
UNINITIALISED = {"empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided"}
CPU = torch.device("cpu")


class CpuCannot(Exception):
    """The CPU raises for this sample too; raised from what it says."""


class NotApplicable(Exception):
    """What the row asks does not apply to this device; the message says why. Not held against it."""


class BackendBreaksCpu(Exception):
    """The CPU raises for this sample, and what it says is about the device under test."""


class Stage:
    """What the device is doing, for the message of an error."""

    def __init__(self):
        self.name = self.variant = ""

    def __call__(self, name: str) -> None:
        self.name = f"{name} ({self.variant})" if self.variant else name


@dataclass(frozen=True)
class Side:
    """Where a form runs: the device, and the stage to report to."""

    device: torch.device
    stage: Stage

    @property
    def is_reference(self) -> bool:
        return self.device == CPU


@dataclass(frozen=True)
class Case:
    """One sample of a row on its way through a mode."""

    info: object
    sample: object
    under_test: object
    floors: tuple
    seed: int
    stage: Stage

    def agree(self, form, variant: str = "", *, sample=None, values="", strides=True, errors=True, warn=False, twice=False) -> None:
        """Runs the form on both sides. Raises Mismatch where they differ and the device's own error where only it raises.

        variant: what is special about this call, for messages. sample: another one than the case's.
        values: as in Rules, when not what the operator says. errors: whether an error of the CPU must be the device's
        too; otherwise it raises CpuCannot. warn: compare warnings. twice: call the device twice, because one that remembers
        calls takes another way the second time.
        """
        case = self if sample is None else replace(self, sample=sample)
        self.stage.variant = variant
        expected = reference(case, form)
        if expected.error is not None and not errors:
            raise CpuCannot from expected.error
        for _ in range(2 if twice else 1):
            case._check(form, expected, variant, values, strides, warn)

    def _check(self, form, expected: Attempt, variant: str, values: str, strides: bool, warn: bool) -> None:
        """Runs the form on the device and compares with what the CPU did."""
        case, where = self, f"{variant}: " if variant else ""
        actual = on_device(case, form, wait=expected.error is not None)
        device = self.under_test.device
        if expected.error is not None:
            if self.under_test.keeps_values or not depends_on_data(case, form):
                check_error(expected.error, actual, device, lambda: depends_on_data(case, form), variant or "call")
            return
        if actual.error is not None:
            raise actual.error
        rules = Rules(device, values or value_rule(self.info, expected.random), strides, self.floors)
        rules = replace(rules, strides=strides and rules.values != "none")
        if not self.under_test.keeps_values:
            rules = replace(rules, values="none")
        self.stage("copy back")
        _compare(expected.value, actual.value, rules, where)
        if rules.values == "random":
            again = on_device(case, form)
            if again.error is not None:
                raise again.error
            self.stage("copy back")
            try:
                _compare(_fetch(actual.value), again.value, Rules(device, strides=False), "")
            except Mismatch as error:
                raise Mismatch(f"{where}torch.manual_seed does not repeat the device's values: {error}") from None
        self.stage("synchronize")
        self.under_test.synchronize()
        if warn:
            check_warnings(expected, actual, device, variant or "call")

    def agree_where_the_cpu_does(self, form, variant: str, sample) -> None:
        """The same for a sample whose tensors have the case's values. Where the CPU's own output is another one then, the
        device may also give the CPU's output for the case."""
        try:
            self.agree(form, variant, sample=sample)
        except Mismatch:
            if not self._gives_the_plain_output(form, sample):
                raise

    def _gives_the_plain_output(self, form, sample) -> bool:
        changed = replace(self, sample=sample)
        plain, cpu = reference(self, form), reference(changed, form)
        if plain.error is not None or cpu.error is not None or not _differ(plain.value["output"], cpu.value["output"]):
            return False
        found = on_device(changed, form)
        return found.error is None and not _differ(plain.value["output"], _fetch(found.value["output"]))


def value_rule(info, random: bool) -> str:
    if info.name in UNINITIALISED or getattr(info, "has_nondeterministic_output", False):
        return "none"
    return "random" if random else "close"


def _compare(expected: dict, actual: dict, rules: Rules, where: str) -> None:
    for name, value in expected.items():
        compare(value, actual[name], rules, where + name)


def _fetch(value):
    if isinstance(value, torch.Tensor):
        return value.cpu()
    if isinstance(value, (list, tuple)):
        return [_fetch(item) for item in value]
    if isinstance(value, dict):
        return {key: _fetch(item) for key, item in value.items()}
    return value


def on_device(case: Case, form, wait: bool = False) -> Attempt:
    """Runs the form on a copy of the sample on the device."""
    device, stage = case.under_test.device, case.stage
    stage("copy to device")
    copy = sampling.copy_sample(case.sample, device)
    stage("call")
    sampling.seed_everything(case.seed)
    with default_device(case.info, case.sample, device):
        return attempt(lambda: form(copy, Side(device, stage)), case.under_test.synchronize if wait else None)


def default_device(info, sample, device):
    """A factory that no argument sends to a device is sent there by the default device."""
    if not isinstance(sample, SampleInput):
        return nullcontext()
    makes = getattr(info, "is_factory_function", False) or not any(True for _ in sampling.tensors((sample.input, sample.args, sample.kwargs)))
    return device if device != CPU and makes and not sampling.names_device(sample) else nullcontext()


def reference(case: Case, form) -> Attempt:
    """The CPU's outcome, with `random` set when it changes with the seed. Raises BackendBreaksCpu."""
    expected, used = _on_cpu(case, form, 0)
    if expected.error is not None:
        own = case.under_test.device.type
        if own != "cpu" and re.search(rf"\b{own}\b", str(expected.error)):
            raise BackendBreaksCpu from expected.error
        return expected
    expected.random = case.info.name in RANDOM_PROJECTION
    if used and not expected.random:
        for shift in range(1, 17):  # few seeds may agree by chance on a small sample
            other, _ = _on_cpu(case, form, shift)
            if other.error is not None:
                return other
            if _differ(expected.value, other.value):
                expected.random = True
                break
    return expected


def _on_cpu(case: Case, form, shift: int) -> tuple[Attempt, bool]:
    copy = sampling.copy_sample(case.sample, CPU)
    sampling.seed_everything(case.seed + shift)
    with _watched_generator(shift) as watch:
        expected = attempt(lambda: form(copy, Side(CPU, Stage())))
    return expected, watch.used


def depends_on_data(case: Case, form) -> bool:
    """Whether the CPU's error goes away, or says something else, for other values with the same metadata. Where the sample cannot be filled
    again (a module's), an index out of range is what depends on them."""
    if not isinstance(case.sample, SampleInput):
        return isinstance(_on_cpu(case, form, 0)[0].error, IndexError)
    texts = {str(_on_cpu(replace(case, sample=filled), form, 0)[0].error) for filled in (case.sample, *sampling.refilled(case.sample))}
    return len(texts) > 1


def _differ(left, right) -> bool:
    try:
        compare(left, right, Rules(CPU, strides=False))
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
