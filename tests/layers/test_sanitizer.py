"""The sanitizer layer on the simulator, without torch: order, lifetime, contents. The tasks do nothing; what they say they touch counts."""

import ctypes as c
import random

import hal
import layered
import pytest


@pytest.fixture
def two(device):
    return device.stream(), device.stream()


def modes(device):
    return [finding[0] for finding in device.findings()]


def test_two_writes_on_two_streams_race(device, two):
    memory = device.alloc(4096)
    device.use(two[0], (memory, 64, 1), name=b"first", tag=5)
    device.use(two[1], (memory + 32, 64, 1), name=b"second", tag=6)
    [(mode, sentence, first, second, allocation, remedy)] = device.findings()
    assert mode == "race" and "first" in sentence and "second" in sentence
    assert first.startswith("first@") and first.endswith("writes 64 bytes#5") and second.endswith("#6")
    assert "4096 bytes" in allocation and "wait_stream" in remedy


@pytest.mark.parametrize("first,second,races", [(1, 0, True), (0, 1, True), (0, 0, False), (1, 1, True)])
def test_one_of_two_accesses_must_write(device, two, first, second, races):
    memory = device.alloc(4096)
    device.use(two[0], (memory, 64, first))
    device.use(two[1], (memory, 64, second))
    assert modes(device) == ["race"] * races


def test_an_event_orders(device, two):
    memory = device.alloc(4096)
    device.use(two[0], (memory, 64, 1))
    device.order(*two)
    device.use(two[1], (memory, 64, 1))
    device.order(two[1], two[0])
    device.use(two[0], (memory, 64, 1))
    assert not device.findings()


def test_an_event_recorded_too_early_orders_too_little(device, two):
    memory = device.alloc(4096)
    early = device.record(two[0])
    device.use(two[0], (memory, 64, 1))
    device.ok(device.stream_wait_event(two[1], early))
    device.use(two[1], (memory, 64, 0))
    assert modes(device) == ["race"]


def test_a_wait_means_the_record_of_its_time(device, two):
    memory = device.alloc(4096)
    event = device.record(two[0])
    device.ok(device.stream_wait_event(two[1], event))
    device.use(two[0], (memory, 64, 1))
    device.record(two[0], event)
    device.use(two[1], (memory, 64, 0))
    assert modes(device) == ["race"]


def test_order_goes_over_a_third_stream(device, two):
    memory, third = device.alloc(4096), device.stream()
    device.use(two[0], (memory, 64, 1))
    device.order(two[0], third)
    device.order(third, two[1])
    device.use(two[1], (memory, 64, 1))
    assert not device.findings()


@pytest.mark.parametrize("how", ["stream", "event", "device", "query"])
def test_a_wait_of_the_host_orders_what_comes_later(device, two, how):
    memory = device.alloc(4096)
    device.use(two[0], (memory, 64, 1))
    event = device.record(two[0])
    if how == "stream":
        device.ok(device.sync(two[0])[0])
    elif how == "event":
        device.ok(device.event_synchronize(event, hal.NEVER, None))
    elif how == "device":
        device.ok(device.device_synchronize(0, hal.NEVER, None))
    else:
        while device.event_query(event) != hal.OK:
            pass
    device.use(two[1], (memory, 64, 1))
    assert not device.findings()


def test_a_wait_that_the_program_did_not_ask_for_orders_nothing(device, two):
    memory = device.alloc(4096)
    device.use(two[0], (memory, 64, 1))
    device.library.wait_unobserved(c.byref(device.table), two[0])
    device.use(two[1], (memory, 64, 1))
    assert modes(device) == ["race"]


def test_a_poll_that_finds_the_stream_busy_orders_nothing(device, two):
    if device.stream_query(two[0]) != hal.OK:
        pytest.fail("an idle stream is not busy")
    memory = device.alloc(4096)
    device.use(two[0], (memory, 64, 1))
    device.use(two[1], (memory, 64, 1))
    assert modes(device) == ["race"]


def test_copies_and_fills_name_their_ranges_themselves(device, two):
    source, target = device.alloc(4096), device.alloc(4096)
    device.ok(device.fill(two[0], source, 1, 4096, None))
    device.ok(device.copy(two[1], target, 0, source, 0, 4096, None))
    [(mode, _, first, second, *_)] = device.findings()
    assert mode == "race" and "fill@" in first and "copy@" in second and "reads 4096 bytes" in second


def test_devices_are_ordered_by_events_like_streams(device):
    here, there = device.stream(0), device.stream(1)
    source, target = device.alloc(4096, 0), device.alloc(4096, 1)
    device.use(here, (source, 4096, 1))
    device.ok(device.copy(there, target, 1, source, 0, 4096, None))
    assert modes(device) == ["race"]
    device.order(there, here)
    device.use(here, (source, 4096, 1))
    assert not device.findings()


