"""Wrong graphs: replays that do nothing, run elsewhere, repeat themselves, or write into other people's memory."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from . import variant


def _alias(tensor):
    """The tensor's memory without its owner."""
    storage = torch._C._construct_storage_from_data_pointer(tensor.data_ptr(), tensor.device, tensor.untyped_storage().nbytes())
    return torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(storage, 0, tensor.shape, tensor.stride())


class Recorder(TorchDispatchMode):
    """A graph that runs what it captures, and remembers addresses."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        place = lambda value: _alias(value) if isinstance(value, torch.Tensor) and not value.is_cpu else value  # noqa: E731
        self.calls.append((function, tree_map(place, args), kwargs or {}, place(result)))
        return result

    def replay(self):
        for function, args, kwargs, result in self.calls:
            result.copy_(function(*args, **kwargs))


@variant({
    "check.graph.a_capture_runs_nothing": "after a warm-up and a capture of x += 1 x is [2.0, 2.0, 2.0, 2.0], expected the warm-up's 1",
    "check.graph.what_a_capture_cannot_hold_is_refused": "reading a value during a capture raised nothing",
    "check.graph.captured_memory_belongs_to_the_graph": "a replay wrote into",
})  # fmt: skip
def graphs_remember_addresses():
    "A capture runs its operators and remembers addresses whose memory it does not keep."
    torch.accelerator.Graph = Recorder


@variant({"check.graph.a_replay_computes_again": "a replay for 5 * 2 + 1 gave"})
def a_replay_does_nothing():
    "replay does nothing."
    torch.accelerator.Graph.replay = lambda self: None


@variant({"check.graph.replays_draw_new_numbers": "two replays drew the same random numbers"})
def replays_repeat_their_numbers():
    "A replay leaves the generator where it was."
    replay = torch.accelerator.Graph.replay

    def wrong(self):
        state = torch.openreg.get_rng_state()
        replay(self)
        torch.openreg.set_rng_state(state)

    torch.accelerator.Graph.replay = wrong


@variant({"check.graph.graphs_run_in_the_order_of_their_stream": "replays between fills of 0 to 4 gave"}, OPENREG_SCHEDULE="lazy")
def replays_are_on_another_stream():
    "A replay runs on a stream of its own."
    replay, streams = torch.accelerator.Graph.replay, []

    def wrong(self):
        streams.append(torch.Stream(device="openreg:0"))
        with streams[-1]:
            replay(self)

    torch.accelerator.Graph.replay = wrong
