"""The simulator's schedules: lazy runs nothing unasked, random is a function of program and seed, priorities decide when
workers compete. Needs the simulator."""

import ctypes
import threading
import time

import pytest

import hal


def test_lazy_runs_nothing_until_asked(start_sim, tasks):
    d = start_sim(schedule="lazy")
    first, second, log = d.stream(), d.stream(), tasks.log()
    tasks.append(d, first, log, 1)
    tasks.append(d, second, log, 2)
    event = d.record(first)
    d.ok(d.stream_wait_event(second, event))
    d.ok(d.mem_free(0, d.alloc(4096)))
    time.sleep(0.05)
    assert log.list() == [] and d.state(first).queued == 2
    d.ok(d.sync(first)[0])
    assert log.list() == [1]  # only what was asked for
    d.ok(d.device_synchronize(0, hal.NEVER, None))
    assert log.list() == [1, 2]


def test_lazy_runs_what_a_result_depends_on_and_no_more(start_sim, tasks):
    d = start_sim(schedule="lazy")
    producer, consumer, log = d.stream(), d.stream(1), tasks.log()
    tasks.append(d, producer, log, 1)
    event = d.record(producer)
    tasks.append(d, producer, log, 2)
    d.ok(d.stream_wait_event(consumer, event))
    tasks.append(d, consumer, log, 3)
    d.ok(d.sync(consumer)[0])
    assert log.list() == [1, 3]
    d.ok(d.event_synchronize(event, hal.NEVER, None))
    assert log.list() == [1, 3]


def test_lazy_query_runs_one_task_at_a_time(start_sim, tasks):
    d = start_sim(schedule="lazy")
    stream, other, log = d.stream(), d.stream(), tasks.log()
    for value in range(3):
        tasks.append(d, stream, log, value)
    d.ok(d.stream_wait_event(other, d.record(stream)))
    tasks.append(d, other, log, 9)
    progress = []
    while d.stream_query(other) == hal.NOT_READY:
        progress.append(log.count)
    assert log.list() == [0, 1, 2, 9] and progress[:3] == [1, 2, 3]


def test_lazy_device_synchronize_begins_with_the_most_urgent_stream(start_sim, tasks):
    d = start_sim(schedule="lazy")
    log = tasks.log()
    for priority in (0, -1, -3, -2):
        tasks.append(d, d.stream(0, priority), log, -priority)
    d.ok(d.device_synchronize(0, hal.NEVER, None))
    assert log.list() == [3, 2, 1, 0]


