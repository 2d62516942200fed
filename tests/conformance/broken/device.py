"""Wrong devices: counted wrongly, taken for another one, copied from without values."""

import torch

from . import variant
from .libraries import break_guard
from .replacement import replaced


def contiguous(size):
    strides, step = [], 1
    for length in reversed(size):
        strides.insert(0, step)
        step *= max(length, 1)
    return strides


@variant({"check.device.every_counted_device_takes_a_tensor": "device_count() is 3, and a tensor on openreg:2 raises"})
def one_device_too_many():
    "device_count() counts one device that does not exist."
    count = torch.openreg.device_count
    torch.openreg.device_count = lambda: count() + 1


@variant({"check.device.an_index_beyond_the_last_is_refused": "torch.ones(1, device='openreg:2') does not raise RuntimeError"})
def a_bad_index_lands_on_device_zero():
    "A tensor on a device that does not exist lands on device 0."

    def empty(size, *, dtype=None, layout=None, device=None, pin_memory=None, memory_format=None):
        index = device.index if device.index is None or device.index < 2 else 0
        return torch.empty_strided(size, contiguous(size), dtype=dtype, device=torch.device("openreg", index))

    return replaced("empty.memory_format", empty)


@variant({"check.device.a_device_without_index_is_the_current_one": "while openreg:1 is current, a tensor on 'openreg' is on openreg:0"})
def no_index_is_device_zero():
    "A tensor on `openreg` is on device 0, whichever device is current."

    def empty(size, *, dtype=None, layout=None, device=None, pin_memory=None, memory_format=None):
        return torch.empty_strided(size, contiguous(size), dtype=dtype, device=torch.device("openreg", device.index or 0))

    return replaced("empty.memory_format", empty)


@variant({"check.device.results_stay_on_the_device_of_their_inputs": "arithmetic on tensors of openreg:1 gives a tensor on openreg:0"})
def results_on_the_current_device():
    "The results of a multiplication are on the current device, not on the one of its inputs."

    def mul(a, b):
        return torch.mul(a, b, out=torch.empty_like(a)).to(torch.accelerator.current_device_index())

    return replaced("mul.Tensor", mul)


@variant({"check.device.a_copy_to_another_device_has_memory_of_its_own": "values copied from openreg:0 to openreg:1 differ"})
def copies_between_devices_move_nothing():
    "A copy from device to device gives memory that nobody has written."
    to = torch.Tensor.to

    def wrong(self, *args, **kwargs):
        copy = to(self, *args, **kwargs)
        return torch.full_like(copy, 7) if self.device.type == copy.device.type == "openreg" and self.device != copy.device else copy

    torch.Tensor.to = wrong


@variant({"check.device.to_the_same_device_is_the_tensor_itself": "to(openreg:0) of a tensor on openreg:0 makes another tensor"})
def to_always_copies():
    "to() copies a tensor that is on the device already."
    to = torch.Tensor.to
    torch.Tensor.to = lambda self, *args, **kwargs: to(self, *args, **kwargs).clone()


@variant({"check.device.the_default_device_takes_factories": "factories make tensors on openreg:0, cpu, openreg:0, openreg:0"})
def arange_ignores_the_default_device():
    "torch.arange does not look at the default device, as after a backend has put a function of its own in its place."
    from torch.utils._device import _device_constructors

    _device_constructors().discard(torch.arange)


@variant({"check.device.tensors_of_two_devices_do_not_mix": "adding a tensor on openreg:0 and one on the CPU does not raise RuntimeError"})
def addition_mixes_devices():
    "An addition of tensors of two devices moves one of them without a word."

    def add(a, b, alpha=1):
        moved = [value.to("openreg") if isinstance(value, torch.Tensor) else value for value in (a, b)]
        return torch.add(*moved, alpha=alpha, out=torch.empty_like(moved[0]))

    return replaced("add.Tensor", add)


@variant({"check.device.the_capability_names_dtypes_that_work": "get_device_capability() does not list torch.float32"})
def a_capability_without_float32():
    "The device's capability does not have float32."
    return break_guard("no_float32")
