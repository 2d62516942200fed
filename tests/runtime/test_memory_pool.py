"""Private memory pools: whose allocations they serve, who gets their memory back, and what they count.

Needs torch with torch_openreg installed.
"""

import threading

import pytest
import torch
import torch_openreg  # noqa: F401

MIB = 2**20


def block(size, device):
    return torch.empty(size, dtype=torch.uint8, device=device)


@pytest.fixture
def pool(device):
    with torch.openreg.device(device):
        yield torch.openreg.MemPool()


def reserved_in(pool, device):
    return torch.openreg.memory_stats(device).get(f"reserved_bytes_by_private_pools.{pool.id[0]}_{pool.id[1]}.all.current", 0)


@pytest.mark.unsanitized("bounds", reason="guard zones make blocks larger than requested")
def test_allocations_in_the_block_come_from_the_pool_and_stay_there(device, pool):
    with torch.openreg.use_mem_pool(pool, device):
        inside = block(5 * MIB, device)
        address = inside.data_ptr()
    assert reserved_in(pool, device) == 5 * MIB
    del inside  # goes back to its pool
    torch.openreg.empty_cache()
    assert reserved_in(pool, device) == 5 * MIB, "a live pool keeps its memory"
    outside = [block(5 * MIB, device) for _ in range(5)]
    assert address not in [tensor.data_ptr() for tensor in outside]
    with torch.openreg.use_mem_pool(pool, device):
        assert block(5 * MIB, device).data_ptr() == address


@pytest.mark.unsanitized("bounds", reason="guard zones make blocks larger than requested")
def test_the_memory_of_a_dead_pool_goes_back_to_the_driver(device):
    torch.openreg.empty_cache()
    free = torch.openreg.mem_get_info(device)[0]
    with torch.openreg.device(device):
        pool = torch.openreg.MemPool()
    with torch.openreg.use_mem_pool(pool, device):
        tensor = torch.ones(MIB, device=device)
        kept = torch.ones(10, device=device)
    stats = torch.openreg.memory_stats_as_nested_dict(device)["reserved_bytes_by_private_pools"][pool.id]
    assert stats["all"]["current"] == 6 * MIB and stats["small_pool"]["current"] == 2 * MIB
    del tensor, pool
    assert free - torch.openreg.mem_get_info(device)[0] == 2 * MIB, "what a tensor uses stays"
    assert kept.eq(1).all().item()
    del kept
    torch.openreg.empty_cache()
    assert torch.openreg.mem_get_info(device)[0] == free


def test_pools_nest_and_the_innermost_counts(device, pool):
    with torch.openreg.device(device):
        other = torch.openreg.MemPool()
    assert other.id != pool.id and other.device == pool.device == device.index
    with torch.openreg.use_mem_pool(pool, device):
        with torch.openreg.use_mem_pool(other, device):
            block(100, device)
        assert (reserved_in(pool, device), reserved_in(other, device)) == (0, 2 * MIB)
        block(100, device)
    assert reserved_in(pool, device) == 2 * MIB


def test_use_is_counted_and_ends_with_an_exception(device, pool):
    assert pool.use_count() == 1
    with pytest.raises(KeyError):
        with torch.openreg.use_mem_pool(pool, device):
            assert pool.use_count() == 2
            raise KeyError
    assert pool.use_count() == 1
    before = reserved_in(pool, device)
    block(100, device)
    assert reserved_in(pool, device) == before


@pytest.mark.unsanitized("bounds", reason="guard zones make blocks larger than requested")
def test_another_thread_and_another_device_are_not_routed(device, pool):
    other = torch.device("openreg", 1 - device.index)
    with torch.openreg.use_mem_pool(pool, device):
        thread = threading.Thread(target=lambda: block(3 * MIB, device))
        thread.start()
        thread.join()
        block(3 * MIB, other)
        assert reserved_in(pool, device) == 0
        block(3 * MIB, device)
        assert reserved_in(pool, device) == 3 * MIB


def test_two_threads_may_use_one_pool(device, pool):
    barrier, addresses = threading.Barrier(2), []

    def work():
        with torch.openreg.use_mem_pool(pool, device):
            barrier.wait()
            tensors = [torch.full((1000,), number, device=device) for number in range(20)]
            barrier.wait()
        assert all(tensor.eq(number).all().item() for number, tensor in enumerate(tensors))
        addresses.append([tensor.data_ptr() for tensor in tensors])

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(addresses) == 2 and set(addresses[0]).isdisjoint(addresses[1])
    assert pool.use_count() == 1


def test_streams_can_be_routed_for_graphs(device):
    """What a graph's capture uses: allocations of all threads on chosen streams."""
    from torch_openreg import _C

    stream, id = torch.openreg.Stream(device), _C.new_memory_pool_id(False)
    assert id[1] == 0
    _C.begin_allocate_to_pool(device.index, id, stream.stream_id)
    with torch.openreg.stream(stream):
        inside = block(100, device)
    outside = block(100, device)
    name = f"reserved_bytes_by_private_pools.{id[0]}_0.small_pool.current"
    assert torch.openreg.memory_stats(device)[name] == 2 * MIB
    _C.end_allocate_to_pool(device.index, id)
    _C.release_memory_pool(device.index, id)
    del inside, outside
    torch.openreg.empty_cache()
    assert name not in torch.openreg.memory_stats(device), "statistics do not grow with every pool that ever was"
    for call in (_C.end_allocate_to_pool, _C.release_memory_pool, _C.memory_pool_use_count):
        with pytest.raises(ValueError, match="memory pool"):
            call(device.index, id)


