"""Graphs: capture, replay, memory, random numbers, and what a capture cannot hold."""

import warnings

import pytest
import torch
import torch_openreg  # noqa: F401

DEVICES = ["openreg:0", "openreg:1"]
pytestmark = pytest.mark.filterwarnings("ignore:The graph is empty")  # some tests look at other things than what is captured


def capture(function, device="openreg:0", warm_up=True, **options):
    """(graph, what the function returned in the capture)"""
    with torch.openreg.device(device):
        if warm_up:
            function()
        graph = torch.openreg.Graph()
        with torch.openreg.graph(graph, **options):
            result = function()
    return graph, result


@pytest.mark.parametrize("device", DEVICES)
def test_a_replay_computes_from_what_the_inputs_hold_then(device):
    x = torch.zeros(4, device=device)
    graph, y = capture(lambda: (x * 2 + 1).sum(), device)
    for value in (1.0, 5.0):
        x.fill_(value)
        graph.replay()  # whatever device is current
        assert y.item() == 4 * (2 * value + 1)


@pytest.mark.parametrize("device", DEVICES)
def test_an_empty_graph_is_a_warning(device):
    x, stream = torch.ones(4, device=device), torch.openreg.Stream(device)
    x.add_(1)
    with pytest.warns(UserWarning, match=f"graph is empty: no task was enqueued on stream {stream.stream_id} of {device}"):
        with torch.openreg.graph(torch.openreg.Graph(), stream=stream, capture_error_mode="relaxed"):
            with torch.openreg.stream(torch.openreg.default_stream(device)):
                x.add_(1)  # runs now
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        capture(lambda: x.zero_(), device)
        capture(lambda: x.clone(), device)
        capture(lambda: torch.openreg.current_stream().launch_host_func(int), device)


def test_nothing_runs_during_the_capture():
    x = torch.zeros(4, device="openreg")
    graph, _ = capture(lambda: x.add_(1))  # once for the warm-up
    assert x.tolist() == [1] * 4
    graph.replay()
    graph.replay()
    assert x.tolist() == [3] * 4


def test_the_graph_of_torch_accelerator():
    x = torch.zeros(4, device="openreg")
    x.exp()
    stream, graph = torch.Stream(device="openreg"), torch.accelerator.Graph()
    assert not torch.openreg.is_current_stream_capturing()
    with stream, graph:
        assert torch.openreg.is_current_stream_capturing()
        y = x.exp()
    assert not torch.openreg.is_current_stream_capturing()
    graph.replay()
    assert y.tolist() == [1] * 4
    graph.reset()
    with stream, graph:
        y = x.exp()
    x.fill_(float("-inf"))
    graph.replay()
    assert y.tolist() == [0] * 4


def test_replays_are_in_order_with_the_stream_that_they_are_on():
    x = torch.zeros(1000, device="openreg")
    graph, _ = capture(lambda: x.mul_(2).add_(1))
    expected = x.cpu()
    streams = [torch.Stream(device="openreg") for _ in range(3)]
    for i in range(6):
        with streams[i % 3]:
            graph.replay()  # a graph's launches wait for each other
        expected = expected * 2 + 1
    torch.openreg.synchronize()
    assert torch.equal(x.cpu(), expected)


def test_side_streams_are_forked_and_joined_in_a_capture():
    x = torch.ones(64, device="openreg")
    side = torch.openreg.Stream()

    def step():
        current = torch.openreg.current_stream()
        left = x * 2
        side.wait_stream(current)
        with torch.openreg.stream(side):
            right = x * 3
        current.wait_stream(side)
        right.record_stream(current)
        return left + right

    graph, y = capture(step)
    x.fill_(2)
    for _ in range(3):
        graph.replay()
    assert y.tolist() == [10] * 64


def test_a_side_stream_that_is_not_joined_is_an_error():
    x = torch.ones(4, device="openreg")
    side = torch.openreg.Stream()
    x * 2
    with pytest.raises(torch.AcceleratorError, match="was forked off the capture and not joined"):
        with torch.openreg.graph(torch.openreg.Graph()):
            side.wait_stream(torch.openreg.current_stream())
            with torch.openreg.stream(side):
                x * 2
    assert (x + 1).tolist() == [2] * 4


