"""The fault layer on the simulator, without torch: the grammar of plans, when rules fire, and what a call does then."""

import ctypes as c

import hal
import pytest

LOST = "device 0 is lost: the fault plan says so"


def run(driver, tasks, stream, log, count, name=b"op"):
    """Launches tasks that append 1, 2, ..., waiting after each; the numbers of those that failed."""
    failed = []
    for i in range(1, count + 1):
        tasks.append(driver, stream, log, i, name=name)
        status, error = driver.sync(stream)
        if status != hal.OK:
            assert status == hal.LAUNCH_FAILED and b"the fault plan says so" in error.message and error.name == name
            failed.append(i)
    return failed


@pytest.mark.parametrize(
    "plan,position,problem",
    [
        ("", 0, "at least one rule"),
        ("  ;", 2, "expected where the fault happens"),
        ("alloc", 5, "expected '='"),
        ("alloc:0=oom", 6, "counts from 1"),
        ("alloc:3=boom", 8, "expected what happens"),
        ("alloc:3=error", 8, "an allocation can have oom"),
        ("alloc:x=oom", 6, "an allocation has no name"),
        ("launch:aten::mm#x=error", 16, "a whole number"),
        ("launch:aten::mm#2=oom", 18, "only an allocation runs out of memory"),
        ("copy:*=corrupt@2", 15, "from 0 to 1"),
        ("copy:*=corrupt@0.5,sneed=7", 19, "expected 'sticky' or 'seed=N'"),
        ("copy:2=error@0.5", 13, "not both"),
        ("copy:*=error,sticky", 13, "no number"),
        ("device:7=lost", 7, "there is no device 7"),
        ("device:0@t=2=lost", 12, "ends in s, ms or us"),
        ("alloc:1 of openreg:9=oom", 19, "there is no device 9"),
        ("launch:*=delay", 14, "expected ':' and a duration"),
        ("alloc:1=oom launch:1=error", 12, "expected ';'"),
        ("alloc:1=oom; collective:1=hang", 13, "there are no collectives yet"),
        ("sync:1=error", 0, "alloc, launch, copy, fill or device"),
    ],
)
def test_what_is_no_plan_is_refused_with_its_position(faulty, plan, position, problem):
    with pytest.raises(ValueError) as caught:
        faulty.begin(plan)
    assert caught.value.args[0] == position and problem in caught.value.args[1]


def test_the_nth_launch_of_an_operation_fails_once(faulty, tasks):
    stream, log = faulty.stream(), tasks.log()
    with faulty.plan("launch:op#3=error") as plan:
        assert run(faulty, tasks, stream, log, 2, name=b"other") == []
        assert run(faulty, tasks, stream, log, 5) == [3]
        assert faulty.fired(plan) == [("launch:op#3=error", "op", "0", "3")]
    assert run(faulty, tasks, stream, log, 5) == []


def test_sticky_faults_stay(faulty, tasks):
    with faulty.plan("launch:o*#3=error,sticky"):
        assert run(faulty, tasks, faulty.stream(), tasks.log(), 6) == [3, 4, 5, 6]


def test_chance_depends_on_the_seed_only(faulty, tasks):
    stream, log = faulty.stream(), tasks.log()
    seen = []
    for seed in (7, 7, 8):
        with faulty.plan(f"launch:*=error@0.3,seed={seed}"):
            seen.append(run(faulty, tasks, stream, log, 60))
    assert seen[0] == seen[1] != seen[2] and 5 < len(seen[0]) < 35


def test_a_rule_of_one_device_leaves_the_other_alone(faulty, tasks):
    with faulty.plan("launch:1 of openreg:1=error") as plan:
        assert run(faulty, tasks, faulty.stream(0), tasks.log(), 2) == []
        assert faulty.waiting(plan) == ["launch:1 of openreg:1=error"]
        assert run(faulty, tasks, faulty.stream(1), tasks.log(), 2) == [1]
        assert faulty.waiting(plan) == []


def test_the_inner_plan_decides_and_both_count(faulty, tasks):
    stream, log = faulty.stream(), tasks.log()
    with faulty.plan("launch:2=error") as outer, faulty.plan("launch:2=delay:1us") as inner:
        assert run(faulty, tasks, stream, log, 3) == []
        assert faulty.fired(outer) == [] and len(faulty.fired(inner)) == 1


def test_a_failing_operation_is_cleaned_up_with_its_arguments(faulty, tasks):
    stream, cleaned, log = faulty.stream(), c.c_uint64(0), tasks.log()
    arguments = hal.ptr(c.addressof(cleaned))
    with faulty.plan("launch:1=error"):
        faulty.launch(stream, tasks.nothing, arguments, cleanup=tasks.count_cleanup)
        assert faulty.sync(stream)[0] == hal.LAUNCH_FAILED
    assert cleaned.value == 1
    assert run(faulty, tasks, stream, log, 1) == []


