"""Captures of graphs: where they begin and end, which threads they keep from waiting, and that one which goes wrong leaves nothing behind."""

import threading

import pytest
import torch
import torch_openreg  # noqa: F401

pytestmark = pytest.mark.filterwarnings("ignore:The graph is empty")


def test_the_default_stream_is_not_captured():
    graph = torch.openreg.Graph()
    with pytest.raises(RuntimeError, match="other than the default one"):
        graph.capture_begin()
    with pytest.raises(ValueError, match="capture_error_mode is one of"):
        graph.capture_begin(capture_error_mode="strict")
    with pytest.raises(RuntimeError, match="No capture of this graph"):
        graph.capture_end()
    with pytest.raises(RuntimeError, match="no memory pool"):
        graph.pool()


def test_a_capture_ends_on_its_stream_and_a_captured_graph_is_not_captured_again():
    first, second, graph = torch.openreg.Stream(), torch.openreg.Stream(), torch.openreg.Graph()
    with torch.openreg.stream(first):
        graph.capture_begin()
        with pytest.raises(RuntimeError, match="captured already"):
            graph.capture_begin()
        with torch.openreg.stream(second), pytest.raises(RuntimeError, match="ends on the stream on which it began"):
            graph.capture_end()
        with pytest.raises(RuntimeError, match="end the capture before it is reset"):
            graph.reset()
        graph.capture_end()
        with pytest.raises(RuntimeError, match="captured already"):
            graph.capture_begin()
    graph.replay()


def in_thread(function):
    result = []

    def run():
        try:
            result.append(function())
        except Exception as error:
            result.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return result[0]


@pytest.mark.parametrize("mode, disturbs", [("global", True), ("thread_local", False), ("relaxed", False)])
def test_modes_say_which_threads_a_capture_keeps_from_waiting(mode, disturbs):
    x = torch.ones(4, device="openreg")
    x + 1
    event = torch.openreg.current_stream().record_event()
    torch.openreg.synchronize()
    graph = torch.openreg.Graph()
    try:
        with torch.openreg.graph(graph, capture_error_mode=mode):
            outcome = in_thread(lambda: event.query())
            y = x + 1
    except torch.AcceleratorError as error:
        assert disturbs and f"is being captured in mode {mode}" in str(error)
    else:
        assert not disturbs
        graph.replay()
        assert y.tolist() == [2] * 4
    assert isinstance(outcome, torch.AcceleratorError) if disturbs else outcome is True


def test_other_threads_allocate_and_launch_during_a_global_capture():
    x = torch.ones(1 << 20, device="openreg")
    x * 3

    def elsewhere():
        values = [torch.full((1 << 20,), float(i), device="openreg") for i in range(8)]
        return sum(values)

    elsewhere()
    graph = torch.openreg.Graph()
    with torch.openreg.graph(graph):
        y = x * 3
        other = in_thread(elsewhere)
    graph.replay()
    assert y[0].item() == 3 and other[-1].item() == 28


def test_a_graph_that_dies_in_the_middle_of_its_capture_ends_it():
    stream = torch.openreg.Stream()
    with torch.openreg.stream(stream):
        graph = torch.openreg.Graph()
        graph.capture_begin()
        torch.ones(4, device="openreg")
        del graph
        assert not torch.openreg.is_current_stream_capturing()
        assert torch.ones(4, device="openreg").sum().item() == 4


def test_a_capture_that_cannot_begin_leaves_its_stream_alone(python):
    python(
        """
        import torch, torch_openreg
        stream, graph = torch.openreg.Stream(), torch.openreg.Graph()
        with torch.openreg.stream(stream):
            for _ in range(2):
                try:
                    graph.capture_begin()  # the first use of the heap
                except ValueError as error:
                    assert "OPENREG_ALLOC_CONF" in str(error)
                else:
                    raise AssertionError("a capture began without a heap")
                assert not torch.openreg.is_current_stream_capturing()
                torch.openreg.synchronize()
        """,
        env={"OPENREG_ALLOC_CONF": "no_such_key:1"},
    )


def test_a_pool_that_is_being_filled_by_one_capture_is_refused_to_another():
    x = torch.ones(4, device="openreg")
    x + 1
    torch.openreg.synchronize()
    first, second = torch.openreg.Graph(), torch.openreg.Graph()
    streams = [torch.openreg.Stream() for _ in range(2)]
    with torch.openreg.stream(streams[0]):
        first.capture_begin()
        y = x + 1
    with torch.openreg.stream(streams[1]):
        with pytest.raises(RuntimeError, match="already recording"):
            second.capture_begin(pool=first.pool())
        assert not torch.openreg.is_current_stream_capturing()
    with torch.openreg.stream(streams[0]):
        z = y + 1
        first.capture_end()
    first.replay()
    assert z.tolist() == [3] * 4
    with torch.openreg.stream(streams[1]):
        second.capture_begin(pool=first.pool())
        w = x + 3
        second.capture_end()
    second.replay()
    assert w.tolist() == [4] * 4


@pytest.mark.parametrize("sanitize", ["", "races,lifetime"])
def test_a_graph_that_dies_on_another_thread_in_the_middle_of_its_capture_ends_it(python, sanitize):
    python(
        """
        import threading
        import torch, torch_openreg
        x = torch.ones(4, device="openreg")
        x + 1
        torch.openreg.synchronize()
        stream, graphs = torch.openreg.Stream(), [torch.openreg.Graph()]
        with torch.openreg.stream(stream):
            graphs[0].capture_begin()
            x + 1
            thread = threading.Thread(target=graphs.clear)
            thread.start()
            thread.join()
            assert not torch.openreg.is_current_stream_capturing()
            assert (x + 1).tolist() == [2] * 4
        torch.openreg.synchronize()
        assert torch.ones(1 << 26, device="openreg")[-1].item() == 1
        graph = torch.openreg.Graph()
        with torch.openreg.graph(graph):
            y = x + 2
        graph.replay()
        assert y.tolist() == [3] * 4
        """,
        env={"OPENREG_SANITIZE": sanitize} if sanitize else {},
    )
