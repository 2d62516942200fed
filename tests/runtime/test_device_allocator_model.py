"""The device allocator against a model: random allocations, frees, record_stream, flushes and failures on two devices
with three streams each, checked for overlaps, overwritten contents and sums that differ from the statistics.

A failure prints its seed; OPENREG_TEST_SEED=<seed> repeats it and OPENREG_TEST_STEPS=<n> makes a longer run. Needs torch with
torch_openreg installed.
"""

import bisect
import os
import random

import pytest
import torch
import torch_openreg  # noqa: F401

MIB = 2**20
STEPS = int(os.environ.get("OPENREG_TEST_STEPS", "4000"))
SEED = int(os.environ.get("OPENREG_TEST_SEED", random.SystemRandom().randrange(2**32)))


class Model:
    """What the allocator must report, kept by simple means: live ranges, sums, and what every block contains."""

    def __init__(self, device):
        self.device = device
        self.live = []  # (address, bytes, tensor, stream, tag), sorted by address
        self.base = self.read()
        self.free = torch.openreg.mem_get_info(device)[0]

    def read(self):
        stats = torch.openreg.memory_stats(self.device)
        names = ("allocation", "requested_bytes", "allocated_bytes", "active_bytes", "reserved_bytes", "inactive_split_bytes")
        return {f"{name}.{pool}": stats[f"{name}.{pool}.current"] for name in names for pool in ("all", "small_pool", "large_pool")}

    def allocate(self, rng, stream, tag):
        exponent = rng.choice([6, 9, 10, 13, 16, 19, 20, 21, 22])
        size = rng.randint(1, 2**exponent) if rng.random() < 0.7 else 2**exponent
        with torch.openreg.stream(stream):
            tensor = torch.full((size,), tag, dtype=torch.uint8, device=self.device)
        entry = (tensor.data_ptr(), size, tensor, stream, tag)
        place = bisect.bisect(self.live, entry[0], key=lambda item: item[0])
        if place:
            assert self.live[place - 1][0] + self.live[place - 1][1] <= entry[0], "overlaps the block below"
        if place < len(self.live):
            assert entry[0] + size <= self.live[place][0], "overlaps the block above"
        self.live.insert(place, entry)

    def free_one(self, rng, verify):
        address, size, tensor, stream, tag = self.live.pop(rng.randrange(len(self.live)))
        if verify:
            with torch.openreg.stream(stream):
                assert tensor.eq(tag).all().item(), f"the block at {address:#x} was overwritten"

    def check(self):
        now = {key: value - self.base[key] for key, value in self.read().items()}
        rounded = [(size, -(-size // 512) * 512) for _, size, *_ in self.live]
        small = [(size, block) for size, block in rounded if block <= MIB]
        large = [(size, block) for size, block in rounded if block > MIB]
        for pool, part in (("all", rounded), ("small_pool", small), ("large_pool", large)):
            assert now[f"allocation.{pool}"] == len(part)
            assert now[f"requested_bytes.{pool}"] == sum(size for size, _ in part)
        assert now["allocated_bytes.small_pool"] == sum(block for _, block in small)
        least = sum(block for _, block in large)
        assert least <= now["allocated_bytes.large_pool"] <= least + MIB * len(large)
        assert now["allocated_bytes.all"] <= now["active_bytes.all"] <= now["reserved_bytes.all"]
        assert now["active_bytes.all"] + now["inactive_split_bytes.all"] <= now["reserved_bytes.all"]
        assert self.free - torch.openreg.mem_get_info(self.device)[0] == now["reserved_bytes.all"]
        return now


def test_random_operations_agree_with_a_model():
    print(f"OPENREG_TEST_SEED={SEED} OPENREG_TEST_STEPS={STEPS}")
    rng = random.Random(SEED)
    torch.openreg.empty_cache()
    models = [Model(torch.device("openreg", index)) for index in (0, 1)]
    streams = [[torch.openreg.default_stream(index), *(torch.openreg.Stream(index) for _ in range(2))] for index in (0, 1)]
    for step in range(STEPS):
        index = rng.randrange(2)
        model = models[index]
        choice = rng.random()
        if not model.live or (choice < 0.45 and len(model.live) < 60):
            model.allocate(rng, rng.choice(streams[index]), step % 251)
        elif choice < 0.85:
            model.free_one(rng, verify=rng.random() < 0.2)
        elif choice < 0.93:
            rng.choice(model.live)[2].record_stream(rng.choice(streams[rng.randrange(2)]))
        elif choice < 0.95:
            torch.openreg.synchronize(index)
        elif choice < 0.96:
            torch.openreg.empty_cache()
        elif choice < 0.98:
            with pytest.raises(torch.OutOfMemoryError):
                torch.empty(2 * torch.openreg.mem_get_info(index)[1], dtype=torch.uint8, device=model.device)
        elif choice < 0.99:
            torch.openreg.reset_peak_memory_stats(index)
        if step % 5 == 0:
            model.check()
    for model in models:
        while model.live:
            model.free_one(rng, verify=True)
    for index in (0, 1):
        torch.openreg.synchronize(index)
    torch.openreg.empty_cache()
    for model in models:
        assert not any(model.check().values())
