"""FlexAttention: torch's own function, which looks its device type up in a list of names first, without that list."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable


def flex_attention(*args: object, **kwargs: object) -> object:
    """torch.nn.attention.flex_attention.flex_attention, with the same arguments and results, for tensors of this device.

    Without torch.compile it computes all scores. Gradients work, which torch's function refuses on the CPU.
    """
    return _without_device_list()(*args, **kwargs)


@functools.cache
def _without_device_list() -> Callable[..., object]:
    # Imported here, because it imports the compiler.
    from torch.nn.attention import flex_attention as module

    # The function is bound to globals of its own: torch's module stays as it is.
    scope = {**vars(module), "_validate_device": lambda query, key, value: None}
    original = module.flex_attention
    twin = types.FunctionType(original.__code__, scope, original.__name__, original.__defaults__, original.__closure__)
    twin.__kwdefaults__ = original.__kwdefaults__
    return twin