# ---- What a capture forbids -------------------------------------------------

FORBIDDEN = {
    "item": lambda x: x.sum().item(),
    "nonzero": lambda x: x.nonzero(),
    "to the host": lambda x: x.cpu(),
    "stream": lambda x: torch.openreg.current_stream().synchronize(),
    "query": lambda x: torch.openreg.current_stream().query(),
    "device": lambda x: torch.openreg.synchronize(),
    "event": lambda x: torch.openreg.current_stream().record_event().synchronize(),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_waiting_in_a_capture_fails_and_leaves_the_device_usable(what):
    x = torch.ones(4, device="openreg")
    FORBIDDEN[what](x)
    graph = torch.openreg.Graph()
    with pytest.raises(torch.AcceleratorError, match="The capture failed, and there is no graph") as failure:
        with torch.openreg.graph(graph):
            with pytest.raises(torch.AcceleratorError, match="is being captured|was recorded in a capture"):
                FORBIDDEN[what](x)
    assert "captur" in str(failure.value)
    with pytest.raises(RuntimeError, match="no captured graph to replay"):
        graph.replay()
    assert not torch.openreg.is_current_stream_capturing()
    with torch.openreg.graph(graph):  # the same object again
        y = x + x
    graph.replay()
    assert y.tolist() == [2] * 4


def test_operators_with_known_metadata_need_no_warm_up(python):
    python("""
        import torch, torch_openreg
        x = torch.arange(6.0, device="openreg").reshape(2, 3)
        w = torch.ones(3, 4, device="openreg", requires_grad=True)
        graph = torch.openreg.Graph()
        with torch.openreg.graph(graph):
            y = torch.nn.functional.gelu(x @ w).softmax(1).square().sum()
            gradient, = torch.autograd.grad(y, w)
        graph.replay()
        a, b = x.cpu(), w.detach().cpu().requires_grad_()
        expected = torch.nn.functional.gelu(a @ b).softmax(1).square().sum()
        wanted, = torch.autograd.grad(expected, b)
        torch.testing.assert_close(y.cpu(), expected)
        torch.testing.assert_close(gradient.cpu(), wanted)
    """)


@pytest.mark.parametrize("environment", [{"OPENREG_LAUNCH_BLOCKING": "1"}, {"OPENREG_SCHEDULE": "lazy"}, {"OPENREG_SCHEDULE": "random:5"},
                                         {"OPENREG_KERNEL_VIEW": "off"}], ids=lambda e: "=".join(*e.items()))
def test_graphs_under_other_settings(python, environment):
    python("""
        import os, torch, torch_openreg
        x, w = torch.ones(4, 4, device="openreg"), torch.full((4, 4), 2.0, device="openreg")
        def step():
            return (x @ w).relu().cumsum(0)
        step()
        graph = torch.openreg.Graph()
        with torch.openreg.graph(graph):
            y = step()
        for value in (3.0, 4.0):
            x.fill_(value)
            graph.replay()
            assert y[:, 0].tolist() == [8 * value * row for row in (1, 2, 3, 4)], y
        if os.environ.get("OPENREG_KERNEL_VIEW") == "off":
            try:
                with torch.openreg.graph(torch.openreg.Graph()):
                    torch.rand(3, device="openreg")
            except NotImplementedError as error:
                assert "no kernel view" in str(error)
            else:
                raise AssertionError("random numbers drawn on the host were captured")
    """, env=environment)


def test_an_operator_that_never_ran_is_named_with_what_to_do():
    x = torch.ones(3, 5, device="openreg")
    with pytest.raises(torch.AcceleratorError):
        with torch.openreg.graph(torch.openreg.Graph()):
            with pytest.raises(torch.AcceleratorError, match="aten::nonzero has to wait for its result.*warm the function up first"):
                x.nonzero()


# ---- Memory -----------------------------------------------------------------


def pool_bytes(pool):
    return sum(segment["total_size"] for segment in torch.openreg.memory_snapshot(pool))


def test_captured_memory_is_nobody_elses_while_the_graph_lives():
    x = torch.ones(1 << 18, device="openreg")

    def chain():
        y = x
        for _ in range(4):
            y = y + 1  # the intermediate values' blocks are reused within the graph
        return y.sum()

    graph, total = capture(chain)
    pool = graph.pool()
    segments = [range(s["address"], s["address"] + s["total_size"]) for s in torch.openreg.memory_snapshot(pool)]
    assert pool_bytes(pool) < 4 * x.nbytes + (40 << 20)
    others = [torch.full_like(x, 7.0) for _ in range(16)]
    torch.openreg.empty_cache()
    assert segments and not any(value.data_ptr() in segment for value in others for segment in segments)
    graph.replay()
    assert total.item() == 5 * x.numel() and all(value[0].item() == 7 for value in others)
    del total
    graph.reset()
    torch.openreg.empty_cache()
    assert pool_bytes(pool) == 0


@pytest.mark.findings("init", reason="the second capture's warm-up reads what only a replay of the first writes")
def test_graphs_share_a_pool():
    x = torch.ones(1 << 18, device="openreg")
    first, y = capture(lambda: x + 1)
    second, z = capture(lambda: y * 2, pool=first.pool())
    handle = torch.openreg.graph_pool_handle()
    third, _ = capture(lambda: x + 2, pool=handle)
    assert second.pool() == first.pool() and third.pool() == handle != first.pool()
    x.fill_(4)
    first.replay()
    second.replay()
    assert z[0].item() == 10
    first.reset()
    second.replay()
    assert z[0].item() == 10  # y's memory still belongs to the second


def test_a_block_that_a_captured_stream_uses_waits_for_the_end_of_the_capture():
    x = torch.ones(1 << 16, device="openreg")
    x + 1
    free = torch.ones(1 << 16, device="openreg")
    address = free.data_ptr()
    stream = torch.openreg.Stream()
    stream.wait_stream(torch.openreg.current_stream())
    graph = torch.openreg.Graph()
    with torch.openreg.stream(stream):
        graph.capture_begin()
    free.record_stream(stream)
    del free
    meanwhile = torch.empty(1 << 16, device="openreg")
    with torch.openreg.stream(stream):
        graph.capture_end()
    torch.openreg.synchronize()
    assert meanwhile.data_ptr() != address
    again = [torch.empty(1 << 16, device="openreg") for _ in range(8)]
    assert address in [value.data_ptr() for value in again]


def test_copies_with_pinned_memory_are_captured():
    source, target = torch.zeros(8).pin_memory(), torch.zeros(8).pin_memory()
    x = torch.zeros(8, device="openreg")

    def step():
        x.copy_(source, non_blocking=True)
        target.copy_(x * 2, non_blocking=True)

    graph, _ = capture(step)
    source.copy_(torch.arange(8.0))
    graph.replay()
    torch.openreg.synchronize()
    assert target.tolist() == [2.0 * i for i in range(8)]


def test_out_of_memory_in_a_capture_is_an_error_of_the_capture():
    free, _ = torch.openreg.mem_get_info()
    with pytest.raises(torch.OutOfMemoryError):
        with torch.openreg.graph(torch.openreg.Graph()):
            torch.empty(2 * free, dtype=torch.uint8, device="openreg")
    assert torch.ones(2, device="openreg").tolist() == [1, 1]


# ---- Random numbers ---------------------------------------------------------


def draws(generator=None):
    return [torch.rand(5, device="openreg", generator=generator), torch.randn(7, device="openreg", generator=generator),
            torch.randint(100, (3,), device="openreg", generator=generator),
            torch.multinomial(torch.ones(10, device="openreg"), 4, generator=generator)]


@pytest.mark.parametrize("own", [False, True], ids=["default generator", "registered generator"])
def test_replays_draw_the_numbers_that_eager_calls_draw(own):
    generator = torch.Generator("openreg") if own else torch.openreg.default_generators[0]
    draws(generator)
    graph = torch.openreg.Graph()
    if own:
        graph.register_generator_state(generator)
    before = generator.get_state()
    with torch.openreg.graph(graph):
        captured = draws(generator)
    assert torch.equal(generator.get_state(), before)
    for seed in (1, 2):
        generator.manual_seed(seed)
        eager = [draws(generator) for _ in range(3)]
        after = generator.get_state()
        generator.manual_seed(seed)
        for expected in eager:
            graph.replay()
            for value, wanted in zip(captured, expected, strict=True):
                assert torch.equal(value.cpu(), wanted.cpu())
        assert torch.equal(generator.get_state(), after)


@pytest.mark.parametrize("schedule", ["eager", "lazy", "random:3"])
@pytest.mark.parametrize("device", DEVICES)
def test_replays_on_several_streams_draw_one_number_after_the_other(schedule, device):
    generator = torch.openreg.default_generators[torch.device(device).index]
    total = torch.zeros(3, device=device, dtype=torch.float64)
    graph, _ = capture(lambda: total.mul_(4).add_(torch.rand(3, device=device, dtype=torch.float64)), device)
    streams = [torch.openreg.Stream(device) for _ in range(3)]
    with torch.openreg.schedule(schedule):
        total.zero_()
        generator.manual_seed(5)
        expected = torch.zeros(3, dtype=torch.float64)
        for _ in range(9):
            expected = expected * 4 + torch.rand(3, device=device, dtype=torch.float64).cpu()
        generator.manual_seed(5)
        torch.openreg.synchronize(device)
        for i in range(9):
            with torch.openreg.stream(streams[i % 3]):
                graph.replay()
        streams[8 % 3].synchronize()
        assert torch.equal(total.cpu(), expected)


def test_a_generator_that_is_not_registered_is_refused():
    generator = torch.Generator("openreg")
    with torch.openreg.graph(torch.openreg.Graph()):
        with pytest.raises(RuntimeError, match="register_generator_state"):
            torch.rand(3, device="openreg", generator=generator)
    with pytest.raises(RuntimeError, match="takes generators of openreg"):
        torch.openreg.Graph().register_generator_state(torch.Generator())


# ---- Whole training steps ---------------------------------------------------


def training(device="openreg"):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Dropout(0.25), torch.nn.Linear(16, 1)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, capturable=True)
    x, y = torch.zeros(32, 8, device=device), torch.zeros(32, 1, device=device)

    def step():
        optimizer.zero_grad(set_to_none=False)
        loss = torch.nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return model, x, y, step


