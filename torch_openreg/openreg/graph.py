"""Graphs: work captured once and replayed with one call, as in torch.cuda.graphs.

A capture records what streams would run, with its addresses; a replay runs it again on whatever those addresses hold
then. So inputs are copied into the tensors that the capture saw, and results are read from the tensors that it made.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from torch_openreg import _C

from . import initialization
from .device import current_device, synchronize
from .memory import empty_cache
from .stream import Stream, StreamContext, current_stream

_MODES = {"default": 0, "global": 1, "thread_local": 2, "relaxed": 3}


def is_current_stream_capturing() -> bool:
    """Whether the current stream of the current device is being captured."""
    return _C.is_current_stream_capturing()


def graph_pool_handle() -> tuple[int, int]:
    """A new id for the `pool` argument of graphs that share their memory."""
    initialization._lazy_init()
    return _C.new_memory_pool_id(True)


class Graph(_C.Graph):
    """Captured work, as torch.cuda.CUDAGraph.

    Args:
        keep_graph: whether `instantiate` has to be called, or the first replay does it, instead of `capture_end`.
    """

    def __init__(self, keep_graph: bool = False) -> None:
        initialization._lazy_init()
        super().__init__(keep_graph)

    def capture_begin(self, pool: tuple[int, int] | None = None, capture_error_mode: str = "global") -> None:
        """Captures the current stream, which is not the default one, from here to `capture_end`.

        Args:
            pool: `graph_pool_handle()` or another graph's `pool()`, to share memory with graphs that are always replayed in
                the order of their captures; None for memory of its own.
            capture_error_mode: which threads may not wait, query, allocate or free meanwhile: all ("global"), this one
                ("thread_local"), none ("relaxed").
        """
        if capture_error_mode not in _MODES:
            raise ValueError(f"capture_error_mode is one of {', '.join(map(repr, _MODES))}, not {capture_error_mode!r}.")
        super().capture_begin(pool, _MODES[capture_error_mode])

    def register_generator_state(self, generator: torch.Generator) -> None:
        """Makes a generator's numbers go on from replay to replay. The device's default generator needs no call."""
        super().register_generator(generator)


class graph:
    """Context manager: what the block enqueues becomes the graph's, as torch.cuda.graph.

    Args:
        openreg_graph: an empty Graph.
        pool, capture_error_mode: see Graph.capture_begin.
        stream: the stream to capture; None for one of the current device that this class keeps for the purpose.
    """

    _streams: dict[int, Stream] = {}

    def __init__(self, openreg_graph: Graph, pool: tuple[int, int] | None = None, stream: torch.Stream | None = None,
                 capture_error_mode: str = "global") -> None:
        if stream is None:
            device = current_device()
            if device not in self._streams:
                self._streams[device] = Stream(device)
            stream = self._streams[device]
        self.openreg_graph = openreg_graph
        self.capture_stream = stream
        self._context = StreamContext(stream)
        self._arguments = pool, capture_error_mode

    def __enter__(self) -> None:
        synchronize(self.capture_stream.device)
        if torch.compiler.config.force_cudagraph_gc:
            gc.collect()
        empty_cache()
        torch.accelerator.empty_host_cache()
        self._context.__enter__()
        try:
            self.openreg_graph.capture_begin(*self._arguments)
        except BaseException:
            self._context.__exit__()
            raise

    def __exit__(self, *exc_info: object) -> None:
        try:
            self.openreg_graph.capture_end()
        finally:
            self._context.__exit__(*exc_info)


# ---- Graphed callables ------------------------------------------------------


class _Captured:
    """One callable's forward and backward graphs, with the tensors that they read and write."""

    def __init__(self, function: Callable[..., Any], arguments: Sequence[torch.Tensor]) -> None:
        self.function = function
        self.arguments = arguments
        self.parameters = tuple(function.parameters()) if isinstance(function, torch.nn.Module) else ()
        self.inputs = tuple(pytree.tree_leaves(arguments)) + self.parameters
        self.forward, self.backward = Graph(), Graph()
        self.outputs: tuple[torch.Tensor, ...] = ()
        self.differentiable: tuple[bool, ...] = ()
        self.output_spec: Any = None
        self.output_gradients: tuple[torch.Tensor | None, ...] = ()
        self.input_gradients: tuple[torch.Tensor | None, ...] = ()

    def wanted(self) -> list[torch.Tensor]:
        return [value for value in self.inputs if value.requires_grad]

    def warm_up(self, allow_unused: bool) -> None:
        outputs = [value for value in pytree.tree_leaves(self.function(*self.arguments)) if value.requires_grad]
        if outputs and self.wanted():
            torch.autograd.grad(outputs, self.wanted(), [torch.zeros_like(value) for value in outputs],
                                only_inputs=True, allow_unused=allow_unused)

    def capture_forward(self, pool: tuple[int, int]) -> None:
        with graph(self.forward, pool=pool):
            result = self.function(*self.arguments)
        leaves, self.output_spec = pytree.tree_flatten(result)
        self.outputs = tuple(leaves)
        self.differentiable = tuple(value.requires_grad for value in leaves)

    def capture_backward(self, pool: tuple[int, int], allow_unused: bool) -> None:
        self.output_gradients = tuple(torch.empty_like(value) if value.requires_grad else None for value in self.outputs)
        differentiable = [value for value in self.outputs if value.requires_grad]
        if not differentiable or not self.wanted():
            self.input_gradients = (None,) * len(self.inputs)
        else:
            self._capture_gradients(differentiable, pool, allow_unused)
        # Without their history, whose nodes would tie later backward passes to the stream of the capture.
        self.outputs = tuple(value.detach() for value in self.outputs)

    def _capture_gradients(self, differentiable: list[torch.Tensor], pool: tuple[int, int], allow_unused: bool) -> None:
        with graph(self.backward, pool=pool):
            gradients = torch.autograd.grad(differentiable, self.wanted(), [g for g in self.output_gradients if g is not None],
                                            only_inputs=True, allow_unused=allow_unused)
        given = iter(gradients)
        self.input_gradients = tuple(next(given) if value.requires_grad else None for value in self.inputs)


