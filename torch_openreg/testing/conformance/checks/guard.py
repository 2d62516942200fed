"""The guard (L1): how the current device changes, and how it comes back."""

import contextlib

import torch

from . import check


def current() -> int:
    return torch.accelerator.current_device_index()


@contextlib.contextmanager
def kept(probe):
    """Restores the current device by name, whatever the body leaves; yields another device than the current one."""
    probe.needs_two_devices()
    before = current()
    torch.accelerator.set_device_index(0)
    try:
        yield torch.device(probe.type, 1)
    finally:
        torch.accelerator.set_device_index(before)


@check
def set_device_index_changes_the_current_device(probe):
    "torch.accelerator.set_device_index(i) makes device i the current one of the calling thread."
    with kept(probe):
        for index in (1, 0):
            torch.accelerator.set_device_index(index)
            probe.expect(current() == index, f"after set_device_index({index}) the current device is {current()}")


@check
def a_bad_index_leaves_the_current_device(probe):
    "set_device_index() of a device that does not exist raises RuntimeError and changes nothing."
    with kept(probe):
        beyond = torch.accelerator.device_count()
        for index in (beyond, 99):
            said = f"set_device_index({index}) does not raise RuntimeError, although there are {beyond} devices"
            probe.expect_raises(lambda index=index: torch.accelerator.set_device_index(index), said, (RuntimeError,))
            probe.expect(current() == 0, f"after the refused set_device_index({index}) the current device is {current()}, it was 0")


@check
def the_device_block_makes_its_device_current(probe):
    "Inside torch.accelerator.device_index(i) device i is current."
    with kept(probe), torch.accelerator.device_index(1):
        probe.expect(current() == 1, f"inside torch.accelerator.device_index(1) the current device is {current()}")


@check
def the_device_block_restores_the_device(probe):
    "After torch.accelerator.device_index(i) the device from before is current again, also after an exception and nested."
    with kept(probe):
        with torch.accelerator.device_index(1):
            with torch.accelerator.device_index(0):
                pass
            probe.expect(current() == 1, f"after a block of device 0 inside one of device 1, the current device is {current()}")
        probe.expect(current() == 0, f"after a block of device 1, entered on device 0, the current device is {current()}")
        with contextlib.suppress(ZeroDivisionError), torch.accelerator.device_index(1):
            raise ZeroDivisionError
        probe.expect(current() == 0, f"after an exception in a block of device 1 the current device is {current()}, it was 0")


@check
def an_operator_leaves_the_current_device(probe):
    "An operator on tensors of another device leaves the current device as it was."
    with kept(probe) as other:
        value = torch.ones(8, device=other)
        ((value * 2).sum() + value.max()).item()
        probe.expect(current() == 0, f"after operators on {other} the current device is {current()}, it was 0")


@check
def a_failing_operator_leaves_the_current_device(probe):
    "An operator on another device that raises leaves the current device as it was."
    with kept(probe) as other:
        said = f"a matrix product of 2x3 and 2x3 on {other} raises nothing"
        probe.expect_raises(lambda: torch.ones(2, 3, device=other) @ torch.ones(2, 3, device=other), said)
        probe.expect(current() == 0, f"after an operator on {other} raised, the current device is {current()}, it was 0")


@check
def the_current_device_belongs_to_its_thread(probe):
    "A thread begins on device 0, and the device that it sets is its own."
    with kept(probe):
        torch.accelerator.set_device_index(1)
        began = probe.in_a_thread(current)
        probe.expect(began == 0, f"a new thread begins on device {began}, while its parent is on device 1")
        probe.in_a_thread(lambda: torch.accelerator.set_device_index(0))
        probe.expect(current() == 1, f"another thread's set_device_index(0) made this thread's current device {current()}, it was 1")


@check
def a_stream_block_makes_its_device_current(probe):
    "Inside `with stream` the stream's device is current, and after it the one from before."
    with kept(probe) as other:
        with probe.stream(other):
            probe.expect(current() == 1, f"inside a block of a stream of {other} the current device is {current()}")
        probe.expect(current() == 0, f"after a block of a stream of {other} the current device is {current()}, it was 0")
