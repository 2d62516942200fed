"""Late errors: a task that fails is reported, by name, at the next wait for its stream, and only there.

A first call with a new signature waits, so that errors of types and shapes are raised at the call; each test warms
the signature up, because only errors that depend on values are late.
"""

import pytest
import torch
import torch_openreg  # noqa: F401

LATE_ERRORS = (torch.AcceleratorError, IndexError)
OUT_OF_RANGE = "(?s)gather.*index 77 is out of bounds"


@pytest.fixture
def gather(device):
    """Gathers with a good or a bad index, on the current stream, without a wait."""
    source = torch.arange(5.0, device=device)
    good, bad = torch.tensor([1, 4], device=device), torch.tensor([1, 77], device=device)
    source.gather(0, good).sum().item()
    torch.openreg.synchronize(device)
    return lambda is_good: source.gather(0, good if is_good else bad)


def test_a_bad_value_is_reported_at_the_next_synchronization(device, gather):
    result = gather(False)
    assert result.shape == (2,)
    with pytest.raises(LATE_ERRORS, match=OUT_OF_RANGE):
        torch.openreg.synchronize(device)
    torch.openreg.synchronize(device)
    assert gather(True).tolist() == [1, 4]


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
def test_every_kind_of_wait_reports_the_error_once(device, gather, wait):
    stream = torch.openreg.Stream(device)
    with torch.openreg.stream(stream):
        gather(True).nonzero()
        result = gather(False)
        event = stream.record_event()
        with pytest.raises(LATE_ERRORS, match=OUT_OF_RANGE):
            wait(stream, event, result)
        stream.synchronize()
        assert gather(True).sum().item() == 5


def test_asking_without_waiting_reports_nothing(device, gather):
    stream = torch.openreg.Stream(device)
    with torch.openreg.stream(stream):
        gather(False)
        event = stream.record_event()
    while not stream.query():
        pass
    assert event.query()
    del event
    with pytest.raises(LATE_ERRORS):
        stream.synchronize()


def test_work_behind_the_failure_is_skipped_until_it_is_reported(device, gather):
    stream = torch.openreg.Stream(device)
    marker = torch.zeros(4, device=device).add_(0)
    torch.openreg.synchronize(device)
    with torch.openreg.stream(stream):
        marker.add_(1)
        gather(False)
        marker.add_(10)
        with pytest.raises(LATE_ERRORS):
            stream.synchronize()
        marker.add_(100)
    stream.synchronize()
    assert marker.tolist() == [101] * 4


def test_the_first_of_two_failures_is_the_one_reported(device, gather):
    stream = torch.openreg.Stream(device)
    source, other = torch.zeros(3, device=device), torch.tensor([0, 50], device=device)
    torch.openreg.synchronize(device)
    with torch.openreg.stream(stream):
        gather(False)
        source.gather(0, other)
        with pytest.raises(LATE_ERRORS, match=OUT_OF_RANGE):
            stream.synchronize()
        stream.synchronize()


def test_other_streams_go_on(device, gather):
    failing, healthy = torch.openreg.Stream(device), torch.openreg.Stream(device)
    elsewhere = torch.openreg.Stream(1 - device.index)
    with torch.openreg.stream(failing):
        gather(False)
    for stream in (healthy, elsewhere):
        with torch.openreg.stream(stream):
            assert (torch.ones(3, device=stream.device) + 1).sum().item() == 6
    with pytest.raises(LATE_ERRORS):
        failing.synchronize()


def test_a_stream_that_waits_for_a_failed_one_inherits_the_failure(device, gather):
    failing, waiting = torch.openreg.Stream(device), torch.openreg.Stream(device)
    with torch.openreg.stream(failing):
        gather(False)
    waiting.wait_stream(failing)
    with torch.openreg.stream(waiting):
        result = torch.ones(3, device=device) + 1
    with pytest.raises(LATE_ERRORS, match=OUT_OF_RANGE):
        waiting.synchronize()
    del result
    for stream in (failing, waiting):  # one failure is reported once
        stream.synchronize()
        with torch.openreg.stream(stream):
            assert gather(True).tolist() == [1, 4]


def test_a_bad_embedding_index_is_an_error_at_the_latest_at_the_next_wait(device):
    weight = torch.ones(5, 2, device=device)
    torch.nn.functional.embedding(torch.tensor([1], device=device), weight)
    with pytest.raises(LATE_ERRORS, match="index out of range"):
        torch.nn.functional.embedding(torch.tensor([9], device=device), weight)
        torch.openreg.synchronize(device)
    torch.openreg.synchronize(device)


def test_errors_of_shape_and_type_are_raised_at_the_call(device):
    with pytest.raises(RuntimeError, match="size of tensor a"):
        torch.ones(3, device=device) + torch.ones(4, device=device)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        torch.ones(2, 3, device=device) @ torch.ones(2, 3, device=device)
    with pytest.raises(RuntimeError, match="same device|different from other|two devices"):
        torch.ones(2, 2, device="openreg:0") @ torch.ones(2, 2, device="openreg:1")
    with pytest.raises(IndexError):
        torch.ones(3, device=device).sum(dim=2)
    torch.openreg.synchronize(device)


LATE_GATHER = """
import torch, torch_openreg
source = torch.ones(5, device="openreg")
good, bad = torch.tensor([1], device="openreg"), torch.tensor([77], device="openreg")

def look_up(index):
    return source.gather(0, index)

look_up(good)
torch.openreg.synchronize()
"""


def test_launch_blocking_raises_at_the_call(python):
    python(
        LATE_GATHER,
        """
        try:
            look_up(bad)
        except RuntimeError as error:  # the CPU's own type
            assert "index 77 is out of bounds" in str(error)
        else:
            assert False
        torch.openreg.synchronize()
        assert look_up(good).item() == 1
        """,
        env={"OPENREG_LAUNCH_BLOCKING": "1"},
    )


def test_launch_trace_names_the_line_that_launched(python):
    python(
        LATE_GATHER,
        """
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
    result = python(LATE_GATHER, "look_up(bad)")
    assert "gather" in result.stderr and "index 77 is out of bounds" in result.stderr


@pytest.mark.unsanitized("races", "lifetime", "init", "bounds", reason="with its call stacks the line is known")
def test_an_accelerator_error_carries_a_code_and_the_way_to_find_the_line(device, gather):
    gather(False)
    with pytest.raises(torch.AcceleratorError) as caught:
        torch.openreg.synchronize(device)
    assert isinstance(caught.value.error_code, int)
    assert str(device) in str(caught.value) and "OPENREG_LAUNCH_BLOCKING=1" in str(caught.value)
