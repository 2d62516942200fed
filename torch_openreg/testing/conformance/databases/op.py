"""`op_db`: PyTorch's operators, in the modes of `..modes`."""

import functools

from torch.testing._internal.common_methods_invocations import op_db

from .. import rows
from ..compare import operator_tolerances as tolerances
from ..modes import RUNNERS
from ..samples import draw

__all__ = ["RUNNERS", "draw", "dtypes", "entries", "tolerances"]
dtypes = rows.row_dtypes


@functools.cache
def entries() -> dict:
    return {op.full_name: op for op in op_db}