def test_one_mistake_is_told_once(device, two):
    memory = device.alloc(4096)
    for _ in range(5):
        device.use(two[0], (memory, 64, 1), name=b"left")
        device.use(two[1], (memory, 64, 1), name=b"right")
    assert len(device.findings()) == 2  # once for each order of the two calls


# ---- Strided sets -------------------------------------------------------------


def test_columns_side_by_side_do_not_race(device, two):
    memory = device.alloc(4096)
    device.use(two[0], (memory, (16, 4), (64, 1), 1, 0, 0))
    device.use(two[1], (memory + 4, (16, 4), (64, 1), 1, 0, 0))
    assert not device.findings()
    device.use(two[1], (memory + 3, (16, 4), (64, 1), 0, 0, 0))
    assert modes(device) == ["race"]


@pytest.mark.parametrize("seed", range(8))
def test_the_intersection_of_strided_sets_is_exact(device, seed):
    choose = random.Random(seed)

    def strided():
        dims = choose.randrange(4)
        sizes = [choose.randrange(1, 5) for _ in range(dims)]
        strides = [choose.choice([0, 1, 2, 3, 4, 5, 8, 12, 16, 20]) for _ in range(dims)]
        return 4096 + choose.randrange(80), choose.choice([1, 2, 4]), sizes, strides

    verdicts = set()
    for _ in range(400):
        a, b = strided(), strided()
        arguments = []
        for base, size, sizes, strides in (a, b):
            arguments += [c.c_uint64(base), size, len(sizes), (c.c_int64 * 4)(*sizes), (c.c_int64 * 4)(*strides)]
        share = not set(layered.elements(*a)).isdisjoint(layered.elements(*b))
        assert device.library.overlap(*arguments) == share, (a, b)
        verdicts.add(share)
    assert verdicts == {True, False}


def test_large_matrices_are_compared_in_few_steps(device):
    columns = [(c.c_int64 * 2)(1 << 20, 512), (c.c_int64 * 2)(1 << 10, 1)]
    a = [c.c_uint64(1 << 30), 1, 2, *columns]
    assert device.library.overlap(*a, c.c_uint64((1 << 30) + 512), 1, 2, *columns) == 0
    assert device.library.overlap(*a, c.c_uint64((1 << 30) + 511), 1, 2, *columns) == 1


# ---- Elements that data choose ------------------------------------------------


def test_an_access_that_depends_on_data_is_possible_until_the_task_has_told(device, two):
    memory, token = device.alloc(4096), device.library.new_token()
    device.use(two[0], (memory, (64, 64), (64, 1), 1, layered.SOME, token), name=b"index_copy")
    device.use(two[1], (memory + 640, 64, 0), name=b"reader")
    assert not device.findings()
    assert [finding[0] for finding in device.possible()] == ["race"]
    device.library.touched(c.c_uint64(token), c.c_void_p(memory + 640), c.c_uint64(64))
    assert modes(device) == ["race"]
    assert not device.possible()


def test_rows_that_were_not_touched_do_not_race(device, two):
    memory, token = device.alloc(4096), device.library.new_token()
    device.use(two[0], (memory, (64, 64), (64, 1), 1, layered.SOME, token))
    device.use(two[1], (memory + 640, 64, 0))
    device.library.touched(c.c_uint64(token), c.c_void_p(memory + 128), c.c_uint64(64))
    assert not device.findings() and not device.possible()


# ---- Lifetime -----------------------------------------------------------------


def test_memory_used_after_it_was_freed(device, two):
    memory = device.alloc(4096)
    device.ok(device.mem_free(0, memory))
    device.use(two[0], (memory, 64, 0), name=b"late")
    [(mode, sentence, *_)] = device.findings()
    assert mode == "lifetime" and "freed before the call" in sentence and "late" in sentence


def test_memory_freed_twice(device):
    memory = device.alloc(4096)
    device.ok(device.mem_free(0, memory))
    assert device.mem_free(0, memory) == hal.INVALID_VALUE
    [(mode, sentence, *_)] = device.findings()
    assert mode == "lifetime" and "freed twice" in sentence


@pytest.fixture
def heap(device, two):
    """Blocks that a runtime hands out, in one piece of driver memory."""
    base = device.alloc(1 << 16)
    device.library.expect_runtime_blocks(1)
    home, other = two

    class Heap:
        def allocate(self, offset=0, bytes=1024, requested=None):
            device.library.block_allocated(home, c.c_void_p(base + offset), c.c_uint64(bytes), c.c_uint64(bytes if requested is None else requested))
            return base + offset

        def free(self, address):
            device.library.block_freed(c.c_void_p(address))

        def record_stream(self, address, stream):
            device.library.block_used_by(c.c_void_p(address), stream)

        def idle(self, address):
            device.library.block_idle(c.c_void_p(address))

    yield Heap()
    device.library.expect_runtime_blocks(0)


