"""`errors`: the entry's own inputs that must raise, and samples of dtypes that the CPU does not support.

The device must raise at the call what the CPU raises, with the same meaning. Good samples run first, so that a device
that remembers calls has something to remember. An error that follows from values may come late.
"""

import torch

from .. import samples as sampling
from ..attempt import attempt
from ..calls import default_device

GOOD_SAMPLES = 3


def run(case) -> None:
    _run_good_samples(case)

    def form(copy, side):
        return {"output": case.info(copy.input, *copy.args, **copy.kwargs)}

    case.agree(form, warn=False)


_ran_on: dict[str, str] = {}  # device -> the operator whose good samples ran last


def _run_good_samples(case) -> None:
    """Once for each row: a row's samples come one after the other."""
    name, info = case.under_test.name, case.info
    if _ran_on.get(name) == info.full_name:
        return
    _ran_on[name] = info.full_name
    dtypes = info.supported_dtypes("cpu")
    if not dtypes:
        return
    dtype = torch.float32 if torch.float32 in dtypes else min(dtypes, key=str)
    drawn = attempt(lambda: sampling.draw(info, dtype, "forward", case.seed)).value or []
    for index in sampling.choose(len(drawn), GOOD_SAMPLES):
        copy = sampling.copy_sample(drawn[index], case.under_test.device)
        with default_device(info, drawn[index], case.under_test.device):
            attempt(lambda: info(copy.input, *copy.args, **copy.kwargs), case.under_test.synchronize)