def _copy_into(static: torch.Tensor, value: torch.Tensor) -> None:
    if static.data_ptr() != value.data_ptr():
        static.copy_(value)


def _replaying(captured: _Captured) -> Callable[..., Any]:
    given_count = len(captured.inputs) - len(captured.parameters)

    class Replay(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            for static, value in zip(captured.inputs[:given_count], inputs[:given_count]):
                _copy_into(static, value)
            captured.forward.replay()
            outputs = tuple(value.detach() for value in captured.outputs)
            ctx.mark_non_differentiable(*(value for value, wanted in zip(outputs, captured.differentiable) if not wanted))
            return outputs

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
            for static, value in zip(captured.output_gradients, gradients):
                if static is not None:
                    _copy_into(static, value)
            captured.backward.replay()
            # The tensors themselves: because they are held here, too, AccumulateGrad copies them and does not make them a `.grad`
            # that the next replay would overwrite.
            return captured.input_gradients

    def call(*arguments: Any) -> Any:
        outputs = Replay.apply(*pytree.tree_leaves(arguments), *captured.parameters)
        return pytree.tree_unflatten(list(outputs), captured.output_spec)

    return call


def _as_module(module: torch.nn.Module, replaying: Callable[..., Any]) -> torch.nn.Module:
    """The module, whose forward replays in the mode that was captured and runs as ever in the other."""
    eager, training = module.forward, module.training

    def forward(*arguments: Any) -> Any:
        return replaying(*arguments) if module.training == training else eager(*arguments)

    module.forward = forward
    return module


def _check_callable(function: Callable[..., Any], arguments: Sequence[torch.Tensor]) -> None:
    for value in pytree.tree_leaves(arguments):
        if not isinstance(value, torch.Tensor):
            raise TypeError("make_graphed_callables takes sample arguments that are tensors, or containers of tensors.")
        if value.device.type != "openreg":
            raise ValueError(f"make_graphed_callables takes sample arguments on an openreg device, and one is on {value.device}: a graph holds no work of it.")
    if not isinstance(function, torch.nn.Module):
        return
    if function._backward_hooks or function._forward_hooks or function._forward_pre_hooks:
        raise RuntimeError("A module must not have hooks when make_graphed_callables captures it; register them afterwards.")
    if any(buffer.requires_grad for buffer in function.buffers()):
        raise RuntimeError("A module's buffers must not require gradients when make_graphed_callables captures it.")


def make_graphed_callables(callables: Any, sample_args: Any, num_warmup_iters: int = 3, allow_unused_input: bool = False,
                           pool: tuple[int, int] | None = None) -> Any:
    """Functions or modules whose forward and backward are graphs, as torch.cuda.make_graphed_callables.

    Args:
        callables: one, or a tuple in the order in which a step calls them; they share memory, so keep that order.
        sample_args: for each a tuple of tensors with the sizes, dtypes and `requires_grad` of later calls.
        num_warmup_iters: how often each runs before it is captured.
        allow_unused_input: whether an input or parameter may have no gradient.
        pool: see Graph.capture_begin.

    A module comes back as itself, with another `forward`; in the training mode that it was not captured in it runs as
    before. Second derivatives are not captured.
    """
    if torch.is_autocast_enabled("openreg") and torch.is_autocast_cache_enabled():
        raise RuntimeError("make_graphed_callables does not work with autocast's cache; pass cache_enabled=False to autocast.")
    single = not isinstance(callables, tuple)
    functions, samples = ((callables,), (sample_args,)) if single else (callables, sample_args)
    for function, arguments in zip(functions, samples, strict=True):
        _check_callable(function, arguments)
    captured = [_Captured(function, arguments) for function, arguments in zip(functions, samples)]
    chosen = graph_pool_handle() if pool is None else pool

    side = Stream()
    side.wait_stream(current_stream())
    with StreamContext(side):
        for part in captured:
            for _ in range(num_warmup_iters):
                part.warm_up(allow_unused_input)
    synchronize()
    for part in captured:
        part.capture_forward(chosen)
    for part in reversed(captured):
        part.capture_backward(chosen, allow_unused_input)

    results = tuple(_as_module(part.function, _replaying(part)) if isinstance(part.function, torch.nn.Module) else _replaying(part)
                    for part in captured)
    return results[0] if single else results