def test_a_pool_without_splitting_has_a_segment_per_block(device):
    with torch.openreg.device(device):
        pool = torch.openreg.MemPool(no_split=True)
    with torch.openreg.use_mem_pool(pool, device):
        tensors = [block(1000, device) for _ in range(3)]
    assert reserved_in(pool, device) == 6 * MIB
    del tensors


def test_a_pool_may_lend_its_memory_before_others_fail(python):
    python(
        """
        import torch, torch_openreg
        MIB = 2**20
        for device, lends in ((0, True), (1, False)):
            with torch.openreg.device(device):
                pool = torch.openreg.MemPool(use_on_oom=lends)
                with torch.openreg.use_mem_pool(pool):
                    tensor = torch.empty(40 * MIB, dtype=torch.uint8, device="openreg")
                    address = tensor.data_ptr()
                    del tensor
                try:
                    lent = torch.empty(30 * MIB, dtype=torch.uint8, device="openreg")
                except torch.OutOfMemoryError as error:
                    assert not lends and "with 40.00 MiB reserved in private pools" in str(error), error
                else:
                    assert lends and lent.data_ptr() == address
                    del lent
        """,
        env={"OPENREG_MEMORY": "64MiB"},
    )


def test_the_common_pool_is_not_private_and_allocators_are_refused(device):
    from torch_openreg import _C

    with pytest.raises(ValueError, match="cannot be a private pool"):
        _C.retain_memory_pool(device.index, (0, 0), False, False)
    with pytest.raises(NotImplementedError, match="no allocator argument"):
        torch.openreg.MemPool(allocator=object())


@pytest.mark.findings("lifetime", reason="it frees twice, to see the error")
def test_blocks_by_address_for_other_libraries(device):
    before = torch.openreg.memory_stats(device)
    stream = torch.openreg.Stream(device)
    addresses = [
        torch.openreg.caching_allocator_alloc(1000, device),
        torch.openreg.caching_allocator_alloc(3 * MIB, device, stream),
        torch.openreg.caching_allocator_alloc(5, device, stream.stream_id),
    ]
    now = torch.openreg.memory_stats(device)
    assert now["requested_bytes.all.current"] - before["requested_bytes.all.current"] == 1005 + 3 * MIB
    assert torch.openreg.caching_allocator_alloc(0, device) == 0
    torch.openreg.caching_allocator_delete(0)
    for address in addresses:
        torch.openreg.caching_allocator_delete(address)
    with pytest.raises(ValueError, match="freed twice"):
        torch.openreg.caching_allocator_delete(addresses[0])
    with pytest.raises(ValueError, match="not the address"):
        torch.openreg.caching_allocator_delete(12345)
    x = torch.ones(4, device=device)
    with pytest.raises(ValueError, match="not the address of a block .* that was allocated by address"):
        torch.openreg.caching_allocator_delete(x.data_ptr())
    y = torch.zeros(4, device=device)
    assert x.tolist() == [1] * 4 and y.data_ptr() != x.data_ptr()
    del x, y
    for missing in (99999, -1):
        with pytest.raises(ValueError, match=f"no stream {missing} of {device}"):
            torch.openreg.caching_allocator_alloc(64, device, missing)
    with pytest.raises(ValueError, match="belongs to"):
        torch.openreg.caching_allocator_alloc(1, 1 - device.index, stream)
    with pytest.raises(TypeError, match="stream_id"):
        torch.openreg.caching_allocator_alloc(1, device, "main")
    with pytest.raises(ValueError, match="-1 bytes"):
        torch.openreg.caching_allocator_alloc(-1, device)
    assert torch.openreg.memory_allocated(device) == before["allocated_bytes.all.current"]


def test_a_pool_that_is_released_before_its_routing_ends_goes_with_the_routing(device):
    from torch_openreg import _C

    id = _C.new_memory_pool_id(False)
    _C.begin_allocate_current_thread_to_pool(device.index, id)
    _C.release_memory_pool(device.index, id)
    assert _C.memory_pool_use_count(device.index, id) == 0
    _C.end_allocate_to_pool(device.index, id)
    with pytest.raises(ValueError, match="no memory pool"):
        _C.memory_pool_use_count(device.index, id)


def test_a_pool_that_is_released_while_its_request_fails_goes_too(python):
    python(
        """
        import torch, torch_openreg
        from torch_openreg import _C
        pool = _C.new_memory_pool_id(True)
        _C.retain_memory_pool(1, pool, False, False)
        _C.begin_allocate_current_thread_to_pool(1, pool)

        def let_go(*numbers):
            _C.end_allocate_to_pool(1, pool)
            while _C.memory_pool_use_count(1, pool) > 0:
                _C.release_memory_pool(1, pool)
            assert _C.memory_pool_use_count(1, pool) == 0, "the request has not ended"

        torch.openreg.memory.attach_out_of_memory_observer(let_go)
        try:
            torch.empty(100 << 20, dtype=torch.uint8, device="openreg:1")
        except torch.OutOfMemoryError:
            pass
        try:
            _C.memory_pool_use_count(1, pool)
        except ValueError as error:
            assert "has no memory pool" in str(error)
        else:
            raise AssertionError("the pool is still there")
        """,
        env={"OPENREG_MEMORY": "64MiB"},
    )
