"""Streams (L2): order within one, independence between two, waiting."""

import torch

from . import check


@check
def work_on_one_stream_runs_in_order(probe):
    "Operators that are queued on one stream run in the order of their calls."
    probe.needs_accelerator()
    with torch.Stream(device=probe.device) as stream:
        value = torch.zeros(1000, device=probe.device)
        for step in range(10):
            value = value * 2 + step
    stream.synchronize()
    expected = torch.zeros(1000)
    for step in range(10):
        expected = expected * 2 + step
    found = value.cpu()
    probe.expect(torch.equal(found, expected), f"ten steps of x * 2 + step gave {found[0].item()}, expected {expected[0].item()}")
