"""The profiler (L4): operators, kernels with the device's times, who launched them, memory, the trace file."""

import json
import tempfile
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function, supported_activities

from . import check

ACTIVITIES = {"cuda": "CUDA", "xpu": "XPU", "mtia": "MTIA", "hpu": "HPU"}


def _activity(probe) -> ProfilerActivity:
    """The activity with the device's kernels. Ends the check when torch.profiler has none for this device."""
    probe.needs(probe.type != "cpu", "the CPU has no kernels besides its operators")
    found = getattr(ProfilerActivity, ACTIVITIES.get(probe.type, "PrivateUse1"), None)
    probe.needs(found in supported_activities() and _sees(probe, found), f"torch.profiler sees operators only: {probe.type} gives it no kernels")
    return found


def _sees(probe, activity) -> bool:
    """Whether a profile has anything of the device in it."""
    with profile(activities=[ProfilerActivity.CPU, activity]) as found:
        torch.ones(3, device=probe.device) + 1
        probe.synchronize()
    return bool(_kernels(found))


def _profiled(probe, activities, **options):
    """The profile of one matrix product of 32 x 32, run once before."""
    x = torch.ones(32, 32, device=probe.device)
    x @ x
    probe.synchronize()
    with profile(activities=activities, **options) as found:
        with record_function("the product"):
            x @ x
        probe.synchronize()
    return found


def _kernels(found):
    """The events that happened on the device, ranges of the program left out."""
    return [event for event in found.events() if event.device_type != torch.autograd.DeviceType.CPU and event.name != "the product"]


@check
def operators_are_recorded(probe):
    "The profile of the host has the operators that were called, with their shapes, inside of their ranges."
    found = _profiled(probe, [ProfilerActivity.CPU], record_shapes=True)
    events = {event.name: event for event in found.events()}
    probe.expect("aten::mm" in events, f"aten::mm is not among the events {sorted(events)}")
    shapes = [list(shape) for shape in events["aten::mm"].input_shapes][:2]
    probe.expect(shapes == [[32, 32], [32, 32]], f"aten::mm has the input shapes {shapes}")
    parent, names = events["aten::mm"].cpu_parent, []
    while parent is not None:
        names.append(parent.name)
        parent = parent.cpu_parent
    probe.expect("the product" in names, f"aten::mm is inside of {names}, expected the range 'the product'")


@check
def kernels_have_times(probe):
    "The profile has what ran on the device, with a begin, and an end after it, within the profile."
    found = _profiled(probe, [ProfilerActivity.CPU, _activity(probe)])
    kernels = _kernels(found)
    probe.expect(kernels, "nothing of a matrix product in the profile ran on the device")
    host = [event.time_range for event in found.events() if event.device_type == torch.autograd.DeviceType.CPU]
    begin, end = min(span.start for span in host), max(span.end for span in host)
    for event in kernels:
        span = event.time_range
        probe.expect(span.elapsed_us() > 0, f"{event.name} on the device took {span.elapsed_us()} us")
        inside = begin <= span.start and span.end <= end + 1e6
        probe.expect(inside, f"{event.name} ran from {span.start} to {span.end} us, the profile from {begin} to {end} us")


@check
def kernels_belong_to_their_operator(probe):
    "The operator that launched a kernel, and the range around it, have the kernel's time as their device time."
    found = _profiled(probe, [ProfilerActivity.CPU, _activity(probe)])
    kernels = [event for event in found.events() if event.name == "aten::mm" and event.device_type == torch.autograd.DeviceType.CPU for _ in event.kernels]
    probe.expect(kernels, "no kernel belongs to aten::mm")
    for average in found.key_averages():
        if average.key in ("aten::mm", "the product"):
            probe.expect(average.device_time_total > 0, f"{average.key} has the device time {average.device_time_total}")


@check
def memory_is_reported(probe):
    "With profile_memory=True the profile has the bytes that operators allocate on the device."
    activities = [ProfilerActivity.CPU, _activity(probe)]
    with profile(activities=activities, profile_memory=True) as found:
        x = torch.empty(4096, device=probe.device)
        probe.synchronize()
    bytes_ = sum(average.self_device_memory_usage for average in found.key_averages() if average.key.startswith("aten::empty"))
    probe.expect(bytes_ >= x.numel() * 4, f"torch.empty of 16384 bytes on the device counts as {bytes_} bytes")


@check
def the_trace_shows_kernels_and_their_launches(probe):
    "export_chrome_trace writes JSON in which kernels have a device and arrows lead from calls to kernels."
    found = _profiled(probe, [ProfilerActivity.CPU, _activity(probe)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        found.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    kernels = [event for event in events if event.get("cat") == "kernel"]
    probe.expect(kernels, f"the trace has no kernels, but {sorted({event.get('cat', '') for event in events})}")
    for event in kernels:
        probe.expect({"device", "stream"} <= set(event["args"]), f"the kernel {event['name']} has no device and stream but {sorted(event['args'])}")
    arrows = {event["ph"] for event in events if event.get("cat") == "ac2g"}
    probe.expect({"s", "f"} <= arrows, f"no arrow leads from a call to a kernel (ends of arrows found: {sorted(arrows)})")
