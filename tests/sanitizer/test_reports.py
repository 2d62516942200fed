"""What reports say where it is hard to know: calls of autograd's threads, elements that data choose, and functions of the host in stream order."""

import threading

import pytest
import torch
import torch_openreg  # noqa: F401

sanitizer = torch.openreg.sanitizer


def race_with_backward(side):
    """A gradient is read on another stream before backward has written it there: the streams are not joined."""
    weight = torch.ones(16, 16, device="openreg", requires_grad=True)
    out = weight.exp().sum()  # the forward that the report names
    weight.grad = torch.zeros_like(weight)
    torch.openreg.synchronize()
    out.backward()
    with torch.openreg.stream(side):
        return weight.grad.sin()


def test_a_call_of_autograds_thread_names_its_node():
    side = torch.openreg.Stream()
    with sanitizer.collect("races") as report:
        kept = race_with_backward(side)
    assert report.kinds == ["race"], str(report)
    backward = next(access for access in report.findings[0].accesses if access.operator != "aten::sin")
    assert backward.stack.startswith("autograd thread, in "), str(report)
    del kept


def test_a_call_of_autograds_thread_names_the_forward():
    side = torch.openreg.Stream()
    with sanitizer.collect("races") as report:
        a = torch.ones(16, device="openreg", requires_grad=True)
        b = a.exp()
        b.retain_grad()
        torch.openreg.synchronize()
        seen = []
        b.sin().sum().backward(inputs=[a])
        with torch.openreg.stream(side):
            seen.append(b.grad.cos())
    texts = [access.stack for finding in report.findings for access in finding.accesses if access.stack.startswith("autograd thread")]
    assert texts and any("whose forward was called at" in text and "test_a_call_of_autograds_thread_names_the_forward" in text for text in texts), str(report)
    del seen


CHOICES = {
    "index_copy_": lambda a, i: a.index_copy_(0, i, torch.ones(1, 8, device="openreg")),
    "index_add_": lambda a, i: a.index_add_(0, i, torch.ones(1, 8, device="openreg")),
    "index_fill_": lambda a, i: a.index_fill_(0, i, 2.0),
    "scatter_": lambda a, i: a.scatter_(0, i.expand(1, 8), torch.ones(1, 8, device="openreg")),
    "scatter_add_": lambda a, i: a.scatter_add_(0, i.expand(1, 8), torch.ones(1, 8, device="openreg")),
    "index_put_": lambda a, i: a.index_put_((i,), torch.ones(1, 8, device="openreg")),
    "index_put_ after a slice": lambda a, i: a.t().__setitem__((slice(None), i), torch.ones(8, 1, device="openreg")),
    "index_put_ by a mask": lambda a, i: a.index_put_((torch.arange(8, device="openreg") == i,), torch.ones(1, device="openreg")),
    "masked_fill_": lambda a, i: a.masked_fill_((torch.arange(8, device="openreg") == i)[:, None], 3.0),
    "put_": lambda a, i: a.put_(i * 8, torch.ones(1, device="openreg")),
    "index_select": lambda a, i: a.index_select(0, i),
    "gather": lambda a, i: a.gather(0, i.expand(1, 8)),
    "take": lambda a, i: a.take(i * 8),
    "embedding": lambda a, i: torch.nn.functional.embedding(i, a),
    "index": lambda a, i: a[i],
}


def overlap_of(call, row):
    """The report on `call` with the row of an 8x8 matrix chosen by data, beside a stream that writes row 5."""
    side, rows = torch.openreg.Stream(), torch.tensor([row], device="openreg")
    cache = torch.ones(8, 8, device="openreg")
    call(cache, rows)  # the first call of a signature waits
    torch.openreg.synchronize()
    with sanitizer.collect("races") as report:
        kept = [call(cache, rows)]
        with torch.openreg.stream(side):
            cache[5].fill_(0)
        torch.openreg.synchronize()
        assert sanitizer.possible() == []
    del kept
    return report


@pytest.mark.parametrize("name", CHOICES)
def test_an_operator_driven_by_data_touches_the_rows_that_they_choose(name):
    assert overlap_of(CHOICES[name], 5).kinds == ["race"]
    assert not overlap_of(CHOICES[name], 2)


def host_function_program(done, wait):
    host = torch.zeros(64, pin_memory=True)
    host.copy_(torch.ones(64, device="openreg"), non_blocking=True)
    torch.openreg.current_stream().launch_host_func(done.set)
    if wait:
        assert done.wait(60)
    return host.sum()


def test_who_waits_for_a_function_of_the_host_has_waited_for_what_lies_before_it(eager):
    with sanitizer.collect("races,lifetime") as report:
        assert host_function_program(threading.Event(), True).item() == 64
    assert not report, str(report)


def test_who_does_not_wait_for_it_races(sanitized):
    result = sanitized(
        """
import torch, torch_openreg
host = torch.zeros(64, pin_memory=True)  # also memory of before is watched
a = torch.ones(64, device="openreg")
with torch.openreg.sanitizer.collect("races") as report:
    host.copy_(a, non_blocking=True)
    torch.openreg.current_stream().launch_host_func(lambda: None)
    host.sum()
print(report.kinds)
""",
        schedule="lazy",
    )
    assert result.returncode == 0 and result.stdout == "['race']\n", result.stderr


