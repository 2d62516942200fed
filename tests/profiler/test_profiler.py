"""torch.profiler on the device: kernels, copies and waits on stream lanes, linked to the operators that launched them.

Needs torch with torch_openreg installed.
"""

import json

import draw
import pytest
import torch
import torch_openreg  # noqa: F401
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function, schedule, tensorboard_trace_handler

ACTIVITIES = [ProfilerActivity.CPU, ProfilerActivity.PrivateUse1]


def work(device):
    """One product, one addition, both uploads and a download."""
    a, b = torch.ones(8, 8).to(device), torch.ones(8, 8).to(device)
    return (torch.mm(a, b) + 1).cpu()


@pytest.fixture
def warm(device):
    work(device)
    torch.zeros(8, device=device)
    return device


def exported(prof, tmp_path):
    path = tmp_path / "trace.json"
    prof.export_chrome_trace(str(path))
    return json.loads(path.read_text())["traceEvents"]


def complete(events, category):
    return [event for event in events if event.get("cat") == category and event["ph"] == "X"]


def test_kernels_belong_to_the_operators_that_launched_them(warm):
    with profile(activities=ACTIVITIES) as prof:
        work(warm)
    operators = {event.name: event for event in prof.events() if event.device_type == DeviceType.CPU}
    assert [kernel.name for kernel in operators["aten::mm"].kernels] == ["aten::mm"]
    assert operators["aten::mm"].device_time_total > 0 and operators["aten::mm"].kernels[0].device == warm.index
    kernels = [event for event in prof.events() if event.device_type == DeviceType.PrivateUse1]
    assert {"aten::mm", "Memcpy DtoH"} <= {event.name for event in kernels} and any(event.name.startswith("aten::add") for event in kernels)
    assert all(event.device_index == warm.index for event in kernels)


def test_the_table_has_device_columns(warm):
    with profile(activities=ACTIVITIES) as prof:
        for _ in range(3):
            work(warm)
    averages = prof.key_averages()
    row = next(row for row in averages if row.key == "aten::mm" and row.device_type == DeviceType.CPU)
    assert row.count == 3 and row.device_time_total > 0
    table = averages.table(sort_by="self_device_time_total")
    assert "Self OPENREG" in table and "OPENREG total" in table and "Self OPENREG time total" in table
    assert table.index("aten::mm") < table.index("aten::ones")


def test_the_trace_has_lanes_and_arrows(warm, tmp_path):
    side = torch.openreg.Stream(warm)
    with profile(activities=ACTIVITIES) as prof:
        work(warm)
        with torch.openreg.stream(side):
            torch.zeros(1000, device=warm).mul_(2)
        torch.openreg.current_stream(warm).wait_stream(side)
        torch.openreg.synchronize(warm)
    events = exported(prof, tmp_path)
    kernels = complete(events, "kernel")
    assert {event["pid"] for event in kernels} == {warm.index} and len({event["tid"] for event in kernels}) == 2
    copies, fills = complete(events, "gpu_memcpy"), complete(events, "gpu_memset")
    assert {event["name"] for event in copies} >= {"Memcpy DtoH"} and all(event["args"]["bytes"] > 0 for event in copies + fills)
    assert complete(events, "cuda_sync"), "the wait of one stream for the other"
    calls = {event["args"]["correlation"]: event for event in complete(events, "privateuse1_runtime")}
    assert {event["name"] for event in calls.values()} >= {"openregLaunch", "openregMemcpyAsync", "openregEventRecord", "openregStreamWaitEvent"}
    for kernel in kernels:
        assert kernel["ts"] >= calls[kernel["args"]["correlation"]]["ts"]
    starts = {event["id"] for event in events if event.get("cat") == "ac2g" and event["ph"] == "s"}
    ends = {event["id"] for event in events if event.get("cat") == "ac2g" and event["ph"] == "f"}
    assert {kernel["args"]["correlation"] for kernel in kernels} <= starts & ends
    names = [event["args"]["name"] for event in events if event["name"] == "thread_name" and event["pid"] == warm.index]
    assert len([name for name in names if name.startswith("stream ")]) >= 2


def test_device_times_are_those_of_the_work(warm):
    with profile(activities=ACTIVITIES) as prof:
        with torch.openreg.device(warm):
            torch.openreg._sleep(20_000_000)
        torch.openreg.synchronize(warm)
    longest = max(event.device_time for event in prof.events() if event.device_type == DeviceType.PrivateUse1)
    assert 20_000 <= longest


def test_ranges_are_mirrored_on_the_device_lane(warm, tmp_path):
    with profile(activities=ACTIVITIES) as prof:
        with record_function("outer"), record_function("a step"):
            work(warm)
    events = exported(prof, tmp_path)
    (mirrored,) = [event for event in complete(events, "gpu_user_annotation") if event["name"] == "a step"]
    assert mirrored["pid"] == warm.index
    inside = [event for event in complete(events, "kernel") if event["pid"] == warm.index]
    assert all(mirrored["ts"] <= event["ts"] + 1 and event["ts"] + event["dur"] <= mirrored["ts"] + mirrored["dur"] + 1 for event in inside) and inside


def test_shapes_stacks_memory_and_flops(warm):
    with profile(activities=ACTIVITIES, record_shapes=True, with_stack=True, profile_memory=True, with_flops=True,
                 experimental_config=torch._C._profiler._ExperimentalConfig(verbose=True)) as prof:  # fmt: skip
        work(warm)
    event = next(event for event in prof.events() if event.name == "aten::mm")
    assert event.input_shapes[:2] == [[8, 8], [8, 8]] and event.flops == 2 * 8**3
    assert any("test_profiler.py" in frame and "work" in frame for frame in event.stack)
    assert max(event.device_memory_usage for event in prof.events()) >= 512
    assert any(row.self_device_memory_usage for row in prof.key_averages())


