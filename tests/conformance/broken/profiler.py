"""Wrong profiles: operators that nobody sees, kernels without times, without a launch, memory that is not counted."""

import json
from pathlib import Path

import torch

from . import variant
from .replacement import replaced


def events_changed(change):
    """change(event) is called for every event of a profile."""
    parse = torch.autograd.profiler.profile._parse_kineto_results

    def wrong(self, result, **options):
        events = parse(self, result, **options)
        for event in events:
            change(event)
        return events

    torch.autograd.profiler.profile._parse_kineto_results = wrong


def on_the_device(event) -> bool:
    return event.device_type != torch.autograd.DeviceType.CPU


@variant({"check.profiler.operators_are_recorded": "aten::mm is not among the events"})
def products_are_another_operator():
    "matmul calls an operator that nobody knows by that name."

    def matmul(a, b):
        return torch.addmm(torch.zeros(a.shape[0], b.shape[1], device=a.device), a, b)

    return replaced("matmul", matmul, "AutogradPrivateUse1")


@variant({"check.profiler.kernels_have_times": "on the device took 0"})
def kernels_take_no_time():
    "Kernels end when they begin."
    events_changed(lambda event: on_the_device(event) and setattr(event.time_range, "end", event.time_range.start))


@variant({"check.profiler.kernels_belong_to_their_operator": "no kernel belongs to aten::mm"})
def kernels_without_a_launch():
    "Kernels have no correlation with the calls that launched them."
    events_changed(lambda event: setattr(event, "kernels", []))


@variant({"check.profiler.memory_is_reported": "torch.empty of 16384 bytes on the device counts as 0 bytes"})
def memory_is_not_reported():
    "The allocator tells the profiler nothing."
    events_changed(lambda event: setattr(event, "device_memory_usage", 0))


@variant({"check.profiler.the_trace_shows_kernels_and_their_launches": "no arrow leads from a call to a kernel"})
def traces_without_arrows():
    "The trace file has no arrows."
    export = torch.profiler.profile.export_chrome_trace

    def wrong(self, path):
        export(self, path)
        trace = json.loads(Path(path).read_text())
        trace["traceEvents"] = [event for event in trace["traceEvents"] if event.get("cat") != "ac2g"]
        Path(path).write_text(json.dumps(trace))

    torch.profiler.profile.export_chrome_trace = wrong
