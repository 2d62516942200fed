"""The guard (L1): how the current device changes, and how it comes back."""

import torch

from . import check


@check
def set_device_index_changes_the_current_device(probe):
    "torch.accelerator.set_device_index(i) makes device i the current one of the calling thread."
    probe.needs_two_devices()
    before = torch.accelerator.current_device_index()
    try:
        for index in (1, 0):
            torch.accelerator.set_device_index(index)
            found = torch.accelerator.current_device_index()
            probe.expect(found == index, f"after set_device_index({index}) the current device is {found}")
    finally:
        torch.accelerator.set_device_index(before)
