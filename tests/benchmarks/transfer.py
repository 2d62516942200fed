"""Copies between host and device against a memcpy between two tensors of the host.

The host's memory is ordinary, so that every copy is complete when it returns.
"""

from __future__ import annotations

import torch

from timing import Row, Side

MIB = 2**20


def copying(source_device, target_device):
    def sides(tiny):
        size = (1 if tiny else 64) * MIB
        source = torch.ones(size, dtype=torch.uint8, device=source_device)
        target = torch.zeros(size, dtype=torch.uint8, device=target_device)
        host_source = torch.ones(size, dtype=torch.uint8)
        host_target = torch.zeros(size, dtype=torch.uint8)

        def device():
            target.copy_(source)

        def cpu():
            host_target.copy_(host_source)

        device()
        cpu()
        torch.openreg.synchronize()
        return Side(device, on_clock=torch.openreg.synchronize), Side(cpu)

    return sides


# A speed of at least 0.9 is a time of at most 1 / 0.9.
ROWS = [
    Row("host-to-device", "64 MiB from host to device, against memcpy", 1.11, copying("cpu", "openreg")),
    Row("device-to-host", "64 MiB from device to host, against memcpy", 1.11, copying("openreg", "cpu")),
]
