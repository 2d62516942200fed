"""Late errors: a task that fails is reported, by name, at the next wait for its stream, and only there.

A first call with a new signature waits, so that errors of types and shapes are raised at the call; each test warms
the signature up, because only errors that depend on values are late.
"""

import pytest
import torch
import torch_openreg  # noqa: F401
from torch.nn.functional import embedding

LATE_ERRORS = (torch.AcceleratorError, IndexError)


@pytest.fixture
def lookup(device):
    """Calls embedding with an index of the choice, on the current stream, without a wait."""
    weight = torch.arange(10.0, device=device).reshape(5, 2)
    good, bad = torch.tensor([1, 4], device=device), torch.tensor([1, 77], device=device)
    embedding(good, weight)
    torch.openreg.synchronize(device)
    return lambda is_good: embedding(good if is_good else bad, weight)


def test_a_bad_value_is_reported_at_the_next_synchronization(device, lookup):
    result = lookup(False)
    assert result.shape == (2, 2)
    with pytest.raises(LATE_ERRORS, match="(?s)embedding.*index out of range"):
        torch.openreg.synchronize(device)
    torch.openreg.synchronize(device)
    assert lookup(True).tolist() == [[2, 3], [8, 9]]


@pytest.mark.parametrize(
    "wait",
    [
        lambda stream, event, result: stream.synchronize(),
        lambda stream, event, result: event.synchronize(),
        lambda stream, event, result: torch.openreg.synchronize(stream.device),
        lambda stream, event, result: torch.accelerator.synchronize(stream.device),
        lambda stream, event, result: result.cpu(),
        lambda stream, event, result: result.sum().item(),
        lambda stream, event, result: result.nonzero(),
    ],
    ids=["stream", "event", "device", "accelerator", "copy", "item", "nonzero"],
)
def test_every_kind_of_wait_reports_the_error_once(device, lookup, wait):
    stream = torch.openreg.Stream(device)
    with torch.openreg.stream(stream):
        lookup(True).sum().item()
        lookup(True).nonzero()
        result = lookup(False)
        event = stream.record_event()
        with pytest.raises(LATE_ERRORS, match="embedding"):
            wait(stream, event, result)
        stream.synchronize()
        assert lookup(True).sum().item() == 22


def test_asking_without_waiting_reports_nothing(device, lookup):
    stream = torch.openreg.Stream(device)
    with torch.openreg.stream(stream):
        lookup(False)
        event = stream.record_event()
    while not stream.query():
        pass
    assert event.query()
    del event
    with pytest.raises(LATE_ERRORS):
        stream.synchronize()


def test_work_behind_the_failure_is_skipped_until_it_is_reported(device, lookup):
    stream = torch.openreg.Stream(device)
    marker = torch.zeros(4, device=device)
    torch.openreg.synchronize(device)
    with torch.openreg.stream(stream):
        marker.add_(1)
        lookup(False)
        marker.add_(10)
        with pytest.raises(LATE_ERRORS):
            stream.synchronize()
        marker.add_(100)
    stream.synchronize()
    assert marker.tolist() == [101] * 4


def test_the_first_of_two_failures_is_the_one_reported(device, lookup):
    stream = torch.openreg.Stream(device)
    source = torch.zeros(3, device=device)
    index = torch.tensor([0, 50], device=device)
    source[torch.tensor([0, 1], device=device)]
    torch.openreg.synchronize(device)
    with torch.openreg.stream(stream):
        lookup(False)
        source[index]
        with pytest.raises(LATE_ERRORS, match="embedding"):
            stream.synchronize()
        stream.synchronize()


def test_other_streams_go_on(device, lookup):
    failing, healthy = torch.openreg.Stream(device), torch.openreg.Stream(device)
    elsewhere = torch.openreg.Stream(1 - device.index)
    with torch.openreg.stream(failing):
        lookup(False)
    for stream in (healthy, elsewhere):
        with torch.openreg.stream(stream):
            assert (torch.ones(3, device=stream.device) + 1).sum().item() == 6
    with pytest.raises(LATE_ERRORS):
        failing.synchronize()


def test_a_stream_that_waits_for_a_failed_one_inherits_the_failure(device, lookup):
    failing, waiting = torch.openreg.Stream(device), torch.openreg.Stream(device)
    with torch.openreg.stream(failing):
        lookup(False)
    waiting.wait_stream(failing)
    with torch.openreg.stream(waiting):
        torch.ones(2, device=device)
    with pytest.raises(LATE_ERRORS, match="embedding"):
        waiting.synchronize()
    with pytest.raises(LATE_ERRORS, match="embedding"):
        failing.synchronize()


def test_errors_of_shape_and_type_are_raised_at_the_call(device):
    with pytest.raises(RuntimeError, match="size of tensor a"):
        torch.ones(3, device=device) + torch.ones(4, device=device)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        torch.ones(2, 3, device=device) @ torch.ones(2, 3, device=device)
    with pytest.raises(RuntimeError, match="same device|different from other"):
        torch.ones(2, 2, device="openreg:0") @ torch.ones(2, 2, device="openreg:1")
    with pytest.raises(IndexError):
        torch.ones(3, device=device).sum(dim=2)
    torch.openreg.synchronize(device)


def test_launch_blocking_raises_at_the_call(python):
    python(
        """
        import torch, torch_openreg
        from torch.nn.functional import embedding
        for device in ("openreg:0", "openreg:1"):
            weight = torch.ones(5, 2, device=device)
            embedding(torch.tensor([1], device=device), weight)
            bad = torch.tensor([9], device=device)
            try:
                embedding(bad, weight)
            except (torch.AcceleratorError, IndexError) as error:
                assert "index out of range" in str(error)
            else:
                assert False
            torch.openreg.synchronize(device)
        """,
        env={"OPENREG_LAUNCH_BLOCKING": "1"},
    )


def test_launch_trace_names_the_line_that_launched(python):
    python(
        """
        import torch, torch_openreg
        from torch.nn.functional import embedding
        weight = torch.ones(5, 2, device="openreg")
        good, bad = torch.tensor([1], device="openreg"), torch.tensor([9], device="openreg")

        def look_up(index):
            return torch.embedding(weight, index)

        look_up(good)
        torch.openreg.synchronize()
        look_up(bad)
        try:
            torch.openreg.synchronize()
        except (torch.AcceleratorError, IndexError) as error:
            assert "look_up" in str(error), error
        else:
            assert False
        """,
        env={"OPENREG_LAUNCH_TRACE": "1"},
    )


def test_an_error_that_nobody_asked_for_is_printed_at_exit(python):
    result = python(
        """
        import torch, torch_openreg
        from torch.nn.functional import embedding
        weight = torch.ones(5, 2, device="openreg")
        embedding(torch.tensor([1], device="openreg"), weight)
        bad = torch.tensor([9], device="openreg")
        torch.openreg.synchronize()
        embedding(bad, weight)
        """
    )
    assert "embedding" in result.stderr and "index out of range" in result.stderr


def test_an_accelerator_error_carries_a_code(device, lookup):
    lookup(False)
    with pytest.raises(LATE_ERRORS) as caught:
        torch.openreg.synchronize(device)
    if isinstance(caught.value, torch.AcceleratorError):
        assert isinstance(caught.value.error_code, int)
    message = str(caught.value)
    assert str(device) in message and "OPENREG_LAUNCH_BLOCKING=1" in message
