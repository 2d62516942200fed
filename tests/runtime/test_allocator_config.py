"""Allocator settings: where they come from, what each does to blocks and segments, and the sentences for wrong ones.

Settings belong to the process, so each test runs one of its own. Needs torch with torch_openreg installed.
"""

import pytest

START = """
import torch, torch_openreg
MIB = 2**20

def block(size, device="openreg:1"):
    return torch.empty(size, dtype=torch.uint8, device=device)

def stats(device="openreg:1"):
    return torch.openreg.memory_stats(device)

def change(settings):
    torch.openreg.memory._set_allocator_settings(settings)
"""


@pytest.mark.parametrize("variable", ["OPENREG_ALLOC_CONF", "PYTORCH_ALLOC_CONF"])
def test_the_environment_sets_the_allocator_up(python, variable):
    python(START, "kept = block(1200 * 1024); assert stats()['allocated_bytes.all.current'] == 1280 * 1024",
           env={variable: "roundup_power2_divisions:8,large_segment_size_mb:20"})


def test_our_variable_takes_the_place_of_torchs(python):
    python(START, "kept = block(1200 * 1024); assert stats()['allocated_bytes.all.current'] == 1200 * 1024",
           env={"PYTORCH_ALLOC_CONF": "roundup_power2_divisions:8", "OPENREG_ALLOC_CONF": "large_segment_size_mb:20"})


@pytest.mark.parametrize(
    "settings,reason",
    [
        ("max_split_size:100", "'max_split_size'"),
        ("max_split_size_mb:1", "max_split_size_mb too small"),
        ("expandable_segments:perhaps", "Expected 'True' or 'False'"),
        ("garbage_collection_threshold:7", "garbage_collect"),
        ("per_process_memory_fraction:2", "not a number above 0 and at most 1"),
        ("per_process_memory_fraction:some", "not a number above 0 and at most 1"),
        ("backend:cudaMallocAsync", "openreg has only the backend 'native'"),
        ("backend:native per_process_memory_fraction:0.5", "0.5"),
    ],
)
def test_settings_without_sense_are_refused_and_nothing_changes(python, settings, reason):
    code = f"""
    def refused(call):
        try:
            call()
        except ValueError as error:
            assert {reason!r} in str(error), error
            return str(error)
        raise AssertionError("accepted")
    """
    python(START, code, f"""
    kept = block(100)
    refused(lambda: change({settings!r}))
    assert block(1000).numel() == 1000
    """)
    python(START, code, f"""
    for _ in range(2):
        assert "OPENREG_ALLOC_CONF" in refused(lambda: block(100))
    """, env={"OPENREG_ALLOC_CONF": settings})


@pytest.mark.parametrize(
    "call,refused",
    [
        ("change", "per_process_memory_fraction:7"),
        ("change", "garbage_collection_threshold:7"),  # torch refuses this one itself, and has taken what stands before it
        ("torch._C._accelerator_setAllocatorSettings", "per_process_memory_fraction:7"),
    ],
)
def test_nothing_of_refused_settings_takes_effect_later(python, call, refused):
    python(START, f"""
    change("roundup_power2_divisions:4,max_non_split_rounding_mb:30")
    change("large_segment_size_mb:30,roundup_power2_divisions:8,garbage_collection_threshold:0.9")

    def state():
        found = torch.openreg.memory._snapshot()["allocator_settings"]
        kept = block(1200 * 1024)
        return dict(found), stats()["allocated_bytes.all.current"], stats()["reserved_bytes.all.current"]

    before = state()
    try:
        {call}("expandable_segments:True,pinned_use_background_threads:True,max_non_split_rounding_mb:50,{refused}")
    except ValueError:
        pass
    else:
        raise AssertionError("accepted")
    assert state() == before
    change("large_segment_size_mb:30,roundup_power2_divisions:8,garbage_collection_threshold:0.9")
    assert state() == before
    """)


def test_settings_that_only_cuda_has_are_accepted(python):
    python(START, "assert block(10).numel() == 10",
           env={"PYTORCH_ALLOC_CONF": "release_lock_on_cudamalloc:True,pinned_num_register_threads:8,expandable_segments:True"})


