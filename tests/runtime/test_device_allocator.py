"""The caching device allocator: which addresses come back when, what a full device does, and statistics that add up.

Where a test needs a small device, another schedule or counters that start at zero, it runs a process of its own.
Needs torch with torch_openreg installed.
"""


import pytest
import torch
import torch_openreg  # noqa: F401

KIB, MIB = 2**10, 2**20
SLEEP = 300_000_000  # device cycles, one nanosecond each: longer than any host code below takes


def block(size_bytes, device="openreg"):
    return torch.empty(size_bytes, dtype=torch.uint8, device=device)


def counters(device, *keys):
    stats = torch.openreg.memory_stats(device)
    return tuple(stats[key] for key in keys)


# ---- Reuse -----------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 512, 100 * KIB, MIB, 3 * MIB, 30 * MIB])
def test_a_freed_block_is_the_next_one_of_its_size_on_its_stream(device, size):
    kept = block(size, device)
    address = block(size, device).data_ptr()
    for _ in range(3):
        again = block(size, device)
        assert again.data_ptr() == address != kept.data_ptr()
        del again


def test_a_block_never_changes_streams(device):
    first, second = torch.openreg.Stream(device), torch.openreg.Stream(device)
    with torch.openreg.stream(first):
        freed_inside, freed_outside = block(5000, device), block(5000, device)
    addresses = {freed_inside.data_ptr(), freed_outside.data_ptr()}
    with torch.openreg.stream(first):
        del freed_inside
    with torch.openreg.stream(second):
        del freed_outside  # goes back to the stream on which it was allocated
        other = [block(5000, device) for _ in range(4)]
    assert addresses.isdisjoint(tensor.data_ptr() for tensor in other)
    with torch.openreg.stream(first):
        again = [block(5000, device) for _ in range(2)]
    assert {tensor.data_ptr() for tensor in again} == addresses


def test_addresses_are_aligned_and_blocks_do_not_overlap(device):
    sizes = [1, 511, 512, 513, 5000, 99_999, MIB - 1, MIB, MIB + 1, 3 * MIB + 7, 12 * MIB + 1]
    tensors = [block(size, device) for size in sizes for _ in range(3)]
    ranges = sorted((tensor.data_ptr(), tensor.numel()) for tensor in tensors)
    assert all(address % 512 == 0 for address, _ in ranges)
    assert all(low + size <= high for (low, size), (high, _) in zip(ranges, ranges[1:]))


def test_ten_thousand_small_tensors_live_at_once(device):
    tensors = [torch.full((16,), number, device=device) for number in range(10_000)]
    assert len({tensor.data_ptr() for tensor in tensors}) == 10_000
    assert torch.stack(tensors)[:, 0].tolist() == list(range(10_000))


def test_small_blocks_split_a_segment_and_merge_again(python):
    python(
        """
        import torch, torch_openreg
        MIB = 2**20
        for device in ("openreg:1", "openreg:0"):
            pieces = [torch.empty(512, dtype=torch.uint8, device=device) for _ in range(4096)]
            segment = {piece.data_ptr() for piece in pieces}
            assert max(segment) - min(segment) == 2 * MIB - 512
            assert torch.openreg.memory_stats(device)["segment.all.current"] == 1
            del pieces[::2]
            stats = torch.openreg.memory_stats(device)
            assert stats["inactive_split.all.current"] == 2048
            assert stats["inactive_split_bytes.all.current"] == MIB
            double = torch.empty(1024, dtype=torch.uint8, device=device)  # no two neighbours are free
            assert double.data_ptr() not in segment
            del pieces, double
            stats = torch.openreg.memory_stats(device)
            assert stats["inactive_split.all.current"] == 0 and stats["segment.all.current"] == 2
            halves = [torch.empty(MIB, dtype=torch.uint8, device=device) for _ in range(4)]
            assert torch.openreg.memory_stats(device)["segment.all.current"] == 2
        """
    )