def test_a_replayed_training_step_is_bitwise_the_eager_one():
    batches = [(torch.randn(32, 8), torch.randn(32, 1)) for _ in range(5)]
    results = []
    for graphed in (False, True):
        model, x, y, step = training()
        side = torch.openreg.Stream()
        side.wait_stream(torch.openreg.current_stream())
        with torch.openreg.stream(side):
            for _ in range(3):
                step()
        torch.openreg.synchronize()
        graph = torch.openreg.Graph()
        if graphed:
            with torch.openreg.graph(graph, stream=side):
                loss = step()
        losses = []
        for inputs, targets in batches:
            x.copy_(inputs)
            y.copy_(targets)
            if graphed:
                graph.replay()
            else:
                loss = step()
            losses.append(loss.item())
        results.append((losses, [p.detach().cpu() for p in model.parameters()]))
    (eager_losses, eager), (replayed_losses, replayed) = results
    assert eager_losses == replayed_losses
    for expected, value in zip(eager, replayed, strict=True):
        assert torch.equal(expected, value)


# ---- keep_graph, update, drawing --------------------------------------------


def test_keep_graph_instantiates_later():
    x = torch.zeros(2, device="openreg")
    x + 1
    graph = torch.openreg.Graph(keep_graph=True)
    with pytest.raises(RuntimeError, match="no captured graph"):
        graph.instantiate()
    with torch.openreg.graph(graph):
        y = x + 1
    graph.instantiate()
    graph.replay()
    assert y.tolist() == [1, 1]