def test_roundup_rounds_to_steps_between_powers_of_two(python):
    python(START, """
    change("roundup_power2_divisions:4")
    sizes = {600: 1024, 1100 * 1024: 1280 * 1024, 5 * MIB + 1: 6 * MIB, 4 * MIB: 4 * MIB, 100 * MIB: 112 * MIB}
    for asked, rounded in sizes.items():
        kept = block(asked)
        now = stats()
        assert now["requested_bytes.all.current"] == asked
        assert rounded <= now["allocated_bytes.all.current"] <= rounded + MIB, (asked, now["allocated_bytes.all.current"])
        del kept
    change("roundup_power2_divisions:[256:1,512:2,>:4]")
    kept = block(1100 * 1024)
    assert stats()["allocated_bytes.all.current"] == 1100 * 1024
    """)


def test_large_blocks_are_not_split_beyond_the_limit(python):
    python(START, """
    block(100)
    change("max_split_size_mb:32")
    assert stats()["max_split_size"] == 32 * MIB
    large = block(40 * MIB)
    assert stats()["oversize_allocations.current"] == stats()["oversize_segments.current"] == 1
    address = large.data_ptr()
    del large
    assert stats()["oversize_allocations.current"] == 0 and stats()["oversize_segments.current"] == 1
    small = block(30 * MIB)
    assert small.data_ptr() != address             # a small request does not take an oversize block
    similar = block(36 * MIB)
    assert similar.data_ptr() == address           # one of about its size does, and gets all of it
    assert stats()["inactive_split_bytes.all.current"] == 0
    del similar, small
    torch.openreg.empty_cache()
    assert stats()["oversize_segments.current"] == 0
    assert stats()["oversize_allocations.peak"] == 1 and stats()["oversize_allocations.allocated"] == 2
    change("")
    assert stats()["max_split_size"] == -1
    """)


def test_the_large_segment_can_have_another_size(python):
    python(START, """
    kept = block(2 * MIB)
    assert stats()['reserved_bytes.all.current'] == 40 * MIB
    change("expandable_segments:False")    # what it does not name stays
    more = block(9 * MIB), block(9 * MIB), block(9 * MIB), block(9 * MIB), block(5 * MIB)
    assert stats()['reserved_bytes.all.current'] == 80 * MIB
    """, env={"OPENREG_ALLOC_CONF": "large_segment_size_mb:40"})


def test_a_flush_that_fails_leaves_no_mark_on_the_memory(python):
    """Memory that a failed flush meant to give back is not taken for idle by the next wait, which is for other memory."""
    python("""
        import torch, torch_openreg
        def stats(name):
            return torch.openreg.memory_stats()[name]
        source, good, bad = torch.arange(5., device="openreg"), *(torch.tensor([i], device="openreg") for i in (1, 9))
        source.gather(0, good)
        with torch.openreg.stream(torch.openreg.Stream()):
            torch.empty(100, device="openreg")  # a small segment that is free and whole
        source.gather(0, bad)
        try:
            torch.openreg.empty_cache()
        except torch.AcceleratorError as error:
            assert "index 9" in str(error)
        else:
            raise AssertionError("the flush met no failure")
        assert stats("segment.small_pool.current") == 2
        torch.empty(110 << 20, dtype=torch.uint8, device="openreg")
        torch.empty(120 << 20, dtype=torch.uint8, device="openreg")
        assert stats("num_ooms") == stats("num_alloc_retries") == 0
        assert stats("reserved_bytes.all.current") < 130 << 20  # garbage was collected
        assert stats("segment.small_pool.current") == 2
    """, env={"OPENREG_MEMORY": "200MiB", "OPENREG_ALLOC_CONF": "garbage_collection_threshold:0.5"})


def test_garbage_collection_gives_back_what_was_unused_longest(python):
    python(START, """
    side = torch.openreg.Stream(1)
    with torch.openreg.stream(side):
        old, new = block(30 * MIB), block(40 * MIB)
    addresses = old.data_ptr(), new.data_ptr()
    del old
    block(100)
    del new
    kept = block(50 * MIB)     # 120 of 200 MiB are reserved, and the threshold is 100
    assert stats()["num_device_free"] == 0
    more = block(60 * MIB)     # before it, the oldest goes
    assert stats()["num_device_free"] == 1 and stats()["num_ooms"] == stats()["num_alloc_retries"] == 0
    with torch.openreg.stream(side):
        assert block(40 * MIB).data_ptr() == addresses[1]
    """, env={"OPENREG_MEMORY": "200MiB", "OPENREG_ALLOC_CONF": "garbage_collection_threshold:0.5"})