def test_large_blocks_split_a_segment_and_merge_again(python):
    python(
        """
        import torch, torch_openreg
        MIB = 2**20
        for device in ("openreg:1", "openreg:0"):
            parts = [torch.empty(5 * MIB, dtype=torch.uint8, device=device) for _ in range(4)]
            base = parts[0].data_ptr()
            assert [part.data_ptr() - base for part in parts] == [0, 5 * MIB, 10 * MIB, 15 * MIB]
            del parts[1:3]
            middle = torch.empty(9 * MIB, dtype=torch.uint8, device=device)  # fits into the two merged ones
            assert middle.data_ptr() == base + 5 * MIB
            stats = torch.openreg.memory_stats(device)
            assert stats["segment.large_pool.current"] == 1 and stats["segment.small_pool.current"] == 0
            assert stats["reserved_bytes.all.current"] == 20 * MIB
            # The mebibyte that is left joins the middle when it is free again.
            assert stats["allocated_bytes.all.current"] == 19 * MIB and stats["inactive_split_bytes.all.current"] == MIB
            del middle
            stats = torch.openreg.memory_stats(device)
            assert stats["inactive_split.all.current"] == 1 and stats["inactive_split_bytes.all.current"] == 10 * MIB
        """,
        env={"OPENREG_ALLOC_CONF": "large_segment_size_mb:20"},
    )


# ---- Other streams ---------------------------------------------------------


def test_record_stream_keeps_a_block_until_the_other_stream_is_done(device):
    size = 70_000
    side = torch.openreg.Stream(device)
    with torch.openreg.device(device):
        torch.openreg.synchronize()
        used = block(size, device)
        address = used.data_ptr()
        with torch.openreg.stream(side):
            torch.openreg._sleep(SLEEP)
        used.record_stream(side)
        active = torch.openreg.memory_stats(device)["active.all.current"]
        allocated = torch.openreg.memory_stats(device)["allocation.all.current"]
        del used
        assert counters(device, "active.all.current", "allocation.all.current") == (active, allocated - 1)
        early = block(size, device)
        assert early.data_ptr() != address
        side.synchronize()
        late = block(size, device)
        assert late.data_ptr() == address


def test_record_stream_waits_for_streams_of_other_devices(device):
    size = 90_000
    other = torch.device("openreg", 1 - device.index)
    torch.openreg.synchronize(device)
    used = block(size, device)
    address = used.data_ptr()
    with torch.openreg.device(other):
        torch.openreg._sleep(SLEEP)
    used.record_stream(torch.openreg.current_stream(other))
    del used
    early = block(size, device)
    assert early.data_ptr() != address
    torch.openreg.synchronize(other)
    late = block(size, device)
    assert late.data_ptr() == address


def test_a_block_waits_for_every_stream_that_used_it(device):
    size = 110_000
    torch.openreg.synchronize(device)
    quick, slow = torch.openreg.Stream(device), torch.openreg.Stream(device)
    used = block(size, device)
    address = used.data_ptr()
    with torch.openreg.stream(slow):
        torch.openreg._sleep(SLEEP)
    for stream in (quick, slow, quick):
        used.record_stream(stream)
    del used
    quick.synchronize()  # under a random schedule this may run the slow stream too
    early = block(size, device)
    assert early.data_ptr() != address or slow.query()
    slow.synchronize()
    late = block(size, device)
    assert address in (early.data_ptr(), late.data_ptr())


