"""Counting, sorting out and measuring: histograms, unique values, distances, segments, samples of a multinomial, normed weights,
against the CPU.

Needs the built extension.
"""

import itertools

import pytest
import torch
import torch.nn.functional as F
from parity import check, check_gradients

import torch_openreg  # noqa: F401  (registers the device)

CALLS = {
    "histc": lambda x: torch.histc(x, 5),
    "histc range": lambda x: torch.histc(x, 4, -0.5, 0.5),
    "histogram": lambda x: torch.histogram(x, 5),
    "histogram edges": lambda x: torch.histogram(x, torch.tensor([-1.0, 0, 0.2, 1], device=x.device), weight=x.abs(), density=True),
    "histogram range": lambda x: torch.histogram(x, 3, range=(-1.0, 1.0), density=True),
    "histogramdd": lambda x: torch.histogramdd(x, [3, 2, 4]),
    "histogramdd range": lambda x: torch.histogramdd(x, [3, 2, 4], range=[-1.0, 1, -1, 1, -2, 2], weight=x[:, 0].abs(), density=True),
    "histogramdd edges": lambda x: torch.histogramdd(x[:, :2], [torch.tensor([-1.0, 0, 1], device=x.device), torch.tensor([-1.0, 1], device=x.device)]),
    "histogramdd int": lambda x: torch.histogramdd(x, 2),
    "histogramdd wrong": lambda x: torch.histogramdd(x, [3, 2]),
    "bincount": lambda x: torch.bincount((x[:, 0] * 3).abs().long()),
    "bincount weights": lambda x: torch.bincount((x[:, 0] * 3).abs().long(), x[:, 1], minlength=9),
    "bincount nothing": lambda x: torch.bincount(x[:0, 0].long(), minlength=2),
    "bincount negative": lambda x: torch.bincount(x[:, 0].sign().long() - 1),
    "bincount matrix": lambda x: torch.bincount(x.long()),
    "bucketize": lambda x: torch.bucketize(x, torch.tensor([-1.0, 0, 1], device=x.device), right=True, out_int32=True),
    "searchsorted": lambda x: torch.searchsorted(x.sort(1).values, x, side="right"),
    "quantile": lambda x: torch.quantile(x, torch.tensor([0.2, 0.7], device=x.device), 0, interpolation="higher"),
    "nanmedian": lambda x: torch.nanmedian(x, 0),
    "mode": lambda x: torch.mode(x.round(), 0),
    "kthvalue": lambda x: torch.kthvalue(x, 2, 0),
    "cov": lambda x: torch.cov(x.t()),
    "corrcoef": lambda x: torch.corrcoef(x.t()),
    "pdist": lambda x: torch.pdist(x),
    "pdist 0": lambda x: torch.pdist(x, 0),
    "pdist 3": lambda x: torch.pdist(x, 3),
    "pdist inf": lambda x: torch.pdist(x, float("inf")),
    "pdist one": lambda x: torch.pdist(x[:1]),
    "pdist wrong": lambda x: torch.pdist(x[0]),
    "histc bool": lambda x: torch.histc(x > 0),
}


