"""Automatic mixed precision: which types torch.autocast("openreg") may choose.

Autocast and gradient scaling themselves are torch.amp's.
"""

from __future__ import annotations

import torch

__all__ = ["get_amp_supported_dtype"]


def get_amp_supported_dtype() -> list[torch.dtype]:
    """The types that torch.autocast("openreg") accepts; the first is its default."""
    return [torch.float16, torch.bfloat16]