def test_record_stream_on_the_blocks_own_stream_defers_nothing(device):
    with torch.openreg.device(device):
        torch.openreg._sleep(SLEEP // 10)
        used = block(130_000, device)
        address = used.data_ptr()
        used.record_stream(torch.openreg.current_stream(device))
        del used
        assert block(130_000, device).data_ptr() == address
        torch.openreg.synchronize()


def test_record_stream_accepts_views_and_empty_tensors(device):
    side = torch.openreg.Stream(device)
    torch.empty(0, device=device).record_stream(side)
    torch.openreg.synchronize(device)
    base = block(150_000, device)
    address = base.data_ptr()
    with torch.openreg.stream(side):
        torch.openreg._sleep(SLEEP)
    base[1000:].record_stream(side)
    del base
    early = block(150_000, device)
    assert early.data_ptr() != address
    side.synchronize()


OTHER_STREAM_READS = """
import os, torch, torch_openreg
recorded = os.environ["USE"] == "recorded"
for device in ("openreg:1", "openreg:0"):
    main, side = torch.openreg.current_stream(device), torch.openreg.Stream(device)
    source = torch.ones(3000, device=device)
    torch.openreg.synchronize(device)
    address = source.data_ptr()
    with torch.openreg.stream(side):
        copied = source.clone()
    if recorded:
        source.record_stream(side)
    del source
    overwritten = torch.full((3000,), 9.0, device=device)
    main.synchronize()
    torch.openreg.synchronize(device)
    wrong = copied.cpu().tolist() != [1.0] * 3000
    assert wrong == (not recorded), (device, overwritten.data_ptr() == address, copied[:3].tolist())
    if recorded:
        del overwritten
        again = [torch.empty(3000, device=device) for _ in range(2)]
        assert address in [tensor.data_ptr() for tensor in again]
"""


@pytest.mark.parametrize("use", ["recorded", "forgotten"])
def test_only_record_stream_protects_what_another_stream_reads(python, use):
    python(OTHER_STREAM_READS, env={"OPENREG_SCHEDULE": "lazy", "USE": use})


# ---- Limits ----------------------------------------------------------------


def test_a_full_device_says_what_was_tried_and_who_has_the_memory(python):
    python(
        """
        import torch, torch_openreg
        MIB = 2**20
        for device in ("openreg:1", "openreg:0"):
            kept = torch.empty(50 * MIB, dtype=torch.uint8, device=device)
            small = torch.empty(1000, device=device)
            before = torch.openreg.memory_stats(device)
            try:
                torch.empty(40 * MIB, dtype=torch.uint8, device=device)
            except torch.OutOfMemoryError as error:
                message = str(error)
            assert message.startswith("openreg out of memory. Tried to allocate 40.00 MiB. "), message
            for part in (
                f"Device {device} has a total capacity of 64.00 MiB of which 12.00 MiB is free.",
                "50.00 MiB is allocated by PyTorch",
                "2.00 MiB is reserved by PyTorch but unallocated",
            ):
                assert part in message, message
            after = torch.openreg.memory_stats(device)
            changed = {key for key in after if after[key] != before[key]}
            assert changed == {"num_alloc_retries", "num_ooms", "num_sync_all_streams"}, changed
            assert after["num_ooms"] == after["num_alloc_retries"] == 1
            fits = torch.empty(12 * MIB, dtype=torch.uint8, device=device)
            assert torch.openreg.mem_get_info(device) == (0, 64 * MIB)
            del kept, fits
            assert torch.empty(40 * MIB, dtype=torch.uint8, device=device).fill_(7).sum().item() == 7 * 40 * MIB
            torch.openreg.reset_accumulated_memory_stats(device)
            stats = torch.openreg.memory_stats(device)
            assert stats["num_ooms"] == stats["num_alloc_retries"] == 0
        """,
        env={"OPENREG_MEMORY": "64MiB"},
    )


@pytest.mark.parametrize("size", [2**40, 2**50, 2**60, 2**62])
def test_sizes_that_no_device_has_leave_everything_as_it_was(device, size):
    cached = block(3 * MIB, device)
    del cached
    before = torch.openreg.memory_stats(device)
    info = torch.openreg.mem_get_info(device)
    with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate"):
        block(size, device)
    after = torch.openreg.memory_stats(device)
    assert {key for key in after if after[key] != before[key]} == {"num_ooms"}
    assert torch.openreg.mem_get_info(device) == info


def test_the_cache_is_given_up_before_memory_counts_as_used_up(python):
    python(
        """
        import torch, torch_openreg
        MIB = 2**20
        for device in ("openreg:1", "openreg:0"):
            side = torch.openreg.Stream(device)
            with torch.openreg.stream(side):
                cached_elsewhere = torch.empty(30 * MIB, dtype=torch.uint8, device=device).fill_(1)
            cached = torch.empty(25 * MIB, dtype=torch.uint8, device=device).fill_(1)
            del cached, cached_elsewhere
            large = torch.empty(60 * MIB, dtype=torch.uint8, device=device)
            stats = torch.openreg.memory_stats(device)
            assert stats["num_alloc_retries"] == 1 and stats["num_ooms"] == 0
            assert stats["reserved_bytes.all.current"] == 60 * MIB
            assert stats["num_device_alloc"] == 3 and stats["num_device_free"] == 2
        """,
        env={"OPENREG_MEMORY": "64MiB"},
    )


@pytest.mark.parametrize("schedule", ["eager", "lazy", "random:5"])
def test_a_full_device_waits_for_blocks_that_other_streams_still_use(python, schedule):
    python(
        """
        import torch, torch_openreg
        MIB = 2**20
        for device, other in (("openreg:1", "openreg:0"), ("openreg:0", "openreg:1")):
            side = torch.openreg.Stream(device)
            used = torch.ones(30 * MIB, dtype=torch.uint8, device=device)
            far = torch.ones(10 * MIB, dtype=torch.uint8, device=device)
            torch.openreg.synchronize(device)
            with torch.openreg.stream(side):
                torch.openreg._sleep(50_000_000)
                total = used.sum()
            with torch.openreg.device(other):
                torch.openreg._sleep(50_000_000)
            used.record_stream(side)
            far.record_stream(torch.openreg.current_stream(other))
            del used, far
            large = torch.full((60 * MIB,), 3, dtype=torch.uint8, device=device)
            stats = torch.openreg.memory_stats(device)
            assert stats["num_alloc_retries"] == 1 and stats["num_ooms"] == 0
            assert total.item() == 30 * MIB and large.sum().item() == 180 * MIB
            assert stats["active_bytes.large_pool.current"] == 60 * MIB
        """,
        env={"OPENREG_MEMORY": "64MiB", "OPENREG_SCHEDULE": schedule},
    )


def test_the_last_bytes_of_a_device_can_be_used(python):
    python(
        """
        import torch, torch_openreg
        MIB = 2**20
        kept = []
        try:
            while True:
                kept.append(torch.empty(3 * MIB, dtype=torch.uint8, device="openreg"))
        except torch.OutOfMemoryError:
            pass
        # Three segments of 20 MiB with six blocks each, and one of 3 MiB, the last that fits.
        assert len(kept) == 19 and torch.openreg.mem_get_info()[0] == MIB
        """,
        env={"OPENREG_MEMORY": "64MiB", "OPENREG_ALLOC_CONF": "large_segment_size_mb:20"},
    )


# ---- Statistics ------------------------------------------------------------


def test_every_counter_is_exact_after_a_known_sequence(python):
    python(
        """
        import torch, torch_openreg
        MIB = 2**20

        def nonzero():
            torch.openreg.init()
            return {key: value for key, value in torch.openreg.memory_stats("openreg:1").items()
                    if value and key != "max_split_size"}

        def stat(name, pool, current, peak=None, allocated=None):
            peak = current if peak is None else peak
            allocated = peak if allocated is None else allocated
            values = {"current": current, "peak": peak, "allocated": allocated, "freed": allocated - current}
            return {f"{name}.{pool}.{kind}": value for kind, value in values.items() if value}

        assert nonzero() == {}
        small = torch.empty(1000, dtype=torch.uint8, device="openreg:1")
        expected = {"num_device_alloc": 1}
        for pool in ("all", "small_pool"):
            expected |= stat("allocation", pool, 1) | stat("active", pool, 1) | stat("segment", pool, 1)
            expected |= stat("allocated_bytes", pool, 1024) | stat("active_bytes", pool, 1024)
            expected |= stat("requested_bytes", pool, 1000) | stat("reserved_bytes", pool, 2 * MIB)
            expected |= stat("inactive_split", pool, 1) | stat("inactive_split_bytes", pool, 2 * MIB - 1024)
        assert nonzero() == expected

        large = torch.empty(12 * MIB + 1, dtype=torch.uint8, device="openreg:1")
        rounded = 14 * MIB  # the rest of the segment is more than a small block: it is split off
        block = 12 * MIB + 512
        stats = nonzero()
        for key, value in (
            stat("allocated_bytes", "large_pool", block) | stat("requested_bytes", "large_pool", 12 * MIB + 1)
            | stat("reserved_bytes", "large_pool", rounded) | stat("reserved_bytes", "all", rounded + 2 * MIB)
            | stat("inactive_split_bytes", "large_pool", rounded - block)
            | stat("segment", "all", 2) | stat("allocation", "all", 2)
        ).items():
            assert stats[key] == value, (key, stats[key], value)

        del large, small
        stats = nonzero()
        for name, peak in (("allocation", 2), ("active", 2), ("allocated_bytes", block + 1024),
                           ("active_bytes", block + 1024), ("requested_bytes", 12 * MIB + 1001)):
            for key, value in stat(name, "all", 0, peak).items():
                assert stats[key] == value, (key, stats[key], value)
            assert f"{name}.all.current" not in stats
        torch.openreg.empty_cache()
        torch.openreg.reset_peak_memory_stats("openreg:1")
        torch.openreg.reset_accumulated_memory_stats("openreg:1")
        assert nonzero() == {}
        assert all(not value for key, value in torch.openreg.memory_stats("openreg:0").items() if key != "max_split_size")
        """
    )


@pytest.mark.unsanitized("bounds", reason="guard zones make blocks larger than requested")
def test_peaks_follow_the_maximum_and_a_reset_starts_from_now(device):
    base = torch.openreg.memory_allocated(device)
    kept = block(MIB, device)
    torch.openreg.reset_peak_memory_stats(device)
    assert torch.openreg.max_memory_allocated(device) == base + MIB
    first = block(4 * MIB, device)
    del first
    second = block(2 * MIB, device)
    del second
    assert torch.openreg.max_memory_allocated(device) == base + 5 * MIB
    del kept
    assert torch.openreg.max_memory_allocated(device) == base + 5 * MIB
    torch.openreg.reset_peak_memory_stats(device)
    assert torch.openreg.max_memory_allocated(device) == base


def test_empty_cache_gives_back_whole_segments_only(python):
    python(
        """
        import torch, torch_openreg
        MIB = 2**20
        for device in ("openreg:1", "openreg:0"):
            start = torch.openreg.mem_get_info(device)[0]
            keeper = torch.full((10,), 5.0, device=device)  # holds one small segment
            pieces = [torch.empty(MIB, dtype=torch.uint8, device=device) for _ in range(6)]
            large = torch.empty(30 * MIB, dtype=torch.uint8, device=device).fill_(1)
            side = torch.openreg.Stream(device)
            with torch.openreg.stream(side):
                torch.ones(3 * MIB, dtype=torch.uint8, device=device)
            assert start - torch.openreg.mem_get_info(device)[0] == torch.openreg.memory_reserved(device)
            del pieces, large
            torch.openreg.empty_cache()
            assert torch.openreg.memory_reserved(device) == 2 * MIB
            assert torch.openreg.mem_get_info(device)[0] == start - 2 * MIB
            assert keeper.sum().item() == 50
            del keeper
            torch.openreg.empty_cache()
            assert torch.openreg.mem_get_info(device)[0] == start
            assert torch.openreg.memory_stats(device)["segment.all.current"] == 0
        """
    )


@pytest.mark.parametrize("schedule", ["eager", "lazy", "random:2"])
def test_empty_cache_lets_queued_work_finish_first(python, schedule):
    python(
        """
        import torch, torch_openreg
        device = torch.device("openreg:1")
        for step in range(20):
            source = torch.full((200_000,), step, device=device, dtype=torch.int64)
            result = source + 1
            del source  # its block is free and has queued work
            torch.openreg.empty_cache()
            other = torch.zeros(200_000, device=device, dtype=torch.int64)
            assert result.eq(step + 1).all().item()
            del result, other
        """,
        env={"OPENREG_SCHEDULE": schedule},
    )


def test_memory_belongs_to_the_device_that_was_asked_not_to_the_current_one(device):
    other = 1 - device.index
    with torch.openreg.device(other):
        before = counters(device, "requested_bytes.all.current", "allocation.all.current")
        elsewhere = torch.openreg.memory_stats(other)
        kept = block(12345, device)
        storage = torch.UntypedStorage(777, device=device)
        assert kept.device == storage.device == device
        requested, count = counters(device, "requested_bytes.all.current", "allocation.all.current")
        assert (requested - before[0], count - before[1]) == (12345 + 777, 2)
        assert torch.openreg.memory_stats(other) == elsewhere
        storage.resize_(999)
        assert storage.device == device
        assert counters(device, "requested_bytes.all.current")[0] - before[0] == 12345 + 999
        del kept, storage
        assert counters(device, "requested_bytes.all.current", "allocation.all.current") == before


def test_a_device_that_does_not_exist_has_no_memory():
    count = torch.openreg.device_count()
    for index in (count, 99):
        with pytest.raises(RuntimeError, match=f"openreg:{index} does not exist"):
            torch._C._accelerator_getDeviceStats(index)
        with pytest.raises(RuntimeError, match=f"openreg:{index} does not exist"):
            block(1, f"openreg:{index}")


@pytest.mark.unsanitized("bounds", reason="guard zones make blocks larger than requested")
def test_the_profiler_sees_allocations_and_frees(device):
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        tensor = block(5 * MIB, device)
        del tensor
    sizes = [event.nbytes() for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    assert 5 * MIB in sizes and -5 * MIB in sizes