@pytest.mark.parametrize("name", CALLS)
def test_counts_and_order(name, device):
    for x in (torch.randn(9, 3), torch.randn(3, 9).double().t()):
        for _ in range(2):
            check(CALLS[name], x, device=device, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ordered, inverse, counts", list(itertools.product((True, False), repeat=3)))
def test_unique(ordered, inverse, counts, device):
    whole, rows = torch.tensor([3, 1, 1, 2, 3, 3]), torch.tensor([[1, 2], [1, 2], [0, 1], [1, 2]])
    options = {"return_inverse": inverse, "return_counts": counts}
    for x in (whole, whole.double(), whole.bool(), whole.to(torch.uint8), whole[:0], whole.half(), torch.tensor([float("nan"), 1, float("nan")])):
        check(lambda x: torch.unique(x, sorted=ordered, **options), x, device=device)
        check(lambda x: torch.unique_consecutive(x, **options), x, device=device)
    for dim in (0, 1, -1):
        check(lambda x: torch.unique(x, sorted=ordered, dim=dim, **options), rows, device=device)
        check(lambda x: torch.unique_consecutive(x, dim=dim, **options), rows, device=device)
    check(lambda x: torch.unique(x, dim=0), rows[:0], device=device)
    check(lambda x: torch.unique(x, dim=2), rows, device=device)


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0, 2.0, 3.0, float("inf")])
def test_cdist(p, device):
    for mode in ("use_mm_for_euclid_dist_if_necessary", "use_mm_for_euclid_dist", "donot_use_mm_for_euclid_dist"):
        check(torch.cdist, torch.randn(2, 5, 3), torch.randn(2, 4, 3), p=p, compute_mode=mode, device=device, rtol=1e-3, atol=1e-4)
    check(torch.cdist, torch.randn(30, 3), torch.randn(40, 3), p=p, device=device, rtol=1e-3, atol=1e-3)
    check(torch.cdist, torch.randn(0, 3), torch.randn(4, 3), p=p, device=device)
    check(torch.cdist, torch.randn(2, 0), torch.randn(4, 0), p=p, device=device)
    check(torch.cdist, torch.randn(2, 3), torch.randn(4, 2), p=p, device=device)
    if p > 0:
        leaves = [torch.randn(2, 5, 3, requires_grad=True), torch.randn(1, 4, 3, requires_grad=True)]
        check_gradients(torch.cdist, *leaves, p=p, device=device, rtol=1e-3, atol=1e-4)
        check_gradients(torch.pdist, torch.randn(5, 3, requires_grad=True), p=p, device=device, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min", "prod"])
def test_segments(reduce, device):
    lengths, offsets = torch.tensor([2, 0, 3, 1]), torch.tensor([0, 2, 2, 5, 6])
    for options in ({"lengths": lengths}, {"offsets": offsets}, {"lengths": lengths, "initial": 1.5}, {"lengths": lengths.int(), "unsafe": True}):
        for dtype in (torch.float32, torch.float64, torch.float16):
            check_gradients(torch.segment_reduce, torch.randn(6, 2, dtype=dtype, requires_grad=True), reduce, device=device, rtol=1e-2, atol=1e-3, **options)
    check(torch.segment_reduce, torch.randn(2, 6), reduce, lengths=lengths.repeat(2, 1), axis=1, device=device)
    check(torch.segment_reduce, torch.randn(6), reduce, lengths=torch.tensor([2, 1]), device=device)
    check(torch.segment_reduce, torch.randn(6), reduce, device=device)


def test_weight_norm(device):
    for shape, dim in (((4, 3), 0), ((4, 3), 1), ((2, 3, 4), 2), ((2, 3, 4), 0), ((2, 3, 4), -1)):
        v = torch.randn(shape, requires_grad=True)
        g = torch.norm_except_dim(v, 2, dim).detach().requires_grad_()
        check_gradients(torch._weight_norm, v, g, dim, device=device, rtol=1e-4, atol=1e-5)
    check_gradients(lambda v, g: torch.autograd.grad(torch._weight_norm(v, g).pow(2).sum(), (v, g), create_graph=True), torch.randn(4, 3, requires_grad=True), torch.rand(4, 1, requires_grad=True), device=device, rtol=1e-3, atol=1e-4)

    def module(x):
        torch.manual_seed(0)
        layer = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(3, 4)).to(x.device)
        result = layer(x)
        return result.detach(), *torch.autograd.grad(result.sum(), list(layer.parameters()))

    check(module, torch.randn(2, 3), device=device, rtol=1e-4, atol=1e-5)


def test_other_parametrizations(device):
    def module(x, wrap):
        torch.manual_seed(0)
        layer = wrap(torch.nn.Linear(4, 4).to(x.device)).eval()
        result = layer(x)
        return result.detach(), layer.weight.detach()

    for wrap in (
        lambda m: torch.nn.utils.parametrizations.orthogonal(m, orthogonal_map="cayley"),
        lambda m: torch.nn.utils.prune.l1_unstructured(m, "weight", 0.5),
        lambda m: torch.nn.utils.prune.ln_structured(m, "weight", 0.5, n=2, dim=0),
    ):
        check(module, torch.randn(2, 4), wrap, device=device, rtol=1e-3, atol=1e-4)


def test_multinomial(device):
    weights = torch.tensor([[0.0, 0.2, 0.8], [1.0, 0, 0]], device=device)
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        many = torch.multinomial(weights.to(dtype), 2000, replacement=True)
        assert many.device == device and many.dtype == torch.int64 and many.shape == (2, 2000)
        share = many[0].bincount(minlength=3).double() / 2000
        assert share[0] == 0 and abs(share[2].item() - 0.8) < 0.05 and many[1].eq(0).all()
    two = torch.multinomial(weights[0], 2)
    assert sorted(two.tolist()) == [1, 2]
    out = torch.empty(0, dtype=torch.int64, device=device)
    assert torch.multinomial(weights, 1, out=out) is out and out.shape == (2, 1)
    generator = torch.Generator(device).manual_seed(3)
    first = torch.multinomial(weights, 20, True, generator=generator)
    assert torch.equal(torch.multinomial(weights, 20, True, generator=generator.manual_seed(3)), first)
    for wrong in (
        lambda w: torch.multinomial(w, 4),
        lambda w: torch.multinomial(w, 0),
        lambda w: torch.multinomial(w.long(), 1),
        lambda w: torch.multinomial(w[None], 1),
    ):
        assert check(wrong, weights.cpu(), device=device) is None


def test_losses_of_distances(device):
    a, b, c = (torch.randn(5, 3, requires_grad=True) for _ in range(3))
    check_gradients(F.triplet_margin_loss, a, b, c, device=device, rtol=1e-4, atol=1e-5)
    check_gradients(F.cosine_embedding_loss, a, b, torch.tensor([1, -1, 1, 1, -1]), device=device, rtol=1e-4, atol=1e-5)
    check_gradients(F.pairwise_distance, a, b, device=device, rtol=1e-4, atol=1e-5)
    check_gradients(F.cosine_similarity, a, b, device=device, rtol=1e-4, atol=1e-5)
