"""Graphs (L5): capture and replay with torch.accelerator.Graph, which a device may lack."""

import torch

from . import check


def _graph(probe):
    probe.needs_accelerator()
    try:
        return torch.accelerator.Graph()
    except (RuntimeError, AttributeError) as error:
        probe.needs(False, f"{probe.type} has no graphs: {' '.join(str(error).split())[:200]}")


def _capture(probe, work, stream=None):
    """Captures work() on the stream or one of its own, after a run that warms up. Returns the graph and what work returned."""
    graph, stream = _graph(probe), stream or probe.stream()
    probe.synchronize()
    with stream:
        work()
    probe.synchronize()
    with stream, graph:
        result = work()
    return graph, result


@check
def a_replay_computes_again(probe):
    "A replay runs the captured operators on what their inputs hold now, and writes the same outputs."
    x = torch.ones(4, device=probe.device)
    graph, y = _capture(probe, lambda: x * 2 + 1)
    for value in (5.0, -3.0):
        x.fill_(value)
        probe.synchronize()
        graph.replay()
        probe.synchronize()
        probe.expect(y.cpu().tolist() == [2 * value + 1] * 4, f"a replay for {value:g} * 2 + 1 gave {y.cpu().tolist()}")


@check
def a_capture_runs_nothing(probe):
    "What is captured does not run before the first replay."
    x = torch.zeros(4, device=probe.device)
    graph, _ = _capture(probe, lambda: x.add_(1))
    probe.synchronize()
    probe.expect(x.cpu().tolist() == [1] * 4, f"after a warm-up and a capture of x += 1 x is {x.cpu().tolist()}, expected the warm-up's 1")
    for _ in range(3):
        graph.replay()
    probe.synchronize()
    probe.expect(x.cpu().tolist() == [4] * 4, f"after three replays x is {x.cpu().tolist()}, expected 4")


@check
def what_a_capture_cannot_hold_is_refused(probe):
    "Reading a value during a capture raises at once, there is no graph then, and the device goes on."
    graph, x, raised = _graph(probe), torch.ones(4, device=probe.device), None
    x.sum().item()
    try:
        with probe.stream(), graph:
            try:
                x.sum().item()
            except RuntimeError as error:
                raised = error
    except RuntimeError:
        pass  # the end of a capture that failed may say so again
    probe.expect(raised is not None, "reading a value during a capture raised nothing")
    probe.expect("captur" in str(raised).lower(), f"the error does not speak of a capture: {str(raised)[:200]}")
    probe.synchronize()
    probe.expect((x + 1).cpu().tolist() == [2] * 4, "the device computes wrong after a capture that failed")


@check
def captured_memory_belongs_to_the_graph(probe):
    "Memory that a capture allocated is not given to other tensors while the graph lives."
    _graph(probe)
    x, stream = torch.ones(1000, device=probe.device), probe.stream()

    def work():
        hidden = x + 1
        return hidden * 10

    graph, y = _capture(probe, work, stream)
    with stream:
        others = [torch.full((1000,), 7.0, device=probe.device) for _ in range(8)]
    probe.synchronize()
    graph.replay()
    probe.synchronize()
    probe.expect(y[0].item() == 20, f"the replay gave {y[0].item():g}, expected 20")
    changed = sum(not bool((other.cpu() == 7).all()) for other in others)
    probe.expect(changed == 0, f"a replay wrote into {changed} of 8 tensors that were made after the capture")


@check
def replays_draw_new_numbers(probe):
    "Each replay of a captured random operator draws new numbers, and torch.manual_seed repeats them."
    x = torch.ones(1000, device=probe.device)
    graph, y = _capture(probe, lambda: torch.nn.functional.dropout(x, 0.5))

    def replayed():
        graph.replay()
        probe.synchronize()
        return y.cpu().clone()

    torch.manual_seed(1)
    first, second = replayed(), replayed()
    torch.manual_seed(1)
    again = replayed()
    probe.expect(0.35 < (first != 0).float().mean() < 0.65, "a replayed dropout of 0.5 does not keep half of its input")
    probe.expect(not torch.equal(first, second), "two replays drew the same random numbers")
    probe.expect(torch.equal(first, again), "torch.manual_seed before a replay does not repeat its numbers")


@check
def graphs_run_in_the_order_of_their_stream(probe):
    "A replay comes after the work that is queued on its stream and before what follows."
    x = torch.zeros(2000, device=probe.device)
    graph, y = _capture(probe, lambda: x * 3)
    found = []
    with probe.stream() as stream:
        for value in range(5):
            x.fill_(value)
            graph.replay()
            found.append(y.clone())
    stream.synchronize()
    numbers = [tensor[0].item() for tensor in found]
    probe.expect(numbers == [0, 3, 6, 9, 12], f"replays between fills of 0 to 4 gave {numbers}, expected three times those")
