"""The mode `poison`: fresh memory has a pattern that values show. Some programs run in forks, with the mode on from their beginning."""

import pytest
import torch
import torch_openreg  # noqa: F401

sanitizer = torch.openreg.sanitizer
FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64]
INTEGERS = {torch.int16: 32767, torch.int32: 2147450879, torch.int64: 9223231297218904063}


@pytest.fixture
def poison():
    sanitizer.enable("poison")
    yield
    sanitizer.disable()


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_a_fresh_tensor_of_floats_is_nan(poison, device, dtype):
    assert torch.empty(100, dtype=dtype, device=device).to(torch.complex64 if dtype.is_complex else torch.float32).isnan().all()


@pytest.mark.parametrize("dtype,number", INTEGERS.items(), ids=str)
def test_a_fresh_tensor_of_integers_is_conspicuous(poison, device, dtype, number):
    assert torch.empty(100, dtype=dtype, device=device).cpu().tolist() == [number] * 100


def test_memory_that_comes_back_is_poisoned_again(poison):
    for _ in range(3):
        a = torch.empty(64, device="openreg")
        assert a.isnan().all()
        a.fill_(1)
        del a


def test_an_operator_that_reads_what_nobody_wrote_shows_it(poison):
    buffer = torch.empty(8, 4, device="openreg")
    buffer[:6] = 1
    assert buffer.sum().isnan() and buffer[:6].sum().item() == 24


def test_an_index_that_nobody_wrote_is_out_of_range(poison):
    table, index = torch.ones(4, 4, device="openreg"), torch.empty(2, dtype=torch.int64, device="openreg")
    with pytest.raises((IndexError, RuntimeError)):
        table.index_select(0, index).cpu()
    torch.openreg.synchronize()


def test_memory_for_another_stream_is_poisoned_in_its_order(poison):
    side = torch.openreg.Stream()
    with torch.openreg.stream(side):
        a = torch.empty(1000, device="openreg")
        b = a + 1
    side.synchronize()
    assert b.isnan().all()


def test_what_a_program_fills_is_as_it_is(poison, device):
    torch.manual_seed(0)
    model, x = torch.nn.Linear(16, 4), torch.randn(8, 16)
    expected = model(x).detach()
    assert torch.allclose(model.to(device)(x.to(device)).cpu(), expected, atol=1e-6)


def test_poison_alone_needs_no_layer(poison):
    assert sanitizer.enabled() == ("poison",) and torch_openreg._C.driver_info()["layers"] == []


def test_poison_is_no_write_for_the_other_modes():
    with sanitizer.collect("races,init,poison") as report:
        side = torch.openreg.Stream()
        a = torch.empty(64, device="openreg")
        with torch.openreg.stream(side):
            a.fill_(1)
        torch.openreg.synchronize()
        assert torch.empty(64, device="openreg").isnan().all()
    assert report.kinds == ["init"], str(report)


def test_the_variable_poisons_a_whole_process(sanitized):
    program = "import torch\nprint(torch.empty(3, device='openreg').tolist())"
    assert sanitized(program, "poison").stdout == "[nan, nan, nan]\n"


def test_a_captured_graph_has_no_fills_of_its_own(poison):
    graph, a = torch.openreg.Graph(), torch.ones(64, device="openreg")
    a.mul(2)
    torch.openreg.synchronize()
    with torch.openreg.graph(graph):
        b = a.mul(2)
    graph.replay()
    assert b.sum().item() == 128
