"""The caching device allocator and its threads and processes: many threads on two devices, frees on other threads, flushes, forks, exit.

Needs torch with torch_openreg installed.
"""

import random
import threading
import time
from pathlib import Path

import torch
import torch_openreg  # noqa: F401


def block(size_bytes, device="openreg"):
    return torch.empty(size_bytes, dtype=torch.uint8, device=device)


def counters(device, *keys):
    stats = torch.openreg.memory_stats(device)
    return tuple(stats[key] for key in keys)



def test_eight_threads_share_two_devices():
    torch.openreg.init()  # statistics are there from the first use on
    before = [counters(index, "allocation.all.current", "requested_bytes.all.current") for index in (0, 1)]
    failures = []

    def work(seed):
        rng = random.Random(seed)
        try:
            streams = [torch.openreg.Stream(index) for index in (0, 1)]
            held = []
            for step in range(400):
                index = rng.randrange(2)
                with torch.openreg.stream(streams[index] if rng.random() < 0.5 else None):
                    count = rng.choice([3, 700, 40_000, 600_000])
                    tensor = torch.full((count,), seed, dtype=torch.int32, device=f"openreg:{index}")
                    if rng.random() < 0.2:
                        tensor.record_stream(streams[1 - index])
                    held.append((tensor, torch.openreg.current_stream(index)))
                if len(held) > 20:
                    tensor, stream = held.pop(rng.randrange(len(held)))
                    with torch.openreg.stream(stream):
                        if step % 10 == 0 and not tensor.eq(seed).all().item():
                            failures.append(f"seed {seed}, step {step}: another thread wrote into the tensor")
                if step % 150 == 0:
                    torch.openreg.empty_cache()
        except Exception as error:  # a thread's exception would be lost
            failures.append(f"seed {seed}: {error!r}")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for index in (0, 1):
        torch.openreg.synchronize(index)
    after = [counters(index, "allocation.all.current", "requested_bytes.all.current") for index in (0, 1)]
    assert after == before


def asleep(thread, looks=3):
    """Whether the thread sleeps in the system, several times in a row."""
    for _ in range(looks):
        stat = Path(f"/proc/self/task/{thread.native_id}/stat").read_text()
        if stat.rpartition(")")[2].split()[0] != "S":
            return False
        time.sleep(0.001)
    return True


def test_memory_that_somebody_used_during_a_flush_is_not_given_back(device):
    """A flush waits without the lock. What was used and freed meanwhile has work behind the wait, so it stays cached."""
    torch.openreg.empty_cache()
    stream, go = torch.openreg.Stream(device), threading.Event()
    with torch.openreg.stream(stream):
        used, unused = block(3 << 20, device), block(30 << 20, device)
        address = used.data_ptr()
        del used, unused
        (segments,), waits = counters(device.index, "segment.large_pool.current"), counters(device.index, "num_sync_all_streams")
        stream.launch_host_func(go.wait)
        thread = threading.Thread(target=torch.openreg.empty_cache)
        thread.start()
        try:
            while counters(device.index, "num_sync_all_streams") == waits or not asleep(thread):
                pass
            again = block(3 << 20, device)
            assert again.data_ptr() == address
            del again
        finally:
            go.set()
            thread.join()
        assert counters(device.index, "segment.large_pool.current") == (segments - 1,)
        assert block(3 << 20, device).data_ptr() == address
    torch.openreg.synchronize(device)
    torch.openreg.empty_cache()


def test_tensors_may_be_freed_on_another_thread(device):
    tensors = [block(4000, device) for _ in range(100)]
    addresses = {tensor.data_ptr() for tensor in tensors}
    thread = threading.Thread(target=tensors.clear)
    thread.start()
    thread.join()
    again = [block(4000, device) for _ in range(100)]
    assert {tensor.data_ptr() for tensor in again} == addresses


def test_a_forked_child_drops_its_parents_tensors_in_silence(python):
    result = python(
        """
        import os, torch, torch_openreg
        tensor = torch.ones(1000, device="openreg:1")
        torch.openreg.synchronize(1)
        child = os.fork()
        if child == 0:
            del tensor
            try:
                torch.empty(10, device="openreg:1")
            except RuntimeError as error:
                os._exit(0 if "fork" in str(error) else 2)
            os._exit(3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert tensor.sum().item() == 1000
        """
    )
    assert result.stderr == ""


def test_tensors_that_outlive_the_interpreter_are_dropped_in_silence(python):
    result = python(
        """
        import builtins, torch, torch_openreg
        builtins.kept = [torch.ones(1000, device=f"openreg:{index}") for index in (0, 1)]
        builtins.kept[0].record_stream(torch.openreg.Stream(1))
        """
    )
    assert result.stderr == ""