def test_work_behind_a_function_of_the_host_uses_what_it_wrote():
    host, a, side = torch.zeros(64, pin_memory=True), torch.ones(64, device="openreg"), torch.openreg.Stream()
    with torch.openreg.schedule("lazy"), sanitizer.collect("races,lifetime") as report:
        side.launch_host_func(lambda: host.fill_(3))
        torch.openreg.current_stream().wait_stream(side)
        a.copy_(host, non_blocking=True)
        assert a.sum().item() == 192
    assert not report, str(report)


@pytest.mark.parametrize("waits", [True, False])
def test_buffers_that_functions_of_the_host_fill_in_turn(waits):
    buffers = [torch.zeros(64, pin_memory=True) for _ in range(2)]
    a, filler, copier, emptied = torch.ones(64, device="openreg"), torch.openreg.Stream(), torch.openreg.Stream(), [None, None]
    with torch.openreg.schedule("lazy"), sanitizer.collect("races") as report:
        torch.openreg.synchronize()
        for step in range(6):
            buffer = buffers[step % 2]
            if waits and step >= 2:
                filler.wait_event(emptied[step % 2])
            filler.launch_host_func(lambda buffer=buffer, step=step: buffer.fill_(step))
            copier.wait_stream(filler)
            with torch.openreg.stream(copier):
                a.copy_(buffer, non_blocking=True)
            emptied[step % 2] = copier.record_event()
        copier.synchronize()
    assert set(report.kinds) == (set() if waits else {"race"}), str(report)


def test_a_function_of_the_host_in_a_graph_comes_behind_the_copy_before_it():
    host, a, seen = torch.zeros(64, pin_memory=True), torch.ones(64, device="openreg"), []
    with sanitizer.collect("races,lifetime") as report:
        graph = torch.openreg.Graph()
        with torch.openreg.graph(graph):
            host.copy_(a, non_blocking=True)
            torch.openreg.current_stream().launch_host_func(lambda: seen.append(host.sum().item()))
        for value in range(3):
            a.fill_(value)
            graph.replay()
        torch.openreg.synchronize()
    assert not report and seen == [0, 64, 128], str(report)


@pytest.mark.parametrize("wait", [lambda side, event: side.wait_event(event), lambda side, event: event.synchronize()], ids=["stream", "host"])
def test_a_wait_for_an_event_that_was_opened_by_its_handle_orders(wait):
    a, side = torch.ones(64, device="openreg"), torch.openreg.Stream()
    with sanitizer.collect("races,lifetime") as report:
        event = torch.openreg.Event(interprocess=True)
        twin = torch.openreg.Event.from_ipc_handle("openreg:0", event.ipc_handle())
        a.mul_(2)
        event.record()
        wait(side, twin)
        with torch.openreg.stream(side):
            b = a + 1
        side.synchronize()
    assert not report, str(report)
    del b


def test_an_operand_that_is_copied_to_the_device_first_is_no_access_of_the_host():
    a, index = torch.arange(8.0, device="openreg"), torch.zeros(3, dtype=torch.long, pin_memory=True)
    with sanitizer.collect("races,lifetime") as report:
        index.copy_(torch.arange(4, 7, device="openreg"), non_blocking=True)
        b = a[index]
        torch.openreg.synchronize()
    assert not report and b.tolist() == [4, 5, 6], str(report)


@pytest.mark.parametrize("freed", [False, True])
def test_the_first_of_many_reads_is_not_forgotten(freed):
    rows, side = torch.ones(300, 64, device="openreg"), torch.openreg.Stream()
    rows[0].sum()
    with sanitizer.collect("races,lifetime") as report:
        side.wait_stream(torch.openreg.current_stream())
        with torch.openreg.stream(side):
            kept = [row.sum() for row in rows.unbind()]
        if freed:
            rows = None
            rows = torch.empty(300, 64, device="openreg")
        rows[0].fill_(2)
    assert report.kinds == ["lifetime" if freed else "race"], str(report)
    assert "aten::sum" in report.findings[0].accesses[0].operator
    del kept


def test_a_call_that_raises_leaves_memory_to_others(device):
    side = torch.openreg.Stream(device=device)
    with sanitizer.collect("races,init") as report:
        a = torch.ones(64, device=device)
        torch.openreg.synchronize(device)
        with pytest.raises((IndexError, torch.AcceleratorError)):
            a.index_select(0, torch.tensor([99], device=device))
            torch.openreg.synchronize(device)
        with torch.openreg.stream(side):
            a.fill_(1)
    assert not report, str(report)


def test_what_a_skipped_operator_did_not_write_is_unwritten():
    a, index = torch.ones(8, device="openreg"), torch.tensor([1], device="openreg")
    a.index_select(0, index)
    torch.empty(8, device="openreg").fill_(1)
    with sanitizer.collect("init") as report:
        broken = a.index_select(0, index + 98)
        b = torch.empty(8, device="openreg")
        b.fill_(1)
        with pytest.raises(torch.AcceleratorError, match="IndexError"):
            torch.openreg.synchronize()
        c = b.exp()
    assert report.kinds == ["init"], str(report)
    assert "aten::exp" in report.findings[0].sentence
    del broken, c
