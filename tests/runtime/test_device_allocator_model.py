"""The device allocator against a model: random allocations, frees, uses on other streams, events, flushes, failures, pools, limits and
settings on two small devices with three streams each.

The model keeps live ranges, ranges that another stream still reads, and ranges that belong to a private pool; it checks overlaps, contents,
and sums against the statistics. 10,000 steps run by default, over four kinds of process; a million run with
`OPENREG_TEST_STEPS=1000000 pytest tests/runtime/test_device_allocator_model.py`. Each run prints its seed; OPENREG_TEST_SEED=<seed> repeats
it. Needs torch with torch_openreg installed.
"""

import bisect
import os
import random
import sys
from pathlib import Path

import pytest

MIB = 2**20
STEPS = int(os.environ.get("OPENREG_TEST_STEPS", "10000"))
SEED = int(os.environ.get("OPENREG_TEST_SEED", random.SystemRandom().randrange(2**32)))
SETTINGS = ["", "expandable_segments:True", "max_split_size_mb:20", "roundup_power2_divisions:4", "garbage_collection_threshold:0.5",
            "expandable_segments:True,garbage_collection_threshold:0.3", "max_split_size_mb:24,max_non_split_rounding_mb:24"]
WAYS = [("eager", ""), ("lazy", ""), ("eager", "expandable_segments:True"), ("random:7", "expandable_segments:True")]


@pytest.mark.parametrize("schedule,settings", WAYS)
def test_random_operations_agree_with_a_model(python, schedule, settings):
    steps = STEPS // len(WAYS)
    print(f"OPENREG_TEST_SEED={SEED} OPENREG_TEST_STEPS={STEPS}")
    environment = {"OPENREG_MEMORY": "160MiB", "OPENREG_SCHEDULE": schedule, "OPENREG_ALLOC_CONF": settings}
    folder = str(Path(__file__).parent)
    result = python(
        f"""
        import sys; sys.path.insert(0, {folder!r})
        import test_device_allocator_model as model
        model.run({steps}, {SEED})
        """,
        env=environment,
        timeout=120 + steps // 50,
    )
    assert result.stdout.startswith(f"{steps} steps: "), result.stdout


