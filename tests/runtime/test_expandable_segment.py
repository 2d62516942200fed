"""Expandable segments: memory grows and shrinks by pages at fixed addresses. Needs torch with torch_openreg installed.

Each test runs a process of its own, because settings and counters belong to one.
"""

import pytest

START = """
import torch, torch_openreg
MIB = 2**20

def block(size, device="openreg:1"):
    return torch.empty(size, dtype=torch.uint8, device=device)

def stats(device="openreg:1"):
    return torch.openreg.memory_stats(device)
"""
EXPANDABLE = {"OPENREG_ALLOC_CONF": "expandable_segments:True"}


def test_a_segment_grows_behind_its_last_block(python):
    python(START, """
    for device in ("openreg:1", "openreg:0"):
        parts = [block(3 * MIB, device).fill_(number) for number in range(10)]
        addresses = [part.data_ptr() for part in parts]
        assert addresses == [addresses[0] + number * 3 * MIB for number in range(10)]
        assert stats(device)["segment.all.current"] == 1
        assert stats(device)["reserved_bytes.all.current"] == 30 * MIB
        assert all(part.eq(number).all().item() for number, part in enumerate(parts))
        small = [torch.full((1000,), number, device=device) for number in range(1500)]   # 11.7 MiB
        assert stats(device)["reserved_bytes.small_pool.current"] == 12 * MIB
        assert stats(device)["segment.all.current"] == 2
        assert torch.equal(torch.stack(small)[:, 999].cpu(), torch.arange(1500))
    """, env=EXPANDABLE)


def test_freed_neighbours_serve_a_larger_request_without_more_memory(python):
    python(START, """
    parts = [block(4 * MIB) for _ in range(6)]
    base = parts[0].data_ptr()
    del parts
    large = block(24 * MIB)
    assert large.data_ptr() == base and stats()["reserved_bytes.all.current"] == 24 * MIB
    del large
    larger = block(30 * MIB)       # the free 24 and 6 more
    assert larger.data_ptr() == base and stats()["reserved_bytes.all.current"] == 30 * MIB
    assert larger.fill_(5).eq(5).all().item()
    """, env=EXPANDABLE)


def test_pages_in_the_middle_go_back_and_are_filled_again(python):
    python(START, """
    free = torch.openreg.mem_get_info(1)[0]
    parts = [block(3 * MIB).fill_(number) for number in range(8)]
    base = parts[0].data_ptr()
    del parts[2:6]                  # from 6 to 18 MiB
    assert stats()["inactive_split_bytes.all.current"] == 0
    torch.openreg.empty_cache()
    assert stats()["reserved_bytes.all.current"] == 12 * MIB == free - torch.openreg.mem_get_info(1)[0]
    assert [part[0].item() for part in parts] == [0, 1, 6, 7]
    again = block(5 * MIB).fill_(9)
    assert again.data_ptr() == base + 6 * MIB
    rest = block(7 * MIB).fill_(8)  # the end of that page and what is left of the hole
    assert rest.data_ptr() == base + 11 * MIB and stats()["reserved_bytes.all.current"] == 24 * MIB
    assert [part[0].item() for part in parts] == [0, 1, 6, 7] and again.eq(9).all().item() and rest.eq(8).all().item()
    del parts, again, rest
    torch.openreg.empty_cache()
    assert torch.openreg.mem_get_info(1)[0] == free and stats()["segment.all.current"] == 0
    """, env=EXPANDABLE)


def test_fragments_do_not_run_out_of_memory(python):
    """The reason for expandable segments: sizes that change leave pieces of segments behind, here of half a device."""
    code = """
    outcome = "fits"
    try:
        held = [block(8 * MIB) for _ in range(12)]      # 96 of 128 MiB
        kept = held[::3]
        del held                                        # 32 MiB in use, pieces of 16 MiB between
        large = block(60 * MIB).fill_(1)
        assert large[-1].item() == 1
    except torch.OutOfMemoryError:
        outcome = "out of memory"
    print(outcome)
    """
    memory = {"OPENREG_MEMORY": "128MiB"}
    segments = {"OPENREG_ALLOC_CONF": "large_segment_size_mb:20"}
    assert python(START, code, env=memory | segments).stdout == "out of memory\n"
    assert python(START, code, env=memory | EXPANDABLE).stdout == "fits\n"


def test_streams_and_pools_have_segments_of_their_own(python):
    python(START, """
    stream = torch.openreg.Stream(1)
    one = block(4 * MIB)
    with torch.openreg.stream(stream):
        two = block(4 * MIB)
    with torch.openreg.device(1):
        pool = torch.openreg.MemPool()
        whole = torch.openreg.MemPool(no_split=True)
    with torch.openreg.use_mem_pool(pool, 1):
        three = block(4 * MIB)
    with torch.openreg.use_mem_pool(whole, 1):
        four = block(4 * MIB)               # no_split asks for a segment per block
    assert stats()["segment.all.current"] == 4
    assert stats()["reserved_bytes.all.current"] == 16 * MIB
    del one, two, three, four, pool, whole
    torch.openreg.empty_cache()
    assert stats()["reserved_bytes.all.current"] == 0
    """, env=EXPANDABLE)


@pytest.mark.parametrize("schedule", ["lazy", "random:4"])
def test_queued_work_finishes_before_its_pages_go(python, schedule):
    python(START, """
    for step in range(20):
        source = torch.full((MIB,), step, device="openreg:1")
        result = source + 1
        del source
        torch.openreg.empty_cache()
        other = torch.zeros(MIB, device="openreg:1")
        assert result.eq(step + 1).all().item()
    """, env=EXPANDABLE | {"OPENREG_SCHEDULE": schedule})


def test_the_last_bytes_of_a_device_can_be_used(python):
    python(START, """
    kept = []
    try:
        while True:
            kept.append(block(2 * MIB))
    except torch.OutOfMemoryError:
        pass
    assert len(kept) == 32 and torch.openreg.mem_get_info(1)[0] == 0
    assert stats()["num_ooms"] == 1 and stats()["num_alloc_retries"] == 1
    """, env=EXPANDABLE | {"OPENREG_MEMORY": "64MiB"})


def test_the_setting_may_change_at_any_time(python):
    python(START, """
    before = block(3 * MIB).fill_(1)
    torch.openreg.memory._set_allocator_settings("expandable_segments:True")
    during = block(30 * MIB).fill_(2)
    torch.openreg.memory._set_allocator_settings("expandable_segments:False")
    after = block(30 * MIB).fill_(3)
    assert before.eq(1).all().item() and during.eq(2).all().item() and after.eq(3).all().item()
    del before, during, after
    torch.openreg.empty_cache()
    assert stats()["reserved_bytes.all.current"] == 0
    """)


def test_a_driver_without_reservations_uses_segments(python):
    """The null driver has none of the (optional) entries."""
    from pathlib import Path

    import torch_openreg

    driver = Path(torch_openreg.__file__).parent / "lib" / "libopenreg_null.so"
    python(START, """
    parts = [block(3 * MIB, "openreg:0").fill_(number) for number in range(10)]
    assert stats("openreg:0")["reserved_bytes.all.current"] == 30 * MIB
    assert all(part.eq(number).all().item() for number, part in enumerate(parts))
    assert "does not know" in torch.openreg.list_gpu_processes(0)
    """, env=EXPANDABLE | {"OPENREG_DRIVER": str(driver)})