def random_order(start_sim, tasks, seed):
    d = start_sim(schedule=f"random:{seed}")
    streams, log = [d.stream(device) for device in (0, 1) for _ in range(3)], tasks.log()
    for round in range(5):
        for number, stream in enumerate(streams):
            tasks.append(d, stream, log, 10 * number + round)
    d.ok(d.stream_wait_event(streams[0], d.record(streams[5])))
    for number in (3, 0, 5):
        d.ok(d.sync(streams[number])[0])
    d.ok(d.device_synchronize(0, hal.NEVER, None))
    d.ok(d.device_synchronize(1, hal.NEVER, None))
    d.ok(d.shutdown(hal.NEVER))
    order = log.list()
    for number in range(6):
        assert [v for v in order if v // 10 == number] == [10 * number + round for round in range(5)]
    return order


def test_random_is_a_function_of_the_seed(start_sim, tasks):
    orders = [random_order(start_sim, tasks, seed) for seed in range(6)]
    assert orders == [random_order(start_sim, tasks, seed) for seed in range(6)]
    assert len({tuple(order) for order in orders}) == 6


def test_random_runs_nothing_until_asked(start_sim, tasks):
    d = start_sim(schedule="random:1")
    log = tasks.log()
    tasks.append(d, d.stream(), log, 1)
    time.sleep(0.05)
    assert log.list() == []


def test_a_wait_with_a_limit_never_runs_what_could_hold_it(start_sim, tasks):
    d = start_sim()
    for _ in range(20):
        stream = d.stream()
        gate = tasks.gate(d, stream)
        start = time.monotonic()
        assert d.sync(stream, 5_000_000)[0] == hal.NOT_READY
        assert time.monotonic() - start < 5
        gate.open()
        d.ok(d.sync(stream)[0])


class Place(ctypes.Structure):
    _fields_ = [("address", ctypes.c_void_p)]


def threads_that_ran(d, tasks, waits, timeout_ns):
    """The threads that ran the one task of each of many waits."""
    stream, thread, found = d.stream(), ctypes.c_uint64(0), set()
    for _ in range(waits):
        thread.value = 0
        d.launch(stream, tasks.note_thread, Place(ctypes.addressof(thread)))
        d.ok(d.sync(stream, timeout_ns)[0])
        found.add(thread.value)
    return found


def test_a_wait_with_a_limit_runs_tasks_only_when_it_lends_its_thread(start_sim, tasks):
    d = start_sim()
    own = threading.get_native_id()
    assert own not in threads_that_ran(d, tasks, 200, 10_000_000_000)
    lent = threads_that_ran(d, tasks, 200, 10_000_000_000 | hal.LEND_THREAD)
    assert own in lent and 0 not in lent


def test_a_worker_that_stands_back_takes_over_what_nobody_waits_for(start_sim, tasks):
    d = start_sim()
    stream, log = d.stream(), tasks.log()
    for turn in range(1, 6):
        for _ in range(40):
            tasks.append(d, stream, log, turn)
            d.ok(d.sync(stream)[0])
        tasks.append(d, stream, log, turn)
        deadline = time.monotonic() + 20
        while log.count < 41 * turn:
            assert time.monotonic() < deadline
            time.sleep(0.0001)


def test_a_longer_queue_brings_the_worker_back(start_sim, tasks):
    d = start_sim()
    stream, log = d.stream(), tasks.log()
    for _ in range(10):
        tasks.append(d, stream, log, 0)
        d.ok(d.sync(stream)[0])
    for value in range(100):
        tasks.append(d, stream, log, value)
    deadline = time.monotonic() + 20
    while log.count < 110:
        assert time.monotonic() < deadline
        time.sleep(0.0001)
    assert log.list()[10:] == list(range(100))


@pytest.mark.parametrize("first", ["urgent", "relaxed"])
def test_urgent_streams_go_first_when_units_are_contested(start_sim, tasks, first):
    d = start_sim(compute_units=1)
    busy, urgent, relaxed, log = d.stream(), d.stream(0, -3), d.stream(0, 0), tasks.log()
    gate = tasks.gate(d, busy)
    while gate.entered.value == 0:
        time.sleep(0.001)
    for stream, value in [(urgent, 1), (relaxed, 2)] if first == "urgent" else [(relaxed, 2), (urgent, 1)]:
        for _ in range(10):
            tasks.append(d, stream, log, value)
    time.sleep(0.2)  # both workers stand in line for the one unit now
    assert log.list() == []
    gate.open()
    d.ok(d.device_synchronize(0, hal.NEVER, None))
    assert log.list() == [1] * 10 + [2] * 10


def test_an_urgent_stream_overtakes_between_tasks(start_sim, tasks):
    d = start_sim(compute_units=1)
    urgent, relaxed, log = d.stream(0, -3), d.stream(0, 0), tasks.log()
    gates = []
    for value in range(5):
        gates.append(tasks.gate(d, relaxed))
        tasks.append(d, relaxed, log, value)
    while gates[0].entered.value == 0:
        time.sleep(0.001)
    tasks.append(d, urgent, log, 99)
    time.sleep(0.1)
    for gate in gates:
        gate.open()
    d.ok(d.device_synchronize(0, hal.NEVER, None))
    assert log.list()[0] == 99 and sorted(log.list()) == [0, 1, 2, 3, 4, 99]


def test_no_more_tasks_run_at_once_than_units(start_sim, tasks):
    d = start_sim(compute_units=2)
    streams = [d.stream() for _ in range(6)]
    gates = [tasks.gate(d, stream) for stream in streams]
    time.sleep(0.1)
    assert sum(gate.entered.value for gate in gates) == 2
    for gate in gates:
        gate.open()
    d.ok(d.device_synchronize(0, hal.NEVER, None))


def test_waiting_for_an_event_takes_no_unit(start_sim, tasks):
    d = start_sim(compute_units=1)
    producer, consumer, log = d.stream(0, 0), d.stream(0, -3), tasks.log()
    elsewhere = d.stream(1)
    gate = tasks.gate(d, elsewhere)
    event = d.record(elsewhere)
    d.ok(d.stream_wait_event(consumer, event))
    tasks.append(d, consumer, log, 2)
    tasks.append(d, producer, log, 1)
    d.ok(d.sync(producer)[0])  # although the urgent stream waits
    assert log.list() == [1]
    gate.open()
    d.ok(d.sync(consumer)[0])
    assert log.list() == [1, 2]


@pytest.mark.parametrize("schedule", ["eager", "lazy", "random:1"])
def test_a_task_that_waits_for_itself_is_refused_instead_of_hanging(start_sim, schedule):
    d = start_sim(schedule=schedule)
    stream = d.stream()
    seen = []
    d.call(stream, lambda: seen.append((d.sync(stream)[0], d.message())))
    d.ok(d.sync(stream)[0])
    assert seen[0][0] == hal.INTERNAL and "never happen" in seen[0][1]


def test_the_log_has_what_each_thread_queued_and_what_ran(start_sim, tasks, tmp_path):
    d = start_sim(schedule="random:4", schedule_log=tmp_path / "order")
    first, second, log = d.stream(), d.stream(1), tasks.log()
    one, two = d.state(first).stream_id, d.state(second).stream_id

    def queue(stream, name):
        for value in range(3):
            tasks.append(d, stream, log, value, name=name)

    queue(first, b"mul")
    thread = threading.Thread(target=queue, args=(second, b"add"))
    thread.start()
    thread.join()
    d.ok(d.device_synchronize(0, hal.NEVER, None))
    d.ok(d.device_synchronize(1, hal.NEVER, None))
    lines = (tmp_path / "order").read_text().splitlines()
    first_thread = lines[0].split()[1]
    second_thread = lines[3].split()[1]
    assert lines[:6] == [f"queue {first_thread} {one} mul"] * 3 + [f"queue {second_thread} {two} add"] * 3 and first_thread != second_thread
    assert sorted(lines[6:]) == sorted([f"run {one} mul"] * 3 + [f"run {two} add"] * 3)
    while d.exchange("schedule", "eager")[0] == hal.NOT_READY:
        pass
    queue(first, b"sub")
    d.ok(d.sync(first)[0])
    assert len((tmp_path / "order").read_text().splitlines()) == 12  # of random only


def test_a_log_that_cannot_be_written_stops_the_start(sim_path, tmp_path):
    d = hal.Driver(sim_path)
    pair = (hal.Option * 1)(hal.Option(b"schedule_log", str(tmp_path / "no" / "order").encode()))
    assert d.init(pair, 1) == hal.INVALID_VALUE and "cannot be written" in d.message()


# ---- Changing the schedule ----


def test_the_schedule_changes_when_nothing_is_queued(start_sim, tasks):
    d = start_sim()
    stream, log = d.stream(), tasks.log()
    gate = tasks.gate(d, stream)
    while gate.entered.value == 0:
        time.sleep(0.001)
    assert d.exchange("schedule", "lazy") == (hal.NOT_READY, "")
    assert d.exchange("schedule") == (hal.OK, "eager")
    gate.open()
    d.ok(d.sync(stream)[0])
    while (answer := d.exchange("schedule", "lazy"))[0] == hal.NOT_READY:
        pass  # the worker gives the stream up a moment after the wait for it has ended
    assert answer == (hal.OK, "eager")

    tasks.append(d, stream, log, 1)  # the stream has a worker, which stands aside now
    tasks.append(d, d.stream(1), log, 2)
    time.sleep(0.1)
    assert log.list() == [] and d.exchange("schedule", "eager")[0] == hal.NOT_READY
    assert d.stream_query(stream) == hal.OK and log.list() == [1]  # polling makes progress
    d.ok(d.device_synchronize(1, hal.NEVER, None))
    assert d.exchange("schedule", "eager") == (hal.OK, "lazy")

    tasks.append(d, stream, log, 3)
    deadline = time.monotonic() + 20
    while log.count < 3:  # the worker is back
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert log.list() == [1, 2, 3]


def test_a_wait_with_a_limit_runs_tasks_while_workers_stand_aside(start_sim, tasks):
    d = start_sim()
    stream, log = d.stream(), tasks.log()
    tasks.append(d, stream, log, 1)
    d.ok(d.sync(stream)[0])
    while d.exchange("schedule", "lazy")[0] == hal.NOT_READY:
        pass
    tasks.append(d, stream, log, 2)
    d.ok(d.sync(stream, 10_000_000_000)[0])
    assert log.list() == [1, 2]


def test_streams_are_destroyed_under_another_schedule_than_they_began_with(start_sim, tasks):
    d = start_sim()
    streams, log = [d.stream() for _ in range(4)], tasks.log()
    for stream in streams:
        tasks.append(d, stream, log, 1)
    d.ok(d.device_synchronize(0, hal.NEVER, None))
    while d.exchange("schedule", "lazy")[0] == hal.NOT_READY:
        pass
    for stream in streams:
        tasks.append(d, stream, log, 2)
        d.ok(d.stream_destroy(stream))
    d.ok(d.device_synchronize(0, hal.NEVER, None))
    assert log.list() == [1] * 4 + [2] * 4


def test_each_random_schedule_begins_with_its_seed(start_sim, tasks):
    d = start_sim(schedule="lazy")
    streams, orders = [d.stream() for _ in range(4)], []
    for schedule in ("random:5", "random:6", "random:5"):
        log = tasks.log()
        assert d.exchange("schedule", schedule)[0] == hal.OK
        for value in range(20):
            tasks.append(d, streams[value % 4], log, value)
        d.ok(d.device_synchronize(0, hal.NEVER, None))
        orders.append(log.list())
    assert orders[0] == orders[2] != orders[1]
    assert d.exchange("schedule", "lazy") == (hal.OK, "random:5")


def test_what_cannot_change_is_refused_and_changes_nothing(start_sim):
    d = start_sim(schedule="random:3")
    for key, value, status, word in [("schedule", "fast", hal.INVALID_VALUE, "fast"), ("schedule", "random:", hal.INVALID_VALUE, "random:"),
                                     ("devices", "3", hal.UNSUPPORTED, "devices"), ("color", "red", hal.INVALID_VALUE, "color")]:
        assert d.exchange(key, value)[0] == status and word in d.message()
    assert d.option_exchange(None, None, None, 0) == hal.INVALID_VALUE
    assert d.option_exchange(b"schedule", None, ctypes.create_string_buffer(4).raw, 4) == hal.INVALID_VALUE
    stream = d.stream()
    d.ok(d.capture_begin(stream, 0))
    assert d.exchange("schedule", "eager")[0] == hal.INVALID_VALUE and "captured" in d.message()
    assert d.exchange("schedule") == (hal.OK, "random:3")
    d.ok(d.graph_destroy(d.end_capture(stream)))  # the capture was not spoiled
    assert d.exchange("schedule", "eager") == (hal.OK, "random:3")


def test_threads_that_work_while_the_schedule_changes(start_sim, tasks):
    d = start_sim()
    logs = [tasks.log() for _ in range(3)]

    def work(log):
        stream = d.stream()
        for value in range(400):
            tasks.append(d, stream, log, value)
            if value % 7 == 0:
                d.ok(d.sync(stream)[0])
            if value % 5 == 0:
                d.stream_query(stream)
        d.ok(d.sync(stream)[0])

    threads = [threading.Thread(target=work, args=(log,)) for log in logs]
    for thread in threads:
        thread.start()
    changes = 0
    while any(thread.is_alive() for thread in threads):
        status, _ = d.exchange("schedule", ("lazy", "random:1", "eager")[changes % 3])
        changes += status == hal.OK
    for thread in threads:
        thread.join()
    assert all(log.list() == list(range(400)) for log in logs)