def test_a_block_reused_while_another_stream_still_uses_it(device, two, heap):
    home, other = two
    block = heap.allocate()
    device.order(home, other)
    device.use(other, (block, 1024, 0), name=b"side")
    heap.free(block)
    block = heap.allocate()
    device.use(home, (block, 1024, 1), name=b"next")
    [(mode, sentence, first, second, allocation, remedy)] = device.findings()
    assert mode == "lifetime" and "side" in first and "next" in second and "record_stream" in remedy


def test_record_stream_makes_the_reuse_right(device, two, heap):
    home, other = two
    block = heap.allocate()
    device.order(home, other)
    device.use(other, (block, 1024, 0))
    heap.record_stream(block, other)
    heap.free(block)
    heap.idle(block)
    heap.allocate()
    device.use(home, (block, 1024, 1))
    assert not device.findings()


def test_waiting_for_the_other_stream_before_the_reuse_is_right_too(device, two, heap):
    home, other = two
    block = heap.allocate()
    device.order(home, other)
    device.use(other, (block, 1024, 0))
    heap.free(block)
    device.order(other, home)
    heap.allocate()
    device.use(home, (block, 1024, 1))
    assert not device.findings()


def test_blocks_that_are_cut_differently_inherit_by_their_bytes(device, two, heap):
    home, other = two
    block = heap.allocate(bytes=2048)
    device.order(home, other)
    device.use(other, (block + 1024, 1024, 0))
    heap.free(block)
    device.use(home, (heap.allocate(0, 1024), 1024, 1))
    assert not device.findings()
    device.use(home, (heap.allocate(1024, 1024), 1024, 1))
    assert modes(device) == ["lifetime"]


def test_the_host_races_with_copies_to_its_pinned_memory(device, two):
    memory, pinned = device.alloc(4096), hal.ptr()
    device.ok(device.host_alloc(4096, c.byref(pinned)))
    device.ok(device.copy(two[0], pinned, hal.HOST, memory, 0, 4096, None))
    device.library.host_access(pinned, c.c_uint64(64), 0)
    [(mode, sentence, *_, remedy)] = device.findings()
    assert mode == "race" and "The host reads" in sentence and "synchronize" in remedy
    device.ok(device.sync(two[0])[0])
    device.library.host_access(pinned, c.c_uint64(64), 0)
    device.ok(device.copy(two[0], memory, 0, pinned, hal.HOST, 4096, None))
    device.library.host_access(pinned, c.c_uint64(64), 0)
    assert not device.findings()
    device.library.host_access(pinned, c.c_uint64(64), 1)
    assert modes(device) == ["race"]


# ---- Contents and bounds ------------------------------------------------------


def test_reading_what_nobody_wrote(device, two):
    device.library.sanitize(layered.INIT)
    memory = device.alloc(4096)
    device.use(two[0], (memory, 64, 1))
    device.use(two[0], (memory, 64, 0))
    assert not device.findings()
    device.use(two[0], (memory, 65, 0))
    [(mode, sentence, *_)] = device.findings()
    assert mode == "init" and "from byte 64" in sentence


def test_contents_are_followed_byte_by_byte(device, two):
    device.library.sanitize(layered.INIT)
    memory = device.alloc(4096)
    device.use(two[0], (memory, (16, 4), (8, 1), 1, 0, 0))
    device.use(two[0], (memory, (16, 4), (8, 1), 0, 0, 0))
    assert not device.findings()
    device.use(two[0], (memory + 8, 5, 0))
    assert modes(device) == ["init"]


def test_a_copy_moves_what_is_known_of_the_bytes(device, two):
    device.library.sanitize(layered.INIT)
    source, target = device.alloc(4096), device.alloc(4096)
    device.use(two[0], (source, 128, 1))
    device.ok(device.copy(two[0], target, 0, source, 0, 4096, None))
    device.use(two[0], (target, 128, 0))
    assert not device.findings()
    device.use(two[0], (target + 128, 1, 0))
    assert modes(device) == ["init"]


def test_a_kernel_that_leaves_its_block(device, two, heap):
    device.library.sanitize(layered.BOUNDS)
    block = heap.allocate(bytes=1024, requested=600)
    device.use(two[0], (block, 600, 1))
    device.ok(device.sync(two[0])[0])
    assert not device.findings()
    device.ok(device.fill(two[0], block + 610, 0, 1, None))  # the driver's own fill knows its range
    device.use(two[0], (block, 600, 1), name=b"behind")
    device.ok(device.sync(two[0])[0])
    sentences = [finding[1] for finding in device.findings() if finding[0] == "bounds"]
    assert any("past the end" in sentence for sentence in sentences) and any("behind wrote 10 bytes past" in sentence for sentence in sentences)


