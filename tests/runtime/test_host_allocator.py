"""Pinned host memory: when a block comes back, what counts as pinned, and counters that add up.

Needs torch with torch_openreg installed. Core's allocator rounds pinned blocks up to a power of two and never splits them.
"""

import threading

import pytest
import torch
import torch_openreg  # noqa: F401

SLEEP = 300_000_000  # device cycles, one nanosecond each: longer than any host code below takes


def pinned(count, value=0.0):
    return torch.full((count,), value, pin_memory=True)


def test_a_freed_block_comes_back_at_once_when_no_stream_used_it():
    kept = pinned(5000)
    address = pinned(5000).data_ptr()
    for _ in range(3):
        again = pinned(5000)
        assert again.data_ptr() == address != kept.data_ptr()
        del again


def test_a_block_waits_for_the_copy_that_reads_it(device):
    count = 70_001
    with torch.openreg.device(device):
        torch.openreg._sleep(SLEEP)
        source = pinned(count, 3.0)
        address = source.data_ptr()
        copied = source.to(device, non_blocking=True)
        del source
        early = pinned(count, 9.0)
        assert early.data_ptr() != address
        torch.openreg.synchronize()
        late = pinned(count, 9.0)
        assert late.data_ptr() == address
        assert copied.eq(3).all().item()


def test_a_block_waits_for_the_copy_that_writes_it(device):
    count = 80_001
    with torch.openreg.device(device):
        source = torch.full((count,), 4.0, device=device)
        torch.openreg._sleep(SLEEP)
        target = source.to("cpu", non_blocking=True)
        assert target.is_pinned()
        address = target.data_ptr()
        del target
        other = pinned(count, 1.0)
        assert other.data_ptr() != address
        torch.openreg.synchronize()
        assert other.eq(1).all()


def test_a_block_waits_for_every_stream_that_used_it(device):
    count = 90_001
    other = torch.device("openreg", 1 - device.index)
    source = pinned(count, 2.0)
    address = source.data_ptr()
    quick = source.to(other, non_blocking=True)
    with torch.openreg.device(device):
        torch.openreg._sleep(SLEEP)
    slow = source.to(device, non_blocking=True)
    del source
    torch.openreg.synchronize(other)  # under a random schedule this may run the slow device too
    early = pinned(count)
    assert early.data_ptr() != address or torch.openreg.current_stream(device).query()
    torch.openreg.synchronize(device)
    late = pinned(count)
    assert address in (early.data_ptr(), late.data_ptr())
    assert quick.eq(2).all().item() and slow.eq(2).all().item()


def test_lazy_copies_read_what_the_block_held(python):
    python(
        """
        import torch, torch_openreg
        for device in ("openreg:1", "openreg:0"):
            copies = []
            for number in range(50):
                source = torch.full((4096,), float(number), pin_memory=True)
                copies.append(source.to(device, non_blocking=True))
                del source
            for number, copied in enumerate(copies):
                assert copied.eq(number).all().item(), (device, number)
        """,
        env={"OPENREG_SCHEDULE": "lazy"},
    )


def test_pinned_is_a_property_of_the_memory(device):
    base = torch.arange(1000.0).pin_memory()
    assert base.is_pinned() and base[500:].is_pinned() and base.view(10, 100).t().is_pinned()
    assert base.untyped_storage().is_pinned()
    assert base.pin_memory() is base
    assert not base.clone().is_pinned() and not torch.ones(3).is_pinned()
    assert not torch.ones(3, device=device).is_pinned()
    assert torch.equal(base, torch.arange(1000.0))
    assert torch.zeros(0).pin_memory().shape == (0,)


def test_asking_whether_memory_is_pinned_starts_no_device(python):
    python(
        """
        import torch, torch_openreg
        assert not torch.ones(3).is_pinned()
        assert not torch.openreg.is_initialized()
        """
    )


def test_every_counter_is_exact_after_a_known_sequence(python):
    python(
        """
        import torch, torch_openreg
        torch.empty(1, device="openreg")  # torch empties no host cache before its first tensor on the device

        def check(allocations, allocated_bytes, active, active_bytes, made, given_back):
            stats = torch.openreg.memory.host_memory_stats_as_nested_dict()
            seen = [stats[name]["current"] for name in ("allocations", "allocated_bytes", "active_requests", "active_bytes")]
            assert seen == [allocations, allocated_bytes, active, active_bytes], stats
            assert [stats["num_host_alloc"], stats["num_host_free"]] == [made, given_back], stats

        check(0, 0, 0, 0, 0, 0)
        first = torch.empty(1000, pin_memory=True)
        check(1, 4096, 1, 4096, 1, 0)
        second = torch.empty(1025, pin_memory=True)
        check(2, 12288, 2, 12288, 2, 0)
        del first
        check(2, 12288, 1, 8192, 2, 0)
        again = torch.empty(1024, pin_memory=True)
        check(2, 12288, 2, 12288, 2, 0)
        del again, second
        assert torch.openreg.memory.host_memory_stats_as_nested_dict()["active_bytes"]["peak"] == 12288
        torch.accelerator.empty_host_cache()
        check(0, 0, 0, 0, 2, 2)
        """
    )


