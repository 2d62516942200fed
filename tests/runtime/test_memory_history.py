"""Memory history: what is recorded, where from, and in what form PyTorch's own memory viewer reads it."""

import inspect
import json
import os
import pickle
import threading
from random import Random

import pytest
import torch
import torch_openreg  # noqa: F401
from torch.cuda import _memory_viz

memory = torch.openreg.memory
MIB = 2**20
PRIVATE_USE = int(torch._C._autograd.DeviceType.PrivateUse1)
SIZE = 3 * MIB + 40  # bytes; no other allocation of these tests has it


SET = [name for name in ("OPENREG_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "OPENREG_NO_MEMORY_CACHING") if os.environ.get(name)]
default_settings = pytest.mark.skipif(bool(SET), reason=f"The events are those of the default settings, and {' and '.join(SET)} is set.")


@pytest.fixture(autouse=True)
def history_ends():
    yield
    memory._record_memory_history(enabled=None)
    memory._set_memory_metadata("")


def make(device, size=SIZE):
    return torch.empty(size, dtype=torch.uint8, device=device)


def line_of(function, text):
    """The number of the line of a function that has the text."""
    lines, first = inspect.getsourcelines(function)
    return first + next(number for number, line in enumerate(lines) if text in line)


MADE_AT = {"filename": __file__, "line": line_of(make, "torch.empty"), "name": "make"}


def blocks(snapshot, size=SIZE):
    return [block for segment in snapshot["segments"] for block in segment["blocks"] if block["requested_size"] == size]


def entries(device, action=None, snapshot=None):
    trace = (snapshot or memory._snapshot())["device_traces"][device.index]
    return [entry for entry in trace if action is None or entry["action"] == action]


def actions(device):
    return [entry["action"] for entry in entries(device)]


def test_a_block_has_the_python_frames_of_its_allocation(device):
    memory._record_memory_history(stacks="python")
    tensor = make(device)
    (block,) = blocks(memory._snapshot())
    assert block["frames"][0] == MADE_AT
    assert block["frames"][1]["name"] == "test_a_block_has_the_python_frames_of_its_allocation"
    assert block["state"] == "active_allocated" and block["address"] == tensor.data_ptr()
    assert block["size"] >= SIZE and block["size"] % 512 == 0
    assert all(frame["filename"].endswith((".py", ">")) or "pytest" in frame["filename"] for frame in block["frames"])


def test_all_stacks_have_cpp_frames_around_the_python_ones(device):
    memory._record_memory_history(stacks="all")
    tensor = make(device)
    frames = blocks(memory._snapshot())[0]["frames"]
    names = [frame["name"] for frame in frames]
    assert MADE_AT in frames
    inner = names[: frames.index(MADE_AT)]
    assert any("openreg::" in name for name in inner) and any("at::" in name for name in inner)
    del tensor


@pytest.mark.unsanitized("bounds", reason="guard zones make blocks larger than requested")
@default_settings
def test_the_trace_tells_segments_allocations_and_frees_in_order(device):
    torch.openreg.empty_cache()
    memory._record_memory_history(stacks="python")
    tensor = make(device, 40 * MIB)
    address = tensor.data_ptr()
    del tensor
    torch.openreg.empty_cache()
    found = [(entry["action"], entry["addr"], entry["size"]) for entry in entries(device)]
    assert found[:-1] == [
        ("segment_alloc", address, 40 * MIB),
        ("alloc", address, 40 * MIB),
        ("free_requested", address, 40 * MIB),
        ("free_completed", address, 40 * MIB),
        ("segment_free", address, 40 * MIB),
    ]
    assert found[-1][0] == "snapshot"
    times = [entry["time_us"] for entry in entries(device)]
    assert times == sorted(times)
    assert {entry["stream"] for entry in entries(device)} == {0}


def test_a_block_that_another_stream_uses_is_pending_and_its_free_completes_later(device, python):
    python(
        f"""
        import torch, torch_openreg
        memory, index = torch.openreg.memory, {device.index}
        def make(size):
            return torch.empty(size, dtype=torch.uint8, device=index)
        def state():
            snapshot = memory._snapshot()
            blocks = [block for segment in snapshot["segments"] for block in segment["blocks"] if block["requested_size"] == {SIZE}]
            return blocks, [entry["action"] for entry in snapshot["device_traces"][index]]

        torch.openreg.set_device(index)
        side = torch.openreg.Stream()
        memory._record_memory_history(stacks="python")
        tensor = make({SIZE})
        with torch.openreg.stream(side):
            torch.openreg._sleep(1)  # not before somebody waits
        tensor.record_stream(side)
        del tensor
        (block,), actions = state()
        assert block["state"] == "active_pending_free" and block["frames"][0]["name"] == "make"
        assert actions[-2:] == ["free_requested", "snapshot"]
        side.synchronize()
        make(512)  # looks at what has completed
        blocks, actions = state()
        assert blocks == [] and "free_completed" in actions
        """,
        env={"OPENREG_SCHEDULE": "lazy", "OPENREG_DEVICES": "2"},
    )


def test_out_of_memory_is_in_the_trace_with_its_frames(device):
    memory._record_memory_history(stacks="python")
    with pytest.raises(torch.OutOfMemoryError):
        make(device, 2**50)
    (entry,) = entries(device, "oom")
    assert entry["size"] == 2**50 and "addr" not in entry
    assert 0 < entry["device_free"] <= torch.openreg.mem_get_info(device)[1]
    assert entry["frames"][0] == MADE_AT


@default_settings
def test_the_trace_keeps_the_latest_entries(device):
    memory._record_memory_history(max_entries=5, stacks="python")
    for size in range(1, 21):
        make(device, size)
    trace = entries(device)
    assert len(trace) == 5 and trace[-1]["action"] == "snapshot"
    assert [(entry["action"], entry["size"]) for entry in trace[:-1]] == [
        ("free_completed", 19), ("alloc", 20), ("free_requested", 20), ("free_completed", 20),
    ]
    memory._record_memory_history(max_entries=2, stacks="python")
    assert len(entries(device)) == 2


def test_state_keeps_stacks_of_live_blocks_and_no_trace(device):
    memory._record_memory_history("state", stacks="python")
    tensor = make(device)
    snapshot = memory._snapshot()
    assert blocks(snapshot)[0]["frames"][0] == MADE_AT
    assert not any(snapshot["device_traces"])
    del tensor


@default_settings
@pytest.mark.parametrize("context, of_block, of_alloc, of_free", [
    (None, False, False, False), ("state", True, False, False), ("alloc", True, True, "alloc"), ("all", True, True, "free"),
])
def test_the_context_says_which_events_have_stacks(device, context, of_block, of_alloc, of_free):
    def free(tensors):
        tensors.clear()

    memory._record_memory_history(context=context, stacks="python")
    tensors = [make(device)]
    assert bool(blocks(memory._snapshot())[0]["frames"]) == of_block
    free(tensors)
    (alloc,), (freed,) = entries(device, "alloc"), entries(device, "free_completed")
    assert ("frames" in alloc) == of_alloc
    assert ("frames" in freed) == bool(of_free)
    if of_free:
        assert freed["frames"][0]["name"] == {"alloc": "make", "free": "free"}[of_free]


def test_a_freed_or_unrecorded_block_has_no_frames(device):
    before = make(device)
    memory._record_memory_history(stacks="python")
    assert blocks(memory._snapshot())[0]["frames"] == []
    del before
    tensor = make(device)
    memory._record_memory_history(None)
    del tensor
    again = make(device)
    assert blocks(memory._snapshot())[0]["frames"] == []
    assert not any(memory._snapshot()["device_traces"])
    del again


@default_settings
def test_history_can_be_cleared_and_actions_skipped(device):
    memory._record_memory_history(stacks="python")
    make(device)
    memory._record_memory_history(stacks="python", skip_actions=["free_requested", "snapshot"])
    assert "free_requested" in actions(device)
    memory._record_memory_history(stacks="python", skip_actions=["free_requested", "snapshot"], clear_history=True)
    make(device)
    assert actions(device)[-2:] == ["alloc", "free_completed"] and "free_requested" not in actions(device)


def test_one_device_can_be_traced_alone(device):
    other = torch.device("openreg", 1 - device.index)
    memory._record_memory_history(stacks="python", device=device)
    tensors = make(device), make(other)
    snapshot = memory._snapshot()
    assert entries(device, "alloc", snapshot) and not entries(other, None, snapshot)
    assert len(blocks(snapshot)) == 2 and {segment["device"] for segment in snapshot["segments"]} == {0, 1}
    assert {segment["device"] for segment in memory._snapshot(device)["segments"]} == {device.index}
    del tensors


def test_segments_and_statistics_agree(device):
    tensors = [make(device, size) for size in (1, 700, MIB, SIZE, 30 * MIB)]
    segments = [segment for segment in torch.openreg.memory_snapshot() if segment["device"] == device.index]
    stats = torch.openreg.memory_stats(device)
    for key, total in (("total_size", "reserved"), ("allocated_size", "allocated"), ("active_size", "active"), ("requested_size", "requested")):
        assert sum(segment[key] for segment in segments) == stats[f"{total}_bytes.all.current"], key
    assert len(segments) == stats["segment.all.current"]
    assert {segment["segment_type"] for segment in segments} == {"small", "large"}
    for segment in segments:
        assert sum(block["size"] for block in segment["blocks"]) == segment["total_size"]
        ends = [block["address"] + block["size"] for block in segment["blocks"]]
        assert [segment["address"], *ends[:-1]] == [block["address"] for block in segment["blocks"]]
    assert torch.openreg.memory_snapshot((0, 0)) == torch.openreg.memory_snapshot()
    assert torch.openreg.memory_snapshot((7, 7)) == []
    del tensors


@pytest.mark.unsanitized("bounds", reason="guard zones make blocks larger than requested")
@default_settings
def test_pytorchs_viewer_reads_a_dumped_snapshot(device, tmp_path):
    memory._record_memory_history(stacks="python")
    tensor = make(device, 40 * MIB)
    freed = make(device)
    del freed
    memory._dump_snapshot(str(tmp_path / "snapshot.pickle"))
    with open(tmp_path / "snapshot.pickle", "rb") as file:
        snapshot = pickle.load(file)

    summary = _memory_viz.segsum(snapshot)
    reserved = sum(map(torch.openreg.memory_reserved, range(torch.openreg.device_count())))
    assert f"total_reserved: {_memory_viz.Bytes(reserved)}" in summary
    assert "] 40.0MiB allocated" in summary
    trace = _memory_viz.trace(snapshot)
    assert f"Device {device.index} ---" in trace and f"cudaMalloc({tensor.data_ptr()}, 40.0MiB)" in trace
    assert "# free completed for" in trace
    for page in (_memory_viz.trace_plot(snapshot), _memory_viz.trace_plot(snapshot, plot_segments=True), _memory_viz.segment_plot(snapshot)):
        assert "<html>" in page and "snapshot.pickle" in page
    frames = []
    _memory_viz.memory(snapshot, format_flamegraph=lambda text: frames.append(text))
    assert f"test_memory_history.py:{MADE_AT['line']}:make {40 * MIB}" in frames[0]

    augmented = memory._snapshot(augment_with_fx_traces=True)
    assert [list(segment) for segment in augmented["segments"]] == [list(segment) for segment in snapshot["segments"]]
    (block,) = blocks(snapshot, 40 * MIB)
    assert block["frames"][0] == MADE_AT and block["address"] == tensor.data_ptr()
    assert {key for key in snapshot} >= {"segments", "device_traces", "allocator_settings", "external_annotations"}
    kept = _memory_viz.filter_alloc_free_pairs(snapshot)["device_traces"][device.index]
    assert [entry["size"] for entry in kept if entry["action"] == "alloc"] == [40 * MIB]


def test_the_traceback_of_a_live_allocation_can_be_asked_for(device):
    memory._record_memory_history(stacks="python")
    tensor = make(device)
    address = tensor.data_ptr()
    assert memory._allocation_traceback(address)[0] == MADE_AT
    assert memory._allocation_traceback(address + 512) is None
    del tensor
    assert memory._allocation_traceback(address) is None


@default_settings
def test_entries_carry_the_metadata_of_their_time(device):
    memory._record_memory_history(stacks="python")
    memory._set_memory_metadata("step 1")
    assert memory._get_memory_metadata() == "step 1"
    tensor = make(device)
    thread = threading.Thread(target=make, args=(device, 100))  # has no text
    thread.start()
    thread.join()
    memory._set_memory_metadata("")
    del tensor
    assert [entry["user_metadata"] for entry in entries(device) if entry["action"] != "segment_alloc"] == ["step 1", *[""] * 6]


def test_annotations_of_the_profiler_are_in_the_snapshot(device):
    def annotate(name):
        with torch.openreg.device(device), torch.profiler.record_function(name):
            make(device)

    memory._record_memory_history(stacks="python")
    annotate("mine")
    thread = threading.Thread(target=annotate, args=("of another thread",))
    thread.start()
    thread.join()
    found = memory._snapshot()["external_annotations"]
    assert [(entry["name"], entry["stage"], entry["device"]) for entry in found] == [
        ("mine", "START", device.index), ("mine", "END", device.index),
    ]
    memory._record_memory_history(None)
    memory._record_memory_history(stacks="python", global_record_annotations=True)
    thread = threading.Thread(target=annotate, args=("of another thread",))
    thread.start()
    thread.join()
    assert {entry["name"] for entry in memory._snapshot()["external_annotations"]} == {"of another thread"}
    memory._record_memory_history(stacks="python", clear_history=True)  # a running recording takes the new settings
    thread = threading.Thread(target=annotate, args=("of another thread",))
    thread.start()
    thread.join()
    annotate("mine")
    assert {entry["name"] for entry in memory._snapshot()["external_annotations"]} == {"mine"}


def test_backward_allocates_on_its_own_thread_and_is_recorded(device):
    memory._record_memory_history(stacks="all")
    weight = torch.ones(256, 1024, device=device, requires_grad=True)
    (weight * 2).sum().backward()
    made = entries(device, "alloc")
    assert len(made) >= 3 and all(entry["frames"] for entry in made)
    weight.grad = None


def test_threads_can_allocate_while_history_is_switched_and_read(device):
    stop, failures = threading.Event(), []

    def allocate():
        try:
            while not stop.is_set():
                make(device, 2000).fill_(1)
        except Exception as error:  # the test's thread reports it
            failures.append(error)

    threads = [threading.Thread(target=allocate) for _ in range(3)]
    for thread in threads:
        thread.start()
    for round in range(30):
        memory._record_memory_history(max_entries=50, stacks="python", clear_history=round % 2 == 0)
        snapshot = memory._snapshot()
        for segment in snapshot["segments"]:
            assert sum(block["size"] for block in segment["blocks"]) == segment["total_size"]
        if round % 5 == 0:
            memory._record_memory_history(None)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_cudas_signatures_are_there():
    later = ["record_pinned_host_memory", "record_cuda"]  # torch 2.14's, of history that is not kept here
    for name in ("_record_memory_history", "_snapshot", "_dump_snapshot", "_allocation_traceback", "_set_memory_metadata", "memory_snapshot"):
        theirs, ours = (inspect.signature(getattr(module.memory, name)).parameters for module in (torch.cuda, torch.openreg))
        assert [(p.name, p.default) for p in theirs.values() if p.name not in later] == [(p.name, p.default) for p in ours.values()], name


def test_the_older_signature_works(device):
    memory._record_memory_history(True, trace_alloc_max_entries=100, trace_alloc_record_context=True)
    tensor = make(device)
    assert entries(device, "alloc")[0]["frames"][0] == MADE_AT
    memory._record_memory_history(False)
    assert not any(memory._snapshot()["device_traces"])
    del tensor


@pytest.mark.parametrize("arguments", [
    {"enabled": "some"}, {"context": "free"}, {"stacks": "cpp"}, {"skip_actions": ["malloc"]}, {"max_entries": -1},
], ids=lambda arguments: next(iter(arguments)))
def test_a_wrong_word_is_refused_with_the_right_ones(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        memory._record_memory_history(**arguments)


@pytest.mark.unsanitized("bounds", reason="guard zones make blocks larger than requested")
@default_settings
def test_profile_memory_shows_device_bytes(device, tmp_path):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        with torch.profiler.record_function("keeps"):
            tensor = make(device)
        with torch.profiler.record_function("returns"):
            make(device, 5 * MIB)
        used = torch.openreg.memory_allocated(device)
        del tensor
    block_bytes = -(-SIZE // 512) * 512
    totals = {event.key: event.device_memory_usage for event in profiler.key_averages()}
    assert totals["keeps"] == block_bytes and totals["returns"] == 0
    assert totals["aten::empty"] == block_bytes + 5 * MIB
    assert [event.device_memory_usage for event in profiler.events() if event.name == "[memory]"] == [-block_bytes]

    profiler.export_chrome_trace(str(tmp_path / "trace.json"))
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    changes = [event["args"] for event in events if event["name"] == "[memory]" and event["args"]["Device Id"] == device.index]
    assert [change["Bytes"] for change in changes if change["Device Type"] == PRIVATE_USE] == [block_bytes, 5 * MIB, -5 * MIB, -block_bytes]
    assert changes[-1]["Total Allocated"] == used - block_bytes
    assert changes[-1]["Total Reserved"] == torch.openreg.memory_reserved(device)


def test_profiled_out_of_memory_is_reported(device):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        with pytest.raises(torch.OutOfMemoryError):
            make(device, 2**50)
    assert any("OutOfMemory" in event.name for event in profiler.events())


def test_a_process_can_end_while_it_records(device, python):
    result = python(
        f"""
        import torch, torch_openreg
        torch.openreg.memory._record_memory_history(stacks="all", global_record_annotations=True, compile_context=True)
        weight = torch.ones(64, 64, device="openreg:{device.index}", requires_grad=True)
        for _ in range(3):
            (weight @ weight).sum().backward()
        kept = [weight.clone() for _ in range(10)]
        """
    )
    assert result.stderr == ""


def rewind(snapshot, index):
    """Goes back from the state at the snapshot through the trace, as the viewer does, and checks that each event fits the state."""
    segments = {segment["address"]: segment["total_size"] for segment in snapshot["segments"] if segment["device"] == index}
    live = {
        block["address"]: [block["requested_size"], block["state"] == "active_pending_free"]
        for segment in snapshot["segments"] if segment["device"] == index
        for block in segment["blocks"] if block["state"] != "inactive"
    }

    def in_a_segment(address, size):
        return any(begin <= address and address + size <= begin + length for begin, length in segments.items())

    for event in reversed(snapshot["device_traces"][index]):
        action, address, size = event["action"], event.get("addr"), event["size"]
        if action == "alloc":
            assert in_a_segment(address, size) and live.pop(address) == [size, False]
        elif action == "free_requested":
            assert live[address] == [size, True]
            live[address][1] = False
        elif action == "free_completed":
            assert address not in live and in_a_segment(address, size)
            live[address] = [size, True]
        elif action == "segment_alloc":
            assert segments.pop(address) == size
        elif action == "segment_free":
            assert not in_a_segment(address, size)
            segments[address] = size
        assert all(in_a_segment(block, requested) for block, (requested, _) in live.items()), action
    return segments, live


@default_settings
@pytest.mark.parametrize("seed", range(3))
def test_every_event_fits_the_state_that_later_events_lead_to(device, seed):
    random = Random(seed)
    with torch.openreg.device(device):
        streams = [torch.openreg.Stream() for _ in range(2)]
        requested = torch.openreg.memory_stats(device)["requested_bytes.all.current"]
        memory._record_memory_history(stacks="python", context=None)
        live = []
        for _ in range(400):
            choice = random.random()
            if choice < 0.5 or not live:
                with torch.openreg.stream(random.choice([torch.openreg.current_stream(), *streams])):
                    live.append(make(device, random.choice([1, 600, 70_000, MIB, 3 * MIB, 11 * MIB])))
            elif choice < 0.6:
                random.choice(live).record_stream(random.choice(streams))
            elif choice < 0.97:
                live.pop(random.randrange(len(live)))
            elif choice < 0.98:
                with pytest.raises(torch.OutOfMemoryError):
                    make(device, 2**50)
            else:
                torch.openreg.empty_cache()
        _, first = rewind(memory._snapshot(), device.index)
        assert sum(size for size, pending in first.values() if not pending) == requested
        live.clear()
        torch.openreg.synchronize()


def test_entries_name_the_compiled_region_that_they_happened_in(python):
    python(
        """
        import torch, torch_openreg
        @torch.compile(backend="eager")
        def compiled(x):
            return x * 2
        x = torch.ones(100, device="openreg")
        compiled(x)
        torch.openreg.memory._record_memory_history(stacks="python", compile_context=True)
        y, z = compiled(x), x + 1
        made = [entry["compile_context"] for entry in torch.openreg.memory._snapshot()["device_traces"][0] if entry["action"] == "alloc"]
        assert made == ["Torch-Compiled Region: 0/0", ""], made
        """
    )


def test_a_pools_segments_and_events_carry_its_id(device):
    with torch.openreg.device(device):
        pool = torch.openreg.MemPool()
    memory._record_memory_history(stacks="python")
    with torch.openreg.use_mem_pool(pool, device):
        tensor = make(device)
    (segment,) = pool.snapshot()
    assert segment["segment_pool_id"] == pool.id and segment["device"] == device.index
    assert [block["frames"][:1] for block in segment["blocks"] if block["state"] == "active_allocated"] == [[MADE_AT]]
    assert {entry["pool_id"] for entry in entries(device) if entry["action"] != "snapshot"} == {pool.id}
    del tensor, pool


def test_an_expandable_segment_is_shown_by_its_mapped_stretches(device, python):
    python(
        f"""
        import torch, torch_openreg
        memory, MIB, index = torch.openreg.memory, 2**20, {device.index}
        memory._record_memory_history(stacks="python")
        parts = [torch.empty(4 * MIB, dtype=torch.uint8, device=index) for _ in range(4)]
        base = parts[0].data_ptr()
        del parts[1:3]
        torch.openreg.empty_cache()
        snapshot = memory._snapshot()
        segments = snapshot["segments"]
        assert [(s["address"] - base, s["total_size"], s["is_expandable"]) for s in segments] == [(0, 4 * MIB, True), (12 * MIB, 4 * MIB, True)]
        assert [len(s["blocks"]) for s in segments] == [1, 1] and all(s["blocks"][0]["frames"] for s in segments)
        trace = [(e["action"], e["addr"] - base, e["size"]) for e in snapshot["device_traces"][index] if e["action"].startswith("segment")]
        assert trace == [*[("segment_map", 4 * MIB * n, 4 * MIB) for n in range(4)], ("segment_unmap", 4 * MIB, 8 * MIB)], trace
        assert snapshot["allocator_settings"]["expandable_segments"] is True
        assert snapshot["allocator_settings"]["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"
        from torch.cuda import _memory_viz
        assert "total_reserved: 8.0MiB" in _memory_viz.segsum(snapshot)
        """,
        env={"OPENREG_ALLOC_CONF": "expandable_segments:True", "OPENREG_DEVICES": "2"},
    )