def test_steps_of_a_schedule_are_profiled_alone(warm, tmp_path):
    seen = []

    def ready(prof):
        seen.append({event.name for event in prof.events() if event.device_type == DeviceType.PrivateUse1})

    names = [torch.exp, torch.sin, torch.cos, torch.tanh, torch.sqrt]
    x = torch.ones(8, device=warm)
    for function in names:
        function(x)
    with profile(activities=ACTIVITIES, schedule=schedule(wait=1, warmup=1, active=2, repeat=1), on_trace_ready=ready) as prof:
        for function in names:
            function(x)
            torch.openreg.synchronize(warm)
            prof.step()
    assert len(seen) == 1
    found = {name.split(".")[0].removeprefix("aten::") for name in seen[0]}
    assert {"cos", "tanh"} <= found and not {"exp", "sin", "sqrt"} & found


def test_tensorboards_handler_writes_a_file(warm, tmp_path):
    with profile(activities=ACTIVITIES, on_trace_ready=tensorboard_trace_handler(str(tmp_path), worker_name="me")):
        work(warm)
    (path,) = tmp_path.glob("me.*.pt.trace.json")
    assert complete(json.loads(path.read_text())["traceEvents"], "kernel")


def test_graph_replays_show_their_kernels(warm):
    x = torch.ones(64, device=warm)
    with torch.openreg.device(warm):
        graph = torch.openreg.Graph()
        (x * 2).exp()
        with torch.openreg.graph(graph):
            y = (x * 2).exp()
        graph.replay()
        torch.openreg.synchronize(warm)
        with profile(activities=ACTIVITIES) as prof:
            graph.replay()
            torch.openreg.synchronize(warm)
    assert y is not None
    names = [event.name.split(".")[0] for event in prof.events() if event.device_type == DeviceType.PrivateUse1]
    assert names.count("aten::mul") == 1 and names.count("aten::exp") == 1


def test_backward_kernels_belong_to_backward_operators(warm):
    w = torch.ones(8, 8, device=warm, requires_grad=True)
    torch.mm(w, w).sum().backward()
    with profile(activities=ACTIVITIES) as prof:
        torch.mm(w, w).sum().backward()
    linked = [event for event in prof.events() if event.name == "aten::mm" and event.device_type == DeviceType.CPU and event.kernels]
    assert len(linked) == 3


def test_a_profile_of_the_cpu_alone_starts_no_device(python):
    python(
        """
        import torch, torch_openreg
        from torch.profiler import ProfilerActivity, profile
        with profile(activities=[ProfilerActivity.CPU]) as prof:
            torch.ones(3) + 1
        assert not torch.openreg.is_initialized()
        assert "aten::add" in [event.name for event in prof.events()]
        """
    )


def test_a_profile_begins_before_the_first_use_of_a_device(python):
    python(
        """
        import torch, torch_openreg
        from torch.autograd import DeviceType
        from torch.profiler import ProfilerActivity, profile
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.PrivateUse1]) as prof:
            torch.ones(100, device="openreg").exp()
            torch.openreg.synchronize()
        assert any(event.device_type == DeviceType.PrivateUse1 and "exp" in event.name for event in prof.events())
        """
    )


@pytest.mark.filterwarnings("ignore")
def test_the_older_profiler_measures_with_events(warm, capfd):
    with torch.autograd.profiler.profile(use_device="openreg", use_kineto=False) as prof:
        work(warm)
    assert "not enabled" not in capfd.readouterr().err
    assert "aten::mm" in [event.name for event in prof.function_events]


def test_an_operator_that_failed_is_marked(warm, tmp_path):
    x, index = torch.ones(3, device=warm), torch.tensor([5], device=warm)
    x[torch.tensor([1], device=warm)]
    with profile(activities=ACTIVITIES) as prof:
        x[index]
        with pytest.raises(torch.AcceleratorError):
            torch.openreg.synchronize(warm)
    failed = [event for event in complete(exported(prof, tmp_path), "kernel") if "status" in event["args"]]
    assert [event["name"] for event in failed] == ["aten::index.Tensor"]


def test_the_end_of_a_profile_waits_for_every_device(warm):
    with profile(activities=ACTIVITIES) as prof:
        for index in (0, 1):
            with torch.openreg.device(index), torch.openreg.stream(torch.openreg.Stream(index)):
                torch.openreg._sleep(30_000_000)
    found = {event.device_index for event in prof.events() if event.device_type == DeviceType.PrivateUse1 and event.device_time >= 30_000}
    assert found == {0, 1}


def test_a_late_error_survives_the_end_of_a_profile(device):
    x = torch.ones(3, device=device)
    x[torch.tensor([1], device=device)]
    index = torch.tensor([5], device=device)
    with torch.openreg.device(1 - device.index), profile(activities=ACTIVITIES):
        x[index]
    with pytest.raises(torch.AcceleratorError, match="aten::index.Tensor"):
        torch.openreg.synchronize(device)


@pytest.mark.skipif(draw.CHROMIUM is None, reason="no Chromium on this machine (Debian's package chromium); the trace is parsed in the tests above")
def test_a_trace_is_drawn_in_a_browser(tmp_path):
    events = draw.step()
    picture, height = draw.svg(events)
    assert picture.count("class=\"arrow\"") > 5 and "openreg:0 stream" in picture and height > 100
    draw.draw(events, tmp_path / "trace.png")
    data = (tmp_path / "trace.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and int.from_bytes(data[16:20], "big") == draw.WIDTH and len(data) > 5000