def test_flat_and_nested_statistics_agree_and_can_be_reset(python):
    python(
        """
        import torch, torch_openreg
        assert torch.openreg.host_memory_stats() == {}
        torch.empty(1, device="openreg")
        kept = torch.empty(1000, pin_memory=True)
        torch.empty(3000, pin_memory=True)
        flat = torch.openreg.host_memory_stats()
        nested = torch.openreg.memory.host_memory_stats_as_nested_dict()
        assert flat["allocated_bytes.current"] == nested["allocated_bytes"]["current"] == 4096 + 16384
        assert flat["active_bytes.peak"] == 4096 + 16384 and flat["active_bytes.current"] == 4096
        assert flat["num_host_alloc"] == flat["host_alloc_time.count"] == 2
        torch.openreg.reset_peak_host_memory_stats()
        torch.openreg.reset_accumulated_host_memory_stats()
        flat = torch.openreg.host_memory_stats()
        assert flat["active_bytes.peak"] == flat["active_bytes.current"] == 4096
        assert flat["active_bytes.allocated"] == 0
        """
    )


@pytest.mark.parametrize("variable", ["OPENREG_ALLOC_CONF", "PYTORCH_ALLOC_CONF"])
def test_the_settings_of_pinned_memory_count(python, variable):
    python(
        """
        import torch, torch_openreg
        torch.openreg.init()
        kept = torch.empty((1 << 20) + 100, dtype=torch.uint8, pin_memory=True)
        stats = torch.openreg.host_memory_stats()
        assert stats["allocated_bytes.current"] == (1 << 20) + 100, stats   # not rounded up
        small = torch.empty(1000, dtype=torch.uint8, pin_memory=True)
        assert torch.openreg.host_memory_stats()["allocated_bytes.current"] == (1 << 20) + 100 + 1024
        copies = [torch.full((1000,), float(number)).pin_memory().to("openreg", non_blocking=True) for number in range(50)]
        assert all(copied.eq(number).all().item() for number, copied in enumerate(copies))
        """,
        env={variable: "pinned_max_round_threshold_mb:1,pinned_use_background_threads:True"},
    )


def test_copies_of_pinned_memory_run_while_the_program_goes_on(python):
    """Under the lazy schedule a copy runs at the synchronize, so what the host did before it shows."""
    python(
        """
        import torch, torch_openreg
        for device in ("openreg:1", "openreg:0"):
            source = torch.zeros(1000).pin_memory()
            copied = source.to(device, non_blocking=True)
            waited = source.to(device)                      # without non_blocking the values are taken at the call
            source.fill_(7)
            plain = torch.ones(1000)
            taken = plain.to(device, non_blocking=True)     # pageable memory is staged
            plain.fill_(7)
            torch.openreg.synchronize(device)
            assert waited.eq(0).all().item() and taken.eq(1).all().item()
            source.fill_(1)
            torch.openreg.synchronize(device)

            source = torch.zeros(1000).pin_memory()
            torch.openreg.synchronize(device)
            late = source.to(device, non_blocking=True)
            source.fill_(7)
            torch.openreg.synchronize(device)
            assert late.eq(7).all().item(), "the copy ran before the synchronize"

            back = torch.zeros(1000).pin_memory()
            ready = torch.openreg.Event()
            back.copy_(late, non_blocking=True)
            ready.record(torch.openreg.current_stream(device))
            assert back.eq(0).all(), "the copy ran before the synchronize"
            ready.synchronize()
            assert back.eq(7).all()
        """,
        env={"OPENREG_SCHEDULE": "lazy"},
    )


def test_emptying_the_host_cache_keeps_blocks_in_use():
    torch.empty(1, device="openreg")  # torch empties no host cache before its first tensor on the device
    kept = pinned(300_000, 6.0)
    freed = pinned(300_001)
    before = torch.openreg.memory.host_memory_stats_as_nested_dict()["allocated_bytes"]["current"]
    del freed
    torch.accelerator.empty_host_cache()
    assert torch.openreg.memory.host_memory_stats_as_nested_dict()["allocated_bytes"]["current"] < before
    assert kept.is_pinned() and kept.eq(6).all()


@pytest.mark.parametrize("schedule", ["eager", "lazy"])
def test_threads_share_pinned_memory(python, schedule):
    python(
        """
        import threading, torch, torch_openreg
        failures = []

        def work(seed):
            try:
                copies = []
                for number in range(100):
                    source = torch.full((1000 + number,), float(seed * 1000 + number), pin_memory=True)
                    copies.append(source.to(f"openreg:{number % 2}", non_blocking=True))
                    del source
                for number, copied in enumerate(copies):
                    if not copied.eq(seed * 1000 + number).all().item():
                        failures.append((seed, number))
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == [], failures
        """,
        env={"OPENREG_SCHEDULE": schedule},
    )


def test_a_block_may_be_freed_on_another_thread():
    held = [pinned(6000)]
    address = held[0].data_ptr()
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert pinned(6000).data_ptr() == address


@pytest.mark.parametrize("workers", [0, 2])
def test_data_loaders_pin_their_batches(device, workers):
    data = torch.utils.data.TensorDataset(torch.arange(40.0), torch.arange(40))
    loader = torch.utils.data.DataLoader(data, batch_size=8, pin_memory=True, num_workers=workers)
    with torch.openreg.device(device):
        for number, (values, labels) in enumerate(loader):
            assert values.is_pinned() and labels.is_pinned()
            expected = list(range(8 * number, 8 * number + 8))
            assert values.to(device, non_blocking=True).tolist() == labels.to(device, non_blocking=True).tolist() == expected
    assert number == 4


def test_pinned_tensors_that_outlive_the_interpreter_are_dropped_in_silence(python):
    result = python(
        """
        import builtins, torch, torch_openreg
        builtins.kept = torch.ones(1000).pin_memory()
        builtins.copied = builtins.kept.to("openreg:1", non_blocking=True)
        """
    )
    assert result.stderr == ""
