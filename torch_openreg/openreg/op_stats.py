"""Counts of operator calls by the way they took, for tests and for finding slow paths."""

from __future__ import annotations

from torch_openreg import _C


def op_stats() -> dict[str, dict[str, int]]:
    """{"aten::add.Tensor": {"native": n, "engine": n, "staged": n, "copied": n, "waited": n}, ...} since the last reset.

    native: a kernel of this package; engine: torch's CPU kernel on device memory; staged: the same on a copy;
    copied: results copied into place; waited: calls in which the host waited for the device.
    """
    return _C.op_stats()


def reset_op_stats() -> None:
    """Sets all counts to zero."""
    _C.reset_op_stats()
