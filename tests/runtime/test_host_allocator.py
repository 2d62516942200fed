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
    assert late.data_ptr() == address
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
            stats = torch.openreg.host_memory_stats()
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
        assert torch.openreg.host_memory_stats()["active_bytes"]["peak"] == 12288
        torch.accelerator.empty_host_cache()
        check(0, 0, 0, 0, 2, 2)
        """
    )


def test_emptying_the_host_cache_keeps_blocks_in_use():
    torch.empty(1, device="openreg")  # torch empties no host cache before its first tensor on the device
    kept = pinned(300_000, 6.0)
    freed = pinned(300_001)
    before = torch.openreg.host_memory_stats()["allocated_bytes"]["current"]
    del freed
    torch.accelerator.empty_host_cache()
    assert torch.openreg.host_memory_stats()["allocated_bytes"]["current"] < before
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


def test_pinned_tensors_that_outlive_the_interpreter_are_dropped_in_silence(python):
    result = python(
        """
        import builtins, torch, torch_openreg
        builtins.kept = torch.ones(1000).pin_memory()
        builtins.copied = builtins.kept.to("openreg:1", non_blocking=True)
        """
    )
    assert result.stderr == ""
