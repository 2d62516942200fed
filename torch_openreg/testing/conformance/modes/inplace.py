"""`inplace`: the in-place variant, on the sample's own input and on strided, transposed and offset ones.

Compared are the input's values, strides and version, whether it is what the call returns, and errors, as for results that do
not fit into the input.
"""

import torch

from ..calls import CpuCannot
from .layouts import LAYOUTS, with_input


def run(case) -> None:
    if not isinstance(case.sample.input, torch.Tensor):
        raise CpuCannot from ValueError("the input is not a tensor")
    function = case.info.get_inplace()

    def form(copy, side):
        version = copy.input._version
        returned = function(copy.input, *copy.args, **copy.kwargs)
        return {
            "what is returned": "the input" if returned is copy.input else "another tensor",
            "input": copy.input,
            "version": str(copy.input._version - version),
            "offset": str(copy.input.storage_offset()) if copy.input.layout == torch.strided else "none",
        }

    case.agree(form, twice=True)
    for name, change in LAYOUTS.items():
        if (changed := with_input(case.sample, change)) is not None:
            case.agree(form, f"{name} input", sample=changed, twice=True)
