"""Automatic mixed precision: which types torch.autocast("openreg") may choose, and torch.cuda.amp's names for this device.

Autocast and gradient scaling themselves are torch.amp's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd", "get_amp_supported_dtype"]


def get_amp_supported_dtype() -> list[torch.dtype]:
    """The types that torch.autocast("openreg") accepts; the first is its default."""
    return [torch.float16, torch.bfloat16]


class autocast(torch.amp.autocast_mode.autocast):
    """torch.autocast("openreg", ...)."""

    def __init__(self, enabled: bool = True, dtype: torch.dtype = torch.float16, cache_enabled: bool = True) -> None:
        super().__init__("openreg", enabled=enabled, dtype=dtype, cache_enabled=cache_enabled)


class GradScaler(torch.amp.GradScaler):
    """torch.amp.GradScaler("openreg", ...)."""

    def __init__(
        self,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        super().__init__("openreg", init_scale, growth_factor, backoff_factor, growth_interval, enabled)


def custom_fwd(fwd: Callable[..., Any] | None = None, *, cast_inputs: torch.dtype | None = None) -> Callable[..., Any]:
    """torch.amp.custom_fwd(..., device_type="openreg")."""
    return torch.amp.custom_fwd(fwd, device_type="openreg", cast_inputs=cast_inputs)


def custom_bwd(bwd: Callable[..., Any]) -> Callable[..., Any]:
    """torch.amp.custom_bwd(..., device_type="openreg")."""
    return torch.amp.custom_bwd(bwd, device_type="openreg")
