"""The conformance kit: PyTorch's operator database, run on a device against the CPU.

`run_row` runs one row (an operator, a dtype, a mode) in this process, which is what a test wants.
`openreg conformance run` runs them all in worker processes that survive crashes and hangs.
Importing this package does not import torch.
"""

__all__ = ["run_row", "Row", "RowResult"]


def __getattr__(name):
    if name == "run_row":
        from .execution import run_row

        return run_row
    if name == "Row":
        from .rows import Row

        return Row
    if name == "RowResult":
        from .result import RowResult

        return RowResult
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