def test_copies_and_fills_fail_late_and_write_nothing(faulty):
    stream, address = faulty.stream(), faulty.alloc(64)
    faulty.write(address, b"kept")
    with faulty.plan("copy:1=error; fill:1=error"):
        buffer = c.create_string_buffer(b"new!", 4)
        faulty.ok(faulty.copy(stream, address, 0, c.cast(buffer, hal.ptr), hal.HOST, 4, None))
        status, error = faulty.sync(stream)
        assert status == hal.LAUNCH_FAILED and error.name == b"copy"
        faulty.ok(faulty.fill(stream, address, 0, 4, None))
        assert faulty.sync(stream)[1].name == b"fill"
    assert faulty.read(address, 4) == b"kept"


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_corruption_flips_one_bit_of_what_a_copy_wrote(faulty, seed):
    address = faulty.alloc(64)
    for direction in ("in", "out"):
        faulty.write(address, bytes(64))
        with faulty.plan(f"copy:1=corrupt,seed={seed}"):
            if direction == "in":
                faulty.write(address, bytes(64))
            else:
                read = faulty.read(address, 64)
        if direction == "in":
            read = faulty.read(address, 64)
        assert sum(byte.bit_count() for byte in read) == 1


def test_corruption_flips_one_bit_of_what_a_launch_wrote(faulty, tasks):
    stream, address = faulty.stream(), faulty.alloc(64)
    faulty.write(address, bytes(64))
    ranges = (hal.Range * 2)(hal.Range(address, 8, 0), hal.Range(address + 32, 8, 1))
    desc = hal.LaunchDesc(struct_size=c.sizeof(hal.LaunchDesc), name=b"op", ranges=ranges, range_count=2)
    with faulty.plan("launch:1=corrupt"):
        faulty.ok(faulty.launch_host_func(stream, c.cast(tasks.nothing, hal.ptr), None, 0, c.byref(desc)))
        faulty.ok(faulty.sync(stream)[0])
    read = faulty.read(address, 64)
    assert sum(byte.bit_count() for byte in read[32:40]) == 1 and not any(read[:32] + read[40:])


def test_an_allocation_fails_by_its_number(faulty):
    with faulty.plan("alloc:2=oom"):
        first, second = hal.ptr(), hal.ptr()
        faulty.ok(faulty.mem_alloc(0, 4096, c.byref(first)))
        assert faulty.mem_alloc(0, 4096, c.byref(second)) == hal.OUT_OF_MEMORY
        assert "alloc:2=oom" in faulty.message()
        faulty.ok(faulty.mem_alloc(0, 4096, c.byref(second)))


def test_a_device_is_lost_at_a_call(faulty, tasks):
    stream, log = faulty.stream(), tasks.log()
    with faulty.plan("device:0#3=lost") as plan:
        assert run(faulty, tasks, stream, log, 2) == []
        nothing = c.cast(tasks.nothing, hal.ptr)
        assert faulty.launch_host_func(stream, nothing, None, 0, None) == hal.DEVICE_LOST and LOST in faulty.message()
        assert faulty.fired(plan) == [("device:0#3=lost", "unnamed", "0", "3")]
        faulty.ok(faulty.device_reset(0))
        assert run(faulty, tasks, stream, log, 2) == []


def test_a_device_is_lost_at_a_time(faulty, tasks):
    stream = faulty.stream()
    with faulty.plan("device:0@t=1us=lost; device:1@t=1000s=lost") as plan:
        while faulty.sync(stream)[0] == hal.OK:
            pass
        assert faulty.sync(stream)[0] == hal.DEVICE_LOST
        faulty.ok(faulty.device_reset(0))
        faulty.ok(faulty.sync(stream)[0])  # once
        assert faulty.waiting(plan) == ["device:1@t=1000s=lost"]


def test_a_hang_lasts_as_long_as_its_plan(faulty, tasks):
    stream, log = faulty.stream(), tasks.log()
    with faulty.plan("launch:op#1=hang"):
        tasks.append(faulty, stream, log, 1, name=b"op")
        if faulty.schedule == "eager":
            while not faulty.state(stream).running:
                pass
            assert faulty.state(stream).running == b"op" and faulty.sync(stream, 0)[0] == hal.NOT_READY
        assert log.list() == []
    faulty.ok(faulty.sync(stream)[0])
    assert log.list() == [1]


def test_a_lost_device_lets_go_of_what_hangs(faulty, tasks):
    stream, log = faulty.stream(), tasks.log()
    with faulty.plan("launch:op#1=hang"):
        tasks.append(faulty, stream, log, 1, name=b"op")
        while faulty.schedule == "eager" and not faulty.state(stream).running:
            pass
        faulty.lose(0)
        while (status := faulty.device_reset(0)) == hal.NOT_READY:
            pass
        faulty.ok(status)
        tasks.append(faulty, stream, log, 2, name=b"op")
        faulty.ok(faulty.sync(stream)[0])
    assert log.list() == [2]


def test_what_is_captured_is_left_alone_and_not_counted(faulty, tasks):
    stream, log = faulty.stream(), tasks.log()
    with faulty.plan("launch:1=error") as plan:
        faulty.ok(faulty.capture_begin(stream, hal.RELAXED))
        tasks.append(faulty, stream, log, 1)
        graph = faulty.end_capture(stream)
        faulty.ok(faulty.graph_launch(graph, stream))
        faulty.ok(faulty.sync(stream)[0])
        assert faulty.fired(plan) == []
    assert log.list() == [1]


def test_shutdown_lets_go_of_what_hangs(faulty, tasks):
    stream, log = faulty.stream(), tasks.log()
    plan = faulty.begin("launch:op#1=hang")
    tasks.append(faulty, stream, log, 1, name=b"op")
    while faulty.schedule == "eager" and not faulty.state(stream).running:
        pass
    assert faulty.shutdown(0) in (hal.OK, hal.NOT_READY)
    faulty.library.end_plan(plan)
