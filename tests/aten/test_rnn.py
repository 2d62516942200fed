"""Recurrent networks: core sends their cells to fused operators that the backend must bring. Values and gradients against
the CPU.

Needs the built extension.
"""

import copy

import pytest
import torch
from parity import assert_like, check, check_gradients

import torch_openreg  # noqa: F401  (registers the device)

NETWORKS = {
    "lstm": lambda: torch.nn.LSTM(4, 5),
    "lstm two layers": lambda: torch.nn.LSTM(4, 5, num_layers=2, batch_first=True),
    "lstm both ways": lambda: torch.nn.LSTM(4, 5, bidirectional=True, bias=False),
    "lstm projected": lambda: torch.nn.LSTM(4, 5, proj_size=3),
    "gru": lambda: torch.nn.GRU(4, 5),
    "gru two layers": lambda: torch.nn.GRU(4, 5, num_layers=2, bidirectional=True),
    "gru no bias": lambda: torch.nn.GRU(4, 5, bias=False, batch_first=True),
    "rnn tanh": lambda: torch.nn.RNN(4, 5),
    "rnn relu": lambda: torch.nn.RNN(4, 5, num_layers=2, nonlinearity="relu"),
}
CELLS = {
    "lstm": lambda **options: torch.nn.LSTMCell(4, 5, **options),
    "gru": lambda **options: torch.nn.GRUCell(4, 5, **options),
    "rnn": lambda **options: torch.nn.RNNCell(4, 5, **options),
}


def gradients(module, x, run):
    """(outputs, gradients of the input and of all parameters) of a module on the device of x."""
    results = run(module, x)
    leaves = [t for t in torch.utils._pytree.tree_leaves(results) if isinstance(t, torch.Tensor) and t.is_floating_point()]
    wanted = [x, *module.parameters()]
    torch.manual_seed(5)
    cotangents = [torch.randn(t.shape, dtype=t.dtype).to(t.device) for t in leaves]
    return [leaf.detach() for leaf in leaves], list(torch.autograd.grad(leaves, wanted, cotangents))


def compare(module, x, run, device):
    want = gradients(module, x.clone().requires_grad_(), run)
    twin = copy.deepcopy(module).to(device)
    got = gradients(twin, x.clone().to(device).requires_grad_(), run)
    assert_like(got, want, device, rtol=1e-4, atol=1e-5, strides=False)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_gives_the_cpus_values_and_gradients(name, device):
    module = NETWORKS[name]()
    compare(module, torch.randn(6, 3, 4), lambda m, x: m(x), device)
    compare(module, torch.randn(6, 4), lambda m, x: m(x), device)


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn tanh"])
def test_networks_take_initial_states_and_packed_sequences(name, device):
    module = NETWORKS[name]()

    def state(x, batch):
        hidden = torch.full((1, batch, 5), 0.3, device=x.device)
        return (hidden, hidden * 2) if name == "lstm" else hidden

    compare(module, torch.randn(6, 3, 4), lambda m, x: m(x, state(x, 3)), device)

    def packed(m, x):
        sequence = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor([6, 4, 1]))
        output, last = m(sequence)
        padded, lengths = torch.nn.utils.rnn.pad_packed_sequence(output)
        assert lengths.tolist() == [6, 4, 1] and lengths.device.type == "cpu"
        return padded, last

    compare(module, torch.randn(6, 3, 4), packed, device)


def test_unsorted_lengths(device):
    module = NETWORKS["lstm"]()

    def packed(m, x):
        sequence = torch.nn.utils.rnn.pack_padded_sequence(x, [2, 6, 4], enforce_sorted=False)
        return torch.nn.utils.rnn.pad_packed_sequence(m(sequence)[0])[0]

    compare(module, torch.randn(6, 3, 4), packed, device)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", CELLS)
def test_a_cell_gives_the_cpus_values_and_gradients(name, bias, device):
    module = CELLS[name](bias=bias)

    def run(m, x):
        state = torch.full((3, 5), 0.2, device=x.device)
        for _ in range(3):
            state = m(x, (state, state)) if name == "lstm" and isinstance(state, torch.Tensor) else m(x, state)
        return state

    compare(module, torch.randn(3, 4), run, device)
    compare(module, torch.randn(3, 4), lambda m, x: m(x), device)


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_gradients_of_the_gradients(name, device):
    module = NETWORKS[name]()

    def penalty(x):
        twin = copy.deepcopy(module).to(x.device)
        (gradient,) = torch.autograd.grad(twin(x)[0].pow(2).sum(), x, create_graph=True)
        return gradient

    check_gradients(penalty, torch.randn(3, 2, 4, requires_grad=True), device=device, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_other_dtypes(dtype, device):
    module = torch.nn.LSTM(4, 5).to(dtype)
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-9
    x = torch.randn(4, 2, 4, dtype=dtype)
    check(lambda x: copy.deepcopy(module).to(x.device)(x)[0].detach(), x, device=device, rtol=tolerance, atol=tolerance)


def test_dropout_between_layers_acts_in_training_only(device):
    module = torch.nn.LSTM(4, 8, num_layers=2, dropout=0.5).to(device)
    x = torch.randn(3, 2, 4, device=device)
    assert not torch.equal(module(x)[0], module(x)[0])
    module.eval()
    assert torch.equal(module(x)[0], module(x)[0])