def test_update_takes_another_captures_arguments():
    x, y = torch.ones(4, device="openreg"), torch.full((4,), 5.0, device="openreg")
    graph, first = capture(lambda: x * 2)
    other, second = capture(lambda: y * 2)
    different, _ = capture(lambda: y + 2)
    with pytest.raises(ValueError, match="not the same operations"):
        graph.update(different)
    graph.update(other)
    graph.replay()
    assert second.tolist() == [10] * 4
    with pytest.raises(RuntimeError, match="no captured graph"):
        other.replay()


def test_debug_dump_draws_the_operators(tmp_path):
    x = torch.ones(4, device="openreg")
    (x * 2).exp()
    graph = torch.openreg.Graph()
    with torch.openreg.graph(graph):
        (x * 2).exp()
    with pytest.raises(RuntimeError, match="enable_debug_mode"):
        graph.debug_dump(str(tmp_path / "graph.dot"))
    graph.enable_debug_mode()
    graph.debug_dump(str(tmp_path / "graph.dot"))
    text = (tmp_path / "graph.dot").read_text()
    assert text.startswith("digraph") and "aten::mul" in text and "aten::exp" in text


# ---- make_graphed_callables -------------------------------------------------


def gradients_of(call, inputs):
    output = call(*inputs)
    leaves = torch.utils._pytree.tree_leaves(output)
    sum(leaf.square().sum() for leaf in leaves if leaf.requires_grad).backward()
    return leaves


