"""Embeddings and bags of them: every mode, padding, offsets, weights per sample, sparse gradients and their optimizers, against
the CPU.

Needs the built extension.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from parity import assert_like, check, check_gradients

import torch_openreg  # noqa: F401  (registers the device)

INDICES = torch.tensor([1, 3, 1, 5, 0, 2, 2])
OFFSETS = torch.tensor([0, 3, 3, 5])
BAGS = {
    "plain": {},
    "empty bags at the end": {"offsets": torch.tensor([0, 3, 7, 7])},
    "last offset": {"offsets": torch.tensor([0, 3, 5, 7]), "include_last_offset": True},
    "padding": {"padding_idx": 1},
    "negative padding": {"padding_idx": -4},
    "norm": {"max_norm": 0.5, "norm_type": 1.0},
    "by frequency": {"scale_grad_by_freq": True},
    "int32": {"offsets": OFFSETS.int(), "input": INDICES.int()},
    "matrix": {"offsets": None, "input": INDICES[:6].reshape(2, 3)},
    "no indices": {"input": INDICES[:0], "offsets": torch.tensor([0, 0])},
}


@pytest.mark.parametrize("name", BAGS)
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_bags(name, mode, sparse, device):
    options = {"input": INDICES, "offsets": OFFSETS, **BAGS[name]}

    def run(weight, input, offsets=None, **options):
        leaf = weight.clone().requires_grad_()
        weight = leaf * 1 if "max_norm" not in options else leaf.detach().clone().requires_grad_()
        result = F.embedding_bag(input, weight, offsets, mode=mode, sparse=sparse, **options)
        (gradient,) = torch.autograd.grad(result, leaf if "max_norm" not in options else weight, torch.arange(1.0, 1 + result.numel(), device=result.device).reshape(result.shape))
        return result.detach(), gradient.coalesce() if gradient.is_sparse else gradient

    for _ in range(2):
        check(run, torch.randn(6, 3), device=device, rtol=1e-4, atol=1e-5, message=False, **options)


@pytest.mark.parametrize("name", ["plain", "last offset", "padding", "matrix"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_weights_per_sample(name, dtype, device):
    options = {"input": INDICES, "offsets": OFFSETS, **BAGS[name]}
    weights = torch.randn(options["input"].shape, dtype=dtype, requires_grad=True)

    def run(weight, weights, input, offsets, **options):
        return F.embedding_bag(input, weight, offsets, mode="sum", per_sample_weights=weights, **options)

    check_gradients(run, torch.randn(6, 3, dtype=dtype, requires_grad=True), weights, device=device, rtol=1e-2, atol=1e-2, **options)


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_embeddings(sparse, device):
    for options in ({}, {"padding_idx": 1}, {"padding_idx": -1}, {"scale_grad_by_freq": not sparse}, {"max_norm": 0.7}):

        def run(weight, indices):
            weight.requires_grad_()
            result = F.embedding(indices, weight if "max_norm" not in options else weight.detach().clone().requires_grad_(), sparse=sparse, **options)
            if "max_norm" in options:
                return result.detach()
            (gradient,) = torch.autograd.grad(result.pow(2).sum(), weight)
            weight.requires_grad_(False)
            return result.detach(), gradient.coalesce() if sparse else gradient

        for indices in (INDICES, INDICES.reshape(7, 1).int(), INDICES[0], INDICES[:0]):
            check(run, torch.randn(6, 3), indices, device=device, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [
    lambda p: torch.optim.SparseAdam(p, lr=0.1),
    lambda p: torch.optim.SGD(p, lr=0.1),
    lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    lambda p: torch.optim.Adagrad(p, lr=0.1),
], ids=["sparse adam", "sgd", "momentum", "adagrad"])
@pytest.mark.parametrize("kind", ["embedding", "bag"])
def test_sparse_gradients_train_as_on_the_cpu(make, kind, device):
    def train(place):
        torch.manual_seed(0)
        table = torch.nn.Embedding(6, 3, sparse=True) if kind == "embedding" else torch.nn.EmbeddingBag(6, 3, sparse=True, mode="sum")
        table.to(place)
        optimizer = make(table.parameters())
        for step in range(3):
            optimizer.zero_grad()
            indices = (INDICES[step:].to(place),)
            loss = table(*indices, *([torch.tensor([0, 2], device=place)] if kind == "bag" else [])).pow(2).sum()
            loss.backward()
            assert table.weight.grad.is_sparse
            torch.nn.utils.clip_grad_norm_(table.parameters(), 0.5) if step == 1 and kind == "dense" else None
            optimizer.step()
        return table.weight.detach(), copy.deepcopy(optimizer.state_dict()["state"])

    (got, state), (want, want_state) = train(device), train("cpu")
    assert_like(got, want, device, rtol=1e-4, atol=1e-5)
    for name, value in want_state.get(0, {}).items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(state[0][name].cpu(), value, rtol=1e-4, atol=1e-5)


def test_wrong_bags_are_the_cpus_errors(device):
    weight = torch.randn(6, 3)
    for options in (
        {"offsets": torch.tensor([1, 3])},
        {"offsets": torch.tensor([[0, 3]])},
        {"offsets": None},
        {"offsets": OFFSETS, "mode": "median"},
        {"offsets": OFFSETS, "mode": "max", "scale_grad_by_freq": True},
        {"offsets": OFFSETS, "mode": "mean", "per_sample_weights": torch.ones(7)},
        {"offsets": OFFSETS, "mode": "sum", "per_sample_weights": torch.ones(6)},
        {"offsets": OFFSETS.float()},
        {"offsets": OFFSETS, "padding_idx": 9},
    ):
        assert check(lambda i, w, **options: F.embedding_bag(i, w, **options), INDICES, weight, device=device, **options) is None
    with pytest.raises((RuntimeError, IndexError)):
        F.embedding(torch.tensor([7], device=device), weight.to(device))
        torch.openreg.synchronize(device)
