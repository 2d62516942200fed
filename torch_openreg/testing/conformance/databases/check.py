"""The kit's own checks as a database: a row per check, in one mode, without a dtype."""

import functools

from .. import checks, levels
from ..calls import NotApplicable
from ..samples import seed_everything
from . import NO_DTYPE


class Call:
    """The one sample of a check."""

    def __init__(self, rule: str):
        self.rule = rule

    def summary(self) -> str:
        return self.rule


# Levels whose checks look at values from the first line to the last. Below, a check that does not can pass on meta.
NEED_VALUES = ("L4", "L5")


@functools.cache
def entries() -> dict:
    return checks.entries()


def dtypes(entry, mode: str) -> list[str]:
    return [NO_DTYPE]


def tolerances(entry, mode: str):
    return ()


def draw(entry, dtype, mode: str, seed: int) -> list[Call]:
    return [Call(entry.rule)]


def run(case) -> None:
    if not case.under_test.keeps_values and levels.of(case.info.name) in NEED_VALUES:
        raise NotApplicable(f"{case.under_test.name} tensors have no values")
    seed_everything(case.seed)
    case.info.run(checks.Probe(case.under_test))
    case.stage("synchronize")
    case.under_test.synchronize()


RUNNERS = {"check": run}