@pytest.mark.filterwarnings("error")
def test_a_graphed_module_has_the_modules_values_and_gradients():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)).to("openreg")
    twin = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)).to("openreg")
    twin.load_state_dict(module.state_dict())
    graphed = torch.openreg.make_graphed_callables(module, (torch.zeros(6, 4, device="openreg", requires_grad=True),))
    assert graphed is module
    for _ in range(2):
        data = torch.randn(6, 4)
        ours, theirs = (data.to("openreg").requires_grad_() for _ in range(2))
        (value,), (expected,) = gradients_of(graphed, (ours,)), gradients_of(twin, (theirs,))
        assert torch.equal(value, expected) and torch.equal(ours.grad, theirs.grad)
        for parameter, other in zip(module.parameters(), twin.parameters(), strict=True):
            assert torch.equal(parameter.grad, other.grad)
    module.eval()
    assert module(torch.zeros(3, 4, device="openreg")).shape == (3, 2)  # not the captured mode: any size


def test_graphed_functions_with_containers_and_unused_inputs():
    weight = torch.randn(4, 4, device="openreg", requires_grad=True)

    def function(pair, unused):
        return {"product": pair[0] @ weight, "sign": pair[1] > 0}

    sample = ((torch.zeros(2, 4, device="openreg", requires_grad=True), torch.zeros(3, device="openreg")),
              torch.zeros(1, device="openreg", requires_grad=True))
    with pytest.raises(RuntimeError, match="unused|not have been used"):
        torch.openreg.make_graphed_callables(function, sample)
    graphed = torch.openreg.make_graphed_callables(function, sample, allow_unused_input=True)
    x = torch.randn(2, 4, device="openreg", requires_grad=True)
    out = graphed((x, torch.tensor([-1.0, 0.0, 1.0], device="openreg")), torch.ones(1, device="openreg", requires_grad=True))
    assert torch.equal(out["product"], x @ weight) and out["sign"].tolist() == [False, False, True] and not out["sign"].requires_grad
    out["product"].sum().backward()
    assert torch.equal(x.grad, torch.ones(2, 4, device="openreg") @ weight.T)


def test_several_graphed_callables_share_memory_in_their_order():
    first, second = torch.nn.Linear(4, 4).to("openreg"), torch.nn.Linear(4, 4).to("openreg")
    expected = second(first(torch.ones(2, 4, device="openreg"))).detach()
    sample = (torch.zeros(2, 4, device="openreg", requires_grad=True),)
    a, b = torch.openreg.make_graphed_callables((first, second), (sample, sample))
    assert torch.equal(b(a(torch.ones(2, 4, device="openreg"))), expected)


def test_what_make_graphed_callables_refuses():
    module = torch.nn.Linear(2, 2).to("openreg")
    with pytest.raises(TypeError, match="sample arguments that are tensors"):
        torch.openreg.make_graphed_callables(module, (3,))
    with pytest.raises(ValueError, match="on an openreg device, and one is on cpu"):
        torch.openreg.make_graphed_callables(module, (torch.zeros(1, 2, device="openreg"), [torch.zeros(1, 2)]))
    module.register_forward_hook(lambda *_: None)
    with pytest.raises(RuntimeError, match="must not have hooks"):
        torch.openreg.make_graphed_callables(module, (torch.zeros(1, 2, device="openreg"),))
    with torch.autocast("openreg"), pytest.raises(RuntimeError, match="cache_enabled=False"):
        torch.openreg.make_graphed_callables(torch.nn.Linear(2, 2).to("openreg"), (torch.zeros(1, 2, device="openreg"),))
