"""Wrong device guards: what torch asks of a device when it changes devices."""

import torch

from . import variant
from .libraries import break_guard
from .replacement import replaced


@variant({"check.guard.set_device_index_changes_the_current_device": "after set_device_index(1) the current device is 0"})
def set_device_ignored():
    "setDevice does nothing."
    return break_guard("set_device_ignored")


@variant({"check.guard.a_bad_index_leaves_the_current_device": "set_device_index(2) does not raise RuntimeError, although there are 2 devices"})
def set_device_takes_any_index():
    "setDevice ignores an index that does not exist instead of refusing it."
    return break_guard("set_device_takes_any_index")


@variant({"check.guard.the_device_block_makes_its_device_current": "inside torch.accelerator.device_index(1) the current device is 0"})
def exchange_device_keeps_it():
    "exchangeDevice answers the current device and changes nothing."
    return break_guard("exchange_device_keeps_it")


@variant({"check.guard.the_device_block_restores_the_device": "after a block of device 0 inside one of device 1, the current device is 0"})
def exchange_device_answers_the_new_one():
    "exchangeDevice answers the device that it changed to, so that nobody can go back."
    return break_guard("exchange_device_answers_the_new_one")


@variant({"check.guard.a_stream_block_makes_its_device_current": "after a block of a stream of openreg:1 the current device is 1, it was 0"})
def unchecked_set_device_ignored():
    "uncheckedSetDevice has an empty body, so that no guard restores the device."
    return break_guard("unchecked_set_device_ignored")


@variant({"check.guard.the_current_device_belongs_to_its_thread": "a new thread begins on device 1, while its parent is on device 1"})
def one_device_for_all_threads():
    "The current device is one for the whole process."
    return break_guard("one_device_for_all_threads")


@variant({"check.guard.an_operator_leaves_the_current_device": "after operators on openreg:1 the current device is 1, it was 0"})
def a_kernel_without_a_guard():
    "The kernel of a multiplication makes its device current and does not go back."

    def mul(a, b):
        torch.accelerator.set_device_index(a.device.index)
        return torch.mul(a, b, out=torch.empty_like(a))

    return replaced("mul.Tensor", mul)


@variant({"check.guard.a_failing_operator_leaves_the_current_device": "after an operator on openreg:1 raised, the current device is 1, it was 0"})
def an_error_skips_the_way_back():
    "A kernel that raises leaves its device current."

    def mm(a, b):
        torch.accelerator.set_device_index(a.device.index)
        raise RuntimeError("the sizes do not fit")

    return replaced("mm", mm)
