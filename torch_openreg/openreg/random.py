"""Random numbers: seeds and states of the devices' default generators.

A seed given before the first use of a device is remembered and applied when the driver starts. A state is a CPU
tensor of 16 bytes: the seed, then the offset.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

from torch_openreg import _C

from . import initialization
from .device import _get_device_index, current_device, device_count

__all__ = [
    "get_rng_state",
    "get_rng_state_all",
    "initial_seed",
    "manual_seed",
    "manual_seed_all",
    "seed",
    "seed_all",
    "set_rng_state",
    "set_rng_state_all",
]

_DeviceArgument = int | str | torch.device | None


class _DefaultGenerators(Sequence[torch.Generator]):
    """The default generator of each device, as torch.cuda.default_generators; starts the driver when read."""

    def __len__(self) -> int:
        return device_count()

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(f"There is no default generator {index}: this process sees {len(self)} openreg devices.")
        initialization._lazy_init()
        return _C.default_generator(index % len(self))

    def __iter__(self) -> Iterator[torch.Generator]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"<default generators of {len(self)} openreg devices>"


default_generators = _DefaultGenerators()


def get_rng_state(device: _DeviceArgument = "openreg") -> torch.Tensor:
    """The state of a device's default generator; without an index, of the current device's."""
    return _get_generator(device).get_state()


def get_rng_state_all() -> list[torch.Tensor]:
    """The states of all devices' default generators."""
    return [get_rng_state(index) for index in range(device_count())]


def set_rng_state(new_state: torch.Tensor, device: _DeviceArgument = "openreg") -> None:
    """Sets the state of a device's default generator to one from `get_rng_state`."""
    if not initialization.is_initialized():
        new_state = new_state.clone()
    initialization._lazy_call(lambda: _get_generator(device).set_state(new_state))


def set_rng_state_all(new_states: Iterable[torch.Tensor]) -> None:
    """Sets the states of all devices' default generators, in the order of their indices."""
    for index, state in enumerate(new_states):
        set_rng_state(state, index)


def manual_seed(seed: int) -> None:
    """Seeds the current device's default generator."""
    seed = _checked_seed(seed)
    initialization._lazy_call(lambda: _seed_one(current_device(), seed), seed=True)


def manual_seed_all(seed: int) -> None:
    """Seeds every device's default generator with the same number. torch.manual_seed calls this."""
    seed = _checked_seed(seed)

    def seed_every_device() -> None:
        for index in range(device_count()):
            _seed_one(index, seed)

    initialization._lazy_call(seed_every_device, seed_all=True)


def seed() -> None:
    """Seeds the current device's default generator with a random number."""
    initialization._lazy_call(lambda: _random_seed(current_device()), seed=True)


def seed_all() -> None:
    """Seeds every device's default generator with the same random number."""

    def seed_every_device() -> None:
        chosen = _random_seed(0)
        for index in range(1, device_count()):
            _seed_one(index, chosen)

    initialization._lazy_call(seed_every_device, seed_all=True)


def initial_seed() -> int:
    """The seed of the current device's default generator."""
    return _get_generator(None).initial_seed()


def _checked_seed(seed: int) -> int:
    """The seed as a generator takes it. A wrong one is an error of the call that gives it, also when the driver starts later."""
    seed = int(seed)
    if not -(2**63) <= seed < 2**64:
        raise ValueError(f"A seed lies between -2^63 and 2^64 - 1; {seed} does not.")
    return seed


def _seed_one(index: int, seed: int) -> None:
    _C.default_generator(index).manual_seed(seed)


def _random_seed(index: int) -> int:
    return _C.default_generator(index).seed()


def _get_generator(device: _DeviceArgument) -> torch.Generator:
    """The default generator of a device; without an index, of the current one."""
    index = _get_device_index(device, optional=True)
    initialization._lazy_init()
    return _C.default_generator(index)


def _get_rng_state_offset(device: _DeviceArgument = "openreg") -> int:
    """How many random numbers the default generator has handed out."""
    return _get_generator(device).get_offset()


def _set_rng_state_offset(offset: int, device: _DeviceArgument = "openreg") -> None:
    """Moves the default generator to an offset; its seed stays."""
    initialization._lazy_call(lambda: _get_generator(device).set_offset(offset))
