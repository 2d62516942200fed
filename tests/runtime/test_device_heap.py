"""Large segments: their sizes, which free segments go back before a large request gets a new one, and when.

Reserved memory belongs to a process, so each test runs one of its own. Needs torch with torch_openreg installed.
"""

import pytest


def test_large_segments_have_the_size_of_the_request(python):
    python(
        """
        import torch, torch_openreg
        MIB, KIB = 2**20, 2**10
        # From 10 MiB on in steps of 2 MiB, below in steps of 512 KiB.
        for asked, reserved in ((MIB + 1, 3 * MIB // 2), (5 * MIB, 5 * MIB), (5 * MIB + 1, 11 * MIB // 2), (11 * MIB, 12 * MIB)):
            for device in ("openreg:1", "openreg:0"):
                kept = torch.empty(asked, dtype=torch.uint8, device=device)
                assert torch.openreg.memory_reserved(device) == reserved
                del kept
            torch.openreg.empty_cache()
        """
    )


OUTGROWING = """
import torch, torch_openreg
MIB = 2**20

def block(mebibytes, device="openreg:1"):
    return torch.empty(mebibytes * MIB, dtype=torch.uint8, device=device)

def reserved():
    return torch.openreg.memory_reserved("openreg:1") // MIB
"""


def test_reserved_memory_follows_a_block_that_grows(python):
    python(
        OUTGROWING,
        """
        for size in range(2, 60):
            block(size)
            assert reserved() == (size if size < 10 else -(-size // 2) * 2)
        stats = torch.openreg.memory_stats("openreg:1")
        assert stats["segment.all.current"] == 1 and stats["num_alloc_retries"] == stats["num_sync_all_streams"] == 0
        address = block(3).data_ptr()
        assert block(58).data_ptr() == address and reserved() == 60, "a segment that is large enough stays"
        """,
    )


def test_the_smallest_outgrown_segments_go_up_to_the_size_of_the_new_one(python):
    python(
        OUTGROWING,
        """
        kept = [block(size) for size in (12, 14, 16, 18, 40)]
        part = kept.pop()       # stays in use
        del kept
        assert reserved() == 100
        new = block(20)         # 12 and 14 go, which is enough
        assert reserved() == 16 + 18 + 40 + 20
        """,
    )


@pytest.mark.parametrize("other", ["stream", "pool", "small", "part"])
def test_segments_that_others_may_need_are_not_outgrown(python, other):
    python(
        OUTGROWING,
        f"""
        other = {other!r}
        stream, pool = torch.openreg.Stream("openreg:1"), None
        with torch.openreg.device(1):
            pool = torch.openreg.MemPool()
        if other == "stream":
            with torch.openreg.stream(stream):
                block(4)
        elif other == "pool":
            with torch.openreg.use_mem_pool(pool, "openreg:1"):
                block(4)
                block(6)
        elif other == "small":
            torch.empty(100, device="openreg:1")
        else:
            free = block(4)
            part = block(2) if free.data_ptr() else None
            del free
            kept = block(2)     # cut from the free one
        before = reserved()
        new = block(30)
        assert reserved() == before + 30
        """,
    )


def test_a_segment_with_queued_work_is_outgrown_only_when_the_work_is_done(python):
    python(
        OUTGROWING,
        """
        other = block(1).fill_(1)   # the first fill waits, later ones do not
        torch.openreg.synchronize(1)
        with torch.openreg.device(1):
            for _ in range(50):
                torch.openreg._sleep(1000)     # one task each, and nothing runs them
        used = block(4).fill_(1)
        del used
        first = block(6)
        assert reserved() == 4 + 6 + 2, "the fill is still queued"
        torch.openreg.synchronize(1)
        second = block(8)
        assert reserved() == 6 + 8 + 2
        """,
        env={"OPENREG_SCHEDULE": "lazy"},
    )


def test_a_segment_that_is_freed_behind_the_event_is_not_outgrown_yet(python):
    python(
        OUTGROWING,
        """
        kept = block(1).fill_(1)    # the first fill waits, later ones do not
        torch.openreg.synchronize(1)
        torch.openreg.set_device(1)

        def work():
            for _ in range(50):
                torch.openreg._sleep(1000)

        work()
        early = block(4).fill_(1)
        del early
        first = block(6)            # records the event, behind the work on the 4
        passed = torch.openreg.Event()
        passed.record()
        work()
        late = block(5).fill_(1)
        del late
        passed.synchronize()
        second = block(8)
        assert reserved() == 5 + 6 + 8 + 2, "the 5 has queued work, the 4 has not"
        torch.openreg.synchronize(1)
        """,
        env={"OPENREG_SCHEDULE": "lazy"},
    )