def test_the_memory_fraction_is_a_limit(python):
    python(START, """
    for device in ("openreg:1", "openreg:0"):
        assert torch.openreg.get_per_process_memory_fraction(device) == 0.5
        kept = block(40 * MIB, device)
        try:
            block(30 * MIB, device)
        except torch.OutOfMemoryError as error:
            assert "64.00 MiB allowed (set_per_process_memory_fraction)" in str(error), error
        else:
            raise AssertionError
        assert stats(device)["num_ooms"] == 1
        cached = block(24 * MIB, device)
        del cached
        again = block(20 * MIB, device)    # within the limit
        torch.openreg.set_per_process_memory_fraction(1.0, device)
        assert block(60 * MIB, device).numel() == 60 * MIB
    for wrong, kind in ((1.5, ValueError), (-0.1, ValueError), (1, TypeError)):
        try:
            torch.openreg.set_per_process_memory_fraction(wrong)
        except kind:
            continue
        raise AssertionError(wrong)
    """, env={"OPENREG_MEMORY": "128MiB", "OPENREG_ALLOC_CONF": "per_process_memory_fraction:0.5"})


def test_a_request_beyond_the_fraction_flushes_nothing(python):
    python(START, """
    cached = block(10 * MIB)
    del cached
    torch.openreg.set_per_process_memory_fraction(0.25, 1)
    try:
        block(40 * MIB)
    except torch.OutOfMemoryError:
        assert stats()["num_alloc_retries"] == 0 and stats()["reserved_bytes.all.current"] == 10 * MIB
    else:
        raise AssertionError
    """, env={"OPENREG_MEMORY": "128MiB"})


@pytest.mark.parametrize("schedule", ["eager", "lazy", "random:3"])
def test_without_caching_every_block_goes_back_to_the_driver(python, schedule):
    python(START, """
    for device in ("openreg:1", "openreg:0"):
        free = torch.openreg.mem_get_info(device)[0]
        one = torch.full((300,), 3, device=device)
        assert stats(device)["reserved_bytes.all.current"] == stats(device)["allocated_bytes.all.current"] == 4096   # a page
        two = one + 1                 # queued work that reads the block
        del one
        assert two.eq(4).all().item()
        torch.openreg.synchronize(device)
        del two
        block(1, device)
        torch.openreg.empty_cache()
        assert torch.openreg.mem_get_info(device)[0] == free
        assert stats(device)["num_device_alloc"] == stats(device)["num_device_free"] == stats(device)["allocation.all.allocated"]
    """, env={"OPENREG_NO_MEMORY_CACHING": "1", "OPENREG_SCHEDULE": schedule})


def test_caching_can_be_switched_off_for_a_while(python):
    python(START, """
    with torch.openreg.memory.caching_allocator_disabled():
        uncached = block(3 * MIB)
    cached = block(5 * MIB)
    assert stats()["reserved_bytes.all.current"] == 8 * MIB
    del uncached, cached
    torch.openreg.synchronize(1)
    block(100)
    assert stats()["reserved_bytes.all.current"] == 7 * MIB   # the 3 MiB are gone
    """)


def test_observers_see_the_numbers_before_the_error(python):
    python(START, """
    seen = []
    torch.openreg.memory.attach_out_of_memory_observer(lambda *numbers: seen.append(numbers))
    kept = block(40 * MIB)
    for _ in range(2):
        try:
            block(30 * MIB)
        except torch.OutOfMemoryError:
            pass
    assert seen == [(1, 30 * MIB, 40 * MIB, 24 * MIB)] * 2, seen
    def broken(*numbers):
        raise KeyError("mine")
    torch.openreg.memory.attach_out_of_memory_observer(broken)
    try:
        block(30 * MIB)
    except Exception as error:
        assert "mine" in str(error) and not isinstance(error, torch.OutOfMemoryError)
    assert block(10).numel() == 10
    """, env={"OPENREG_MEMORY": "64MiB"})


def test_the_documentation_has_every_setting():
    import importlib.util
    from pathlib import Path

    path = Path(__file__).resolve().parents[1] / "repo" / "generate_settings.py"
    spec = importlib.util.spec_from_file_location("generate_settings", path)
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    text = generate.PAGE.read_text()
    assert generate.with_table(text) == text, f"run {path}"