class Model:
    """What the allocator must say about one device, kept by simple means."""

    def __init__(self, torch, index):
        self.torch, self.index = torch, index
        self.device = torch.device("openreg", index)
        self.streams = [torch.openreg.default_stream(index), *(torch.openreg.Stream(index) for _ in range(2))]
        self.live = []  # (address, size, tensor, stream, tag, pool id), sorted by address
        self.uses = {}  # address -> what other streams found in the block, and events behind that
        self.read_elsewhere = []  # (address, end, events): freed, but not before the events
        self.pools = []  # private pools
        self.cached = []  # (address, end, pool): freed into a private pool that lives
        self.uncached = set()  # addresses of live blocks from a time without caching
        self.failures = 0

    def stats(self):
        return self.torch.openreg.memory_stats(self.device)

    def limit(self):
        total = self.torch.openreg.mem_get_info(self.device)[1]
        return self.torch.openreg.get_per_process_memory_fraction(self.device) * total

    def allocate(self, rng, tag):
        from torch_openreg import _C

        torch = self.torch
        exponent = rng.choice([6, 9, 10, 13, 16, 19, 20, 21, 22, 23, 24])
        size = rng.randint(1, 2**exponent) if rng.random() < 0.7 else 2**exponent
        stream = rng.choice(self.streams)
        pool = rng.choice(self.pools) if self.pools and rng.random() < 0.3 else None
        reserved = torch.openreg.memory_reserved(self.device)
        try:
            with torch.openreg.stream(stream):
                if pool is None:
                    tensor = torch.empty(size, dtype=torch.uint8, device=self.device)
                else:
                    with torch.openreg.use_mem_pool(pool, self.device):
                        tensor = torch.empty(size, dtype=torch.uint8, device=self.device)
        except torch.OutOfMemoryError:
            self.failures += 1
            free = torch.openreg.mem_get_info(self.device)[0]
            room = min(free, self.limit() - torch.openreg.memory_reserved(self.device))
            assert room < -(-size // (2 * MIB)) * 2 * MIB, f"{size} bytes were refused with {room} left"
            return
        after = torch.openreg.memory_reserved(self.device)
        assert after <= max(reserved, self.limit()), "the memory fraction was passed"
        self.place(tensor.data_ptr(), size, pool)
        if not _C.memory_caching():
            self.uncached.add(tensor.data_ptr())
        with torch.openreg.stream(stream):
            (tensor if size <= 65536 else tensor[-64:]).fill_(tag)  # a large block has queued work too
        bisect.insort(self.live, (tensor.data_ptr(), size, tensor, stream, tag, pool and pool.id), key=lambda entry: entry[0])

    def place(self, address, size, pool):
        """The new block overlaps nothing that is in use by anybody."""
        place = bisect.bisect(self.live, address, key=lambda entry: entry[0])
        if place:
            assert self.live[place - 1][0] + self.live[place - 1][1] <= address, "overlaps the block below"
        if place < len(self.live):
            assert address + size <= self.live[place][0], "overlaps the block above"
        kept = []
        for begin, end, events in self.read_elsewhere:
            if begin < address + size and address < end:
                assert all(event.query() for event in events), "handed out while another stream still reads it"
            else:
                kept.append((begin, end, events))
        self.read_elsewhere = kept
        kept = []
        for begin, end, owner in self.cached:
            if begin < address + size and address < end:
                assert pool is not None and owner == pool.id, "handed out from another pool"
            else:
                kept.append((begin, end, owner))
        self.cached = kept

    def use_elsewhere(self, rng):
        """Another stream reads the block; the result must be right whatever happens to the block afterwards."""
        torch = self.torch
        address, size, tensor, stream, tag, _ = rng.choice(self.live)
        other = rng.choice(self.streams)
        if size > 65536 or other == stream:
            tensor.record_stream(other)
            return
        other.wait_stream(stream)
        with torch.openreg.stream(other):
            found = self.compare(tensor, tag)
            if found is None:
                return
            event = torch.openreg.Event()
            event.record(other)
        tensor.record_stream(other)
        self.uses.setdefault(address, []).append((found, event))

    def compare(self, tensor, tag):
        """Whether the block has its contents, as a tensor; None when there is no memory for that."""
        try:
            return tensor.eq(tag).all()
        except self.torch.OutOfMemoryError:
            return None

    def free_one(self, rng, verify):
        address, size, tensor, stream, tag, pool = self.live.pop(rng.randrange(len(self.live)))
        if verify and size <= 65536:
            with self.torch.openreg.stream(stream):
                same = self.compare(tensor, tag)
                assert same is None or same.item(), f"the block at {address:#x} was overwritten"
        uses = self.uses.pop(address, [])
        if uses:
            self.read_elsewhere.append((address, address + size, [event for _, event in uses]))
        del tensor
        if address in self.uncached:
            self.uncached.remove(address)
        elif pool is not None and any(pool == one.id for one in self.pools):
            self.cached.append((address, address + size, pool))
        return uses

    def drop_pool(self, rng):
        pool = self.pools.pop(rng.randrange(len(self.pools)))
        self.cached = [entry for entry in self.cached if entry[2] != pool.id]

    def check(self):
        now = self.stats()
        results = sum(map(len, self.uses.values()))  # of one byte each
        assert now["allocation.all.current"] == len(self.live) + results
        assert now["requested_bytes.all.current"] == sum(size for _, size, *_ in self.live) + results
        least = sum(-(-size // 512) * 512 for _, size, *_ in self.live)
        assert least <= now["allocated_bytes.all.current"] <= now["active_bytes.all.current"] <= now["reserved_bytes.all.current"]
        assert now["active_bytes.all.current"] + now["inactive_split_bytes.all.current"] <= now["reserved_bytes.all.current"]
        for name in ("allocation", "allocated_bytes", "active_bytes", "reserved_bytes", "segment", "inactive_split"):
            both = now[f"{name}.small_pool.current"] + now[f"{name}.large_pool.current"]
            assert both == now[f"{name}.all.current"] <= now[f"{name}.all.peak"], name
        free, total = self.torch.openreg.mem_get_info(self.device)
        assert total - free == now["reserved_bytes.all.current"]
        private = 0
        for pool in self.pools:
            name = f"reserved_bytes_by_private_pools.{pool.id[0]}_{pool.id[1]}.all.current"
            inside = sum(size for _, size, *_, owner in self.live if owner == pool.id)
            assert inside <= now.get(name, 0), "a pool uses more than it has"
            private += now.get(name, 0)
        assert private <= now["reserved_bytes.all.current"]
        return now


def run(steps, seed):
    """The walk, in a process whose devices nobody has used."""
    import torch
    import torch_openreg  # noqa: F401

    torch.set_num_threads(1)
    rng = random.Random(seed)
    models = [Model(torch, index) for index in (0, 1)]
    found = []

    def right():
        for _, event in found:
            event.synchronize()
        assert all(result.item() for result, _ in found), "a stream read a block after it was handed out again"
        found.clear()

    for step in range(steps):
        model = rng.choice(models)
        choice = rng.random()
        if not model.live or (choice < 0.46 and len(model.live) < 50):
            model.allocate(rng, step % 251)
        elif choice < 0.80:
            found += model.free_one(rng, verify=rng.random() < 0.1)
        elif choice < 0.92:
            model.use_elsewhere(rng)
        elif choice < 0.94:
            torch.openreg.synchronize(model.index)
            model.read_elsewhere = []
        elif choice < 0.95:
            torch.openreg.empty_cache()
        elif choice < 0.96 and len(model.pools) < 3:
            with torch.openreg.device(model.index):
                model.pools.append(torch.openreg.MemPool(no_split=rng.random() < 0.2))
        elif choice < 0.97 and model.pools:
            model.drop_pool(rng)
        elif choice < 0.98:
            torch.openreg.set_per_process_memory_fraction(rng.choice([1.0, 1.0, 0.8, 0.5]), model.index)
        elif choice < 0.985:
            torch.openreg.memory._set_allocator_settings(rng.choice(SETTINGS))
        elif choice < 0.99:
            torch.openreg.memory.caching_allocator_enable(rng.random() < 0.7)
        elif choice < 0.995:
            torch.openreg.reset_peak_memory_stats(model.index)
        if step % 10 == 0:
            right()
            model.check()
    for model in models:
        while model.live:
            found += model.free_one(rng, verify=True)
        model.pools.clear()
    right()
    for model in models:
        torch.openreg.synchronize(model.index)
    torch.openreg.empty_cache()
    for model in models:
        left = {key: value for key, value in model.check().items() if key.endswith(".current") and value}
        assert not left, left
    print(f"{steps} steps: {sum(model.failures for model in models)} times out of memory")


if __name__ == "__main__":
    run(int(sys.argv[1]), int(sys.argv[2]))
