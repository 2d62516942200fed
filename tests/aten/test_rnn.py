"""Recurrent networks: core sends their cells to fused operators that the backend must bring. Values and gradients against
the CPU.

Needs the built extension.
"""

import copy

import pytest
import torch
from parity import assert_like, check, check_gradients
from torch.nn.utils import rnn

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
    "rnn both ways": lambda: torch.nn.RNN(4, 5, num_layers=2, bidirectional=True, batch_first=True, bias=False),
    "lstm three layers both ways": lambda: torch.nn.LSTM(4, 5, num_layers=3, bidirectional=True),
    "lstm projected both ways": lambda: torch.nn.LSTM(4, 5, num_layers=2, proj_size=2, bidirectional=True, batch_first=True),
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
    compare(module, torch.randn(6, 1, 4), lambda m, x: m(x, state(x, 1)), device)

    def packed(m, x):
        sequence = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor([6, 4, 1]))
        output, last = m(sequence)
        padded, lengths = torch.nn.utils.rnn.pad_packed_sequence(output)
        assert lengths.tolist() == [6, 4, 1] and lengths.device.type == "cpu"
        return padded, last

    compare(module, torch.randn(6, 3, 4), packed, device)


@pytest.mark.parametrize("name", ["lstm two layers", "lstm three layers both ways", "lstm projected both ways", "gru two layers", "rnn both ways"])
def test_unsorted_lengths(name, device):
    module = NETWORKS[name]()
    module.batch_first = False

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


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn tanh", "lstm projected both ways", "gru two layers"])
def test_gradients_of_the_gradients(name, device):
    module = NETWORKS[name]()

    def penalty(x):
        twin = copy.deepcopy(module).to(x.device)
        (gradient,) = torch.autograd.grad(twin(x)[0].pow(2).sum(), x, create_graph=True)
        return gradient

    check_gradients(penalty, torch.randn(3, 2, 4, requires_grad=True), device=device, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", [torch.nn.LSTM, torch.nn.GRU, torch.nn.RNN])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_other_dtypes(kind, dtype, device):
    module = kind(4, 5).to(dtype)
    tolerance = 2e-2 if dtype.itemsize == 2 else 1e-9
    x = torch.randn(4, 2, 4, dtype=dtype)
    check(lambda x: copy.deepcopy(module).to(x.device)(x)[0].detach(), x, device=device, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", NETWORKS)
def test_strides_and_modes_are_the_cpus(name, device):
    module = NETWORKS[name]().eval()

    def run(x):
        with torch.no_grad():
            return copy.deepcopy(module).to(x.device)(x)

    check(run, torch.randn(6, 3, 4), device=device, rtol=1e-4, atol=1e-5)
    check(run, torch.randn(0, 3, 4), device=device, message=False)
    check(run, torch.randn(6, 0, 4), device=device, message=False)
    check(run, torch.randn(6, 3, 5), device=device)
    check(run, torch.randn(6, 3, 4, dtype=torch.float64), device=device, message=False)


def test_packed_sequences_move_and_convert(device):
    padded, lengths = torch.randn(5, 3, 2), torch.tensor([2, 5, 3])
    packed = rnn.pack_padded_sequence(padded, lengths, enforce_sorted=False)
    there = packed.to(device)
    assert there.data.device == device and there.batch_sizes.is_cpu and there.unsorted_indices.device == device
    assert not there.is_cuda and there.cpu().data.is_cpu and there.double().data.dtype == torch.float64
    assert_like(rnn.pad_packed_sequence(there)[0], rnn.pad_packed_sequence(packed)[0], device)
    for function in (
        lambda x: rnn.pack_padded_sequence(x, [5, 3, 2]),
        lambda x: rnn.pack_padded_sequence(x, lengths, enforce_sorted=False),
        lambda x: rnn.pack_padded_sequence(x.transpose(0, 1), lengths, batch_first=True, enforce_sorted=False),
        lambda x: rnn.pack_sequence([x[:, 0], x[:3, 1], x[:1, 2]]),
        lambda x: rnn.pack_sequence([x[:1, 0], x[:3, 1], x[:2, 2]], enforce_sorted=False),
        lambda x: rnn.pad_sequence([x[:2, 0], x[:3, 1]], padding_value=7.0),
        lambda x: rnn.pad_sequence([x[:2, 0], x[:3, 1]], batch_first=True, padding_side="left"),
        lambda x: rnn.unpack_sequence(rnn.pack_sequence([x[:1, 0], x[:3, 1]], enforce_sorted=False)),
        lambda x: rnn.unpad_sequence(x, lengths),
        lambda x: rnn.pad_packed_sequence(rnn.pack_padded_sequence(x, [5, 3, 2]), batch_first=True, padding_value=-1.0, total_length=7)[0],
        lambda x: rnn.pack_padded_sequence(x, [2, 3, 5]),
        lambda x: rnn.pack_padded_sequence(x, [5, 3, 0]),
        lambda x: rnn.pack_padded_sequence(x, lengths.to(x.device), enforce_sorted=False) if x.is_cpu else rnn.pack_padded_sequence(x, lengths, enforce_sorted=False),
    ):

        def parts(x):
            result = function(x)
            if not isinstance(result, rnn.PackedSequence):
                return result
            assert result.batch_sizes.is_cpu
            return result.data, result.batch_sizes.tolist(), result.sorted_indices, result.unsorted_indices

        check(parts, padded, device=device)
    check_gradients(lambda x: rnn.pack_padded_sequence(x, lengths, enforce_sorted=False).data, padded.requires_grad_(), device=device)


@pytest.mark.parametrize("kind", [torch.nn.LSTM, torch.nn.GRU, torch.nn.RNN])
def test_dropout_between_layers_acts_in_training_only(kind, device):
    module = kind(4, 8, num_layers=2, dropout=0.5).to(device)
    x = torch.randn(3, 2, 4, device=device)
    assert not torch.equal(module(x)[0], module(x)[0])
    module.eval()
    assert torch.equal(module(x)[0], module(x)[0])
    torch.manual_seed(3)
    first = module.train()(x)[0]
    torch.manual_seed(3)
    assert torch.equal(module(x)[0], first)
    assert not torch.equal(module(x)[0], first)


def test_weights_may_be_shared_replaced_and_flattened(device):
    module = torch.nn.LSTM(4, 5).to(device)
    module.flatten_parameters()
    torch.nn.init.orthogonal_(module.weight_hh_l0)
    twin = torch.nn.LSTM(4, 5)
    twin.load_state_dict(module.state_dict())
    x = torch.randn(3, 2, 4)
    assert_like(module(x.to(device))[0], twin(x)[0], device, rtol=1e-4, atol=1e-5, strides=False)
    torch.nn.utils.parametrizations.weight_norm(module, "weight_ih_l0")
    torch.nn.utils.parametrizations.weight_norm(twin, "weight_ih_l0")
    assert_like(module(x.to(device))[0], twin(x)[0], device, rtol=1e-4, atol=1e-5, strides=False)


def test_wrong_states_are_the_cpus_errors(device):
    module = torch.nn.LSTM(4, 5)
    for call in (
        lambda m, x: m(x, (x.new_zeros(1, 2, 5), x.new_zeros(1, 3, 5))),
        lambda m, x: m(x, (x.new_zeros(2, 3, 5), x.new_zeros(2, 3, 5))),
        lambda m, x: m(x, x.new_zeros(1, 3, 5)),
        lambda m, x: m(x[0, 0]),
        lambda m, x: torch.nn.LSTMCell(4, 5, device=x.device)(x[0], (x.new_zeros(2, 5), x.new_zeros(2, 5))),
        lambda m, x: torch.nn.GRUCell(4, 5, device=x.device)(x),
        lambda m, x: torch.lstm_cell(x[0], (x.new_zeros(3, 5), x.new_zeros(3, 5)), x.new_ones(20, 4), x.new_ones(20, 5), x.new_ones(19), x.new_ones(20)),
        lambda m, x: torch.gru_cell(x[0], x.new_zeros(3, 5), x.new_ones(15, 4), x.new_ones(15, 5), x.new_ones(15), x.new_ones(14)),
    ):
        assert check(lambda x: call(copy.deepcopy(module).to(x.device), x), torch.randn(6, 3, 4), device=device) is None
    with pytest.raises(RuntimeError):
        copy.deepcopy(module).to(device)(torch.randn(6, 3, 4))
    torch.openreg.synchronize(device)
