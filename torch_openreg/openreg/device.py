"""Devices: how many there are, which one is current, what they are, and waiting for one.

A device is given as an index, "openreg:1", torch.device, or None for the current one. Every function checks
it; an index that does not exist is a RuntimeError that says how many do.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch.types import Device

from torch_openreg import _C, driver

from . import initialization

_Function = TypeVar("_Function", bound=Callable[..., Any])


def device_count() -> int:
    """Number of devices this process sees. Never raises; 0 when the driver cannot be started.

    Does not start the simulator, so a process that has only counted may fork and use devices in the child.
    """
    if _C.is_initialized() and not _C.is_in_bad_fork():
        return _C.device_count()
    expected = driver.expected_device_count()
    if expected is None:
        return 0 if _C.is_in_bad_fork() else _C.device_count()
    return expected


def is_available() -> bool:
    """Whether there is a device to use. Never raises; cheap."""
    return device_count() > 0


def current_device() -> int:
    """Index of the device that this thread uses when none is named."""
    initialization._lazy_init()
    return _C.current_device()


def set_device(device: Device) -> None:
    """Makes a device this thread's current one. -1 changes nothing, as in torch.cuda."""
    if not _is_no_device(device):
        index = _get_device_index(device)
        initialization._lazy_init()
        _C.set_device(index)


class device:
    """Context manager and decorator: another current device inside, the previous one again after it.

    None and -1 change nothing. The previous device also comes back after an exception.
    """

    def __init__(self, device: Device) -> None:
        self.idx = -1 if device is None or _is_no_device(device) else _get_device_index(device, optional=True)
        self._previous: list[int] = []

    def __enter__(self) -> None:
        self._previous.append(_exchange_device(self.idx))

    def __exit__(self, *exc_info: object) -> None:
        _maybe_exchange_device(self._previous.pop())

    def __call__(self, function: _Function) -> _Function:
        @functools.wraps(function)
        def run_on_device(*args: Any, **kwargs: Any) -> Any:
            previous = _exchange_device(self.idx)
            try:
                return function(*args, **kwargs)
            finally:
                _maybe_exchange_device(previous)

        return run_on_device  # type: ignore[return-value]


class device_of(device):
    """As `device`, with the device of a tensor or storage; changes nothing when that is not an openreg one."""

    def __init__(self, obj: torch.Tensor | torch.UntypedStorage | torch.TypedStorage) -> None:
        super().__init__(obj.get_device() if obj.device.type == "openreg" else None)


def synchronize(device: Device = None) -> None:
    """Waits until all streams of the device have finished, and raises the error of a task that failed.

    Ctrl-C ends the wait, not the work. Returns at once when no device has been used yet.
    """
    if device is None:
        if initialization.is_initialized():
            _C.synchronize(_C.current_device())
        return
    index = _get_device_index(device, optional=True)
    initialization._lazy_init()
    _C.synchronize(index)


def _synchronize_all() -> None:
    """Waits for every device, and then raises the first error of one."""
    first: Exception | None = None
    for index in range(device_count()):
        try:
            synchronize(index)
        except Exception as error:
            first = first or error
    if first is not None:
        raise first


@dataclass(frozen=True)
class DeviceProperties:
    """What a device is. Sizes are in bytes; a lower priority number is more urgent."""

    name: str
    major: int
    minor: int
    total_memory: int
    compute_units: int
    priority_least: int
    priority_greatest: int
    allocation_granularity: int

    @property
    def multi_processor_count(self) -> int:
        """torch.cuda's name for compute_units: how many kernels can run at the same time."""
        return self.compute_units

    @property
    def max_compute_units(self) -> int:
        """torch.xpu's name for compute_units."""
        return self.compute_units


def get_device_properties(device: Device = None) -> DeviceProperties:
    """Name, size and limits of a device."""
    index = _get_device_index(device, optional=True)
    initialization._lazy_init()
    return DeviceProperties(**_C.device_properties(index))


def get_device_name(device: Device = None) -> str:
    """The name that the driver gives the device."""
    return get_device_properties(device).name


def get_device_capability(device: Device = None) -> tuple[int, int]:
    """Major and minor version of what the device can do, as in torch.cuda."""
    properties = get_device_properties(device)
    return properties.major, properties.minor


def get_arch_list() -> list[str]:
    """The architectures whose device code runs here: the driver's name; empty without a device."""
    if not is_available():
        return []
    initialization._lazy_init()  # only the driver knows its name
    return [_C.driver_info()["name"]]


def get_gencode_flags() -> str:
    """The flags with which device code was compiled; empty, because device code of the simulated chip is the library's own."""
    return ""


def can_device_access_peer(device: Device, peer_device: Device) -> bool:
    """Whether copies between two devices go directly, without host memory: always, for two different ones."""
    return _get_device_index(device, optional=True) != _get_device_index(peer_device, optional=True)


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """Whether the current device computes in bfloat16."""
    return is_available()


def is_tf32_supported() -> bool:
    """Whether the current device computes in TensorFloat-32: it does not."""
    return False


def _sleep(cycles: int) -> None:
    """Keeps the current stream busy for `cycles` nanoseconds of device time. For tests."""
    if cycles < 0:
        raise ValueError(f"A stream sleeps for zero or more cycles, not {cycles}.")
    initialization._lazy_init()
    _C.sleep(cycles)


def _exchange_device(index: int) -> int:
    """Makes a device current and returns the previous one; with -1 does nothing and returns -1."""
    if index < 0:
        return -1
    initialization._lazy_init()
    return _C.exchange_device(index)


_maybe_exchange_device = _exchange_device


def _get_device_index(device: Any, optional: bool = False, allow_cpu: bool = False) -> int:
    """The index that `device` stands for, checked against the number of devices.

    With `optional`, None and "openreg" stand for the current device; with `allow_cpu`, the CPU is -1.
    """
    if isinstance(device, bool) or not isinstance(device, (int, str, torch.device, type(None))):
        raise TypeError(
            f"An openreg device is an index, a string like 'openreg:1', a torch.device or None, not {device!r}; "
            f"{_devices_in_words()}."
        )
    index = device if isinstance(device, int) else _index_of(device, allow_cpu)
    if index is None:
        if not optional:
            raise ValueError(f"An openreg device with an index is needed here, not {device!r}; {_devices_in_words()}.")
        return current_device()
    if index == -1 and allow_cpu and not isinstance(device, int):
        return -1
    if not 0 <= index < device_count():
        initialization._lazy_init()  # when no device can be used, the reason is the better message
        raise RuntimeError(f"There is no openreg device {index}: {_devices_in_words()}.")
    return index


def _index_in_file(location: str, optional: bool = False) -> int:
    """The index that a place like "openreg:1" stands for. torch.load checks it, and says what to do about a device that is not there."""
    index = torch.device(location).index
    return _get_device_index(location, optional) if index is None or device_count() == 0 else index


def _index_of(device: str | torch.device | None, allow_cpu: bool) -> int | None:
    if device is None:
        return None
    named = torch.device(device)
    if named.type == "cpu" and allow_cpu:
        return -1
    if named.type != "openreg":
        raise ValueError(f"Expected an openreg device, but got '{named}'; {_devices_in_words()}.")
    return named.index


def _is_no_device(device: Device) -> bool:
    return isinstance(device, int) and not isinstance(device, bool) and device == -1


def _devices_in_words() -> str:
    count = device_count()
    if count == 0:
        return "this process sees no openreg device"
    if count == 1:
        return "this process sees 1 openreg device, with index 0"
    return f"this process sees {count} openreg devices, with indices 0 to {count - 1}"