def test_switched_off_it_says_nothing(device, two):
    device.library.sanitize(0)
    memory = device.alloc(4096)
    device.use(two[0], (memory, 64, 1))
    device.use(two[1], (memory, 64, 1))
    assert not device.findings()


# ---- Graphs -------------------------------------------------------------------


def capture(device, stream, program):
    """The graph of what `program` enqueues."""
    device.ok(device.capture_begin(stream, hal.RELAXED))
    program()
    return device.end_capture(stream)


def test_a_captured_launch_touches_nothing_yet(device, two):
    memory = device.alloc(4096)
    device.use(two[1], (memory, 64, 1))
    graph = capture(device, two[0], lambda: device.use(two[0], (memory, 64, 1)))
    assert not device.findings()
    device.ok(device.graph_destroy(graph))


def test_a_replay_is_ordered_like_a_launch(device, two):
    memory = device.alloc(4096)
    graph = capture(device, two[0], lambda: device.use(two[0], (memory, 64, 1), name=b"captured"))
    device.ok(device.graph_launch(graph, two[0]))
    device.order(*two)
    device.use(two[1], (memory, 64, 0))
    assert not device.findings()
    device.ok(device.graph_launch(graph, two[0]))
    [(mode, sentence, *_)] = device.findings()
    assert mode == "race" and "captured" in sentence
    device.ok(device.device_synchronize(0, hal.NEVER, None))
    device.ok(device.graph_destroy(graph))


def test_an_event_that_is_recorded_again_outside_a_capture_orders_what_waits_for_it(device, two):
    memory, event, third = device.alloc(4096), device.event(), device.stream()
    device.ok(device.capture_begin(two[0], hal.RELAXED))
    device.record(two[0], event)
    device.use(two[1], (memory, 64, 1))
    device.record(two[1], event)
    device.ok(device.stream_wait_event(third, event))
    device.use(third, (memory, 64, 0))
    assert not device.findings()
    device.ok(device.device_synchronize(1, hal.NEVER, None))
    device.ok(device.graph_destroy(device.end_capture(two[0])))
    device.ok(device.stream_synchronize(third, hal.NEVER, None))


def test_two_replays_of_one_graph_are_ordered(device, two):
    memory = device.alloc(4096)
    graph = capture(device, two[0], lambda: device.use(two[0], (memory, 64, 1)))
    device.ok(device.graph_launch(graph, two[0]))
    device.ok(device.graph_launch(graph, two[1]))
    assert not device.findings()
    device.ok(device.device_synchronize(0, hal.NEVER, None))
    device.ok(device.graph_destroy(graph))


@pytest.mark.parametrize("joined_first", [True, False])
def test_streams_inside_of_a_graph_are_compared_once(device, two, joined_first):
    memory = device.alloc(4096)

    def program():
        device.order(*two)
        device.use(two[1], (memory, 64, 1))
        if joined_first:
            device.order(two[1], two[0])
        device.use(two[0], (memory, 64, 0))
        if not joined_first:
            device.order(two[1], two[0])

    graph = capture(device, two[0], program)
    assert modes(device) == ["race"] * (not joined_first)
    device.ok(device.graph_launch(graph, two[0]))
    device.ok(device.device_synchronize(0, hal.NEVER, None))
    assert not device.findings()
    device.ok(device.graph_destroy(graph))


def test_a_graph_goes_on_using_what_was_freed_in_its_capture(device, two, heap):
    def program():
        block = heap.allocate()
        device.use(two[0], (block, 1024, 1))
        heap.free(block)

    graph = capture(device, two[0], program)
    device.ok(device.graph_launch(graph, two[0]))
    assert not device.findings()
    device.ok(device.device_synchronize(0, hal.NEVER, None))
    device.ok(device.graph_destroy(graph))


def test_a_graph_whose_input_was_freed_is_replayed(device, two, heap):
    block = heap.allocate()
    graph = capture(device, two[0], lambda: device.use(two[0], (block, 1024, 0), name=b"captured"))
    device.ok(device.graph_launch(graph, two[0]))
    assert not device.findings()
    heap.free(block)
    device.ok(device.graph_launch(graph, two[0]))
    [(mode, sentence, first, allocation, remedy)] = device.findings()
    assert mode == "lifetime" and "captured" in first and "freed after its capture" in sentence
    device.ok(device.device_synchronize(0, hal.NEVER, None))
    device.ok(device.graph_destroy(graph))
