"""torch.distributions: samples of every distribution lie on the device with the CPU's shape and dtype, follow the seed and the
distribution's moments; densities, entropies, quantiles, divergences, gradients equal the CPU's.

Needs the built extension.
"""

import itertools

import pytest
import torch
import torch.distributions as D
from parity import assert_like, check, outcome
from torch.distributions.kl import _KL_REGISTRY

import torch_openreg  # noqa: F401  (registers the device)


def t(*values):
    return torch.tensor(values)


def make(name, device):
    """One distribution with its parameters on a device, the same each time."""
    p = lambda *values: torch.tensor(values, device=device)  # noqa: E731
    matrix = torch.tensor([[2.0, 0.3], [0.3, 1.0]], device=device)
    normal = lambda: D.Normal(p(0.5, -1.0), p(1.0, 2.0))  # noqa: E731
    return {
        "Bernoulli": lambda: D.Bernoulli(p(0.2, 0.7)),
        "Bernoulli logits": lambda: D.Bernoulli(logits=p(0.2, -0.7)),
        "Beta": lambda: D.Beta(p(0.8, 2.0), p(1.5, 3.0)),
        "Binomial": lambda: D.Binomial(p(5.0, 8.0), p(0.2, 0.7)),
        "Categorical": lambda: D.Categorical(matrix),
        "Categorical logits": lambda: D.Categorical(logits=matrix),
        "Cauchy": lambda: D.Cauchy(p(0.0, 1.0), p(1.0, 2.0)),
        "Chi2": lambda: D.Chi2(p(1.0, 3.0)),
        "ContinuousBernoulli": lambda: D.ContinuousBernoulli(p(0.2, 0.7)),
        "Dirichlet": lambda: D.Dirichlet(p(0.8, 2.0, 3.0)),
        "Exponential": lambda: D.Exponential(p(0.8, 2.0)),
        "FisherSnedecor": lambda: D.FisherSnedecor(p(3.0, 5.0), p(7.0, 9.0)),
        "Gamma": lambda: D.Gamma(p(0.8, 2.0), p(1.5, 3.0)),
        "GeneralizedPareto": lambda: D.GeneralizedPareto(p(0.0, 1.0), p(1.0, 2.0), p(0.1, 0.2)),
        "Geometric": lambda: D.Geometric(p(0.2, 0.7)),
        "Gumbel": lambda: D.Gumbel(p(0.0, 1.0), p(1.0, 2.0)),
        "HalfCauchy": lambda: D.HalfCauchy(p(1.0, 2.0)),
        "HalfNormal": lambda: D.HalfNormal(p(1.0, 2.0)),
        "Independent": lambda: D.Independent(normal(), 1),
        "InverseGamma": lambda: D.InverseGamma(p(3.0, 4.0), p(1.0, 2.0)),
        "Kumaraswamy": lambda: D.Kumaraswamy(p(0.8, 2.0), p(1.5, 3.0)),
        "LKJCholesky": lambda: D.LKJCholesky(3, p(0.8)[0]),
        "Laplace": lambda: D.Laplace(p(0.0, 1.0), p(1.0, 2.0)),
        "LogNormal": lambda: D.LogNormal(p(0.0, 0.5), p(0.5, 0.2)),
        "LogisticNormal": lambda: D.LogisticNormal(p(0.0, 0.5), p(0.5, 0.2)),
        "LowRankMultivariateNormal": lambda: D.LowRankMultivariateNormal(p(0.0, 1.0), matrix[:, :1], p(1.0, 2.0)),
        "MixtureSameFamily": lambda: D.MixtureSameFamily(D.Categorical(p(0.3, 0.7)), normal()),
        "Multinomial": lambda: D.Multinomial(6, p(0.2, 0.3, 0.5)),
        "MultivariateNormal": lambda: D.MultivariateNormal(p(0.0, 1.0), matrix),
        "MultivariateNormal precision": lambda: D.MultivariateNormal(p(0.0, 1.0), precision_matrix=matrix),
        "NegativeBinomial": lambda: D.NegativeBinomial(p(5.0, 8.0), p(0.2, 0.7)),
        "Normal": normal,
        "OneHotCategorical": lambda: D.OneHotCategorical(matrix),
        "OneHotCategoricalStraightThrough": lambda: D.OneHotCategoricalStraightThrough(matrix),
        "Pareto": lambda: D.Pareto(p(1.0, 2.0), p(3.0, 4.0)),
        "Poisson": lambda: D.Poisson(p(0.8, 5.0)),
        "RelaxedBernoulli": lambda: D.RelaxedBernoulli(p(0.5)[0], p(0.2, 0.7)),
        "RelaxedOneHotCategorical": lambda: D.RelaxedOneHotCategorical(p(0.5)[0], p(0.2, 0.3, 0.5)),
        "StudentT": lambda: D.StudentT(p(3.0, 5.0), p(0.0, 1.0), p(1.0, 2.0)),
        "TransformedDistribution": lambda: D.TransformedDistribution(normal(), [D.SigmoidTransform(), D.AffineTransform(1.0, 2.0)]),
        "Uniform": lambda: D.Uniform(p(0.0, 1.0), p(1.0, 3.0)),
        "VonMises": lambda: D.VonMises(p(0.0, 1.0), p(1.0, 2.0)),
        "Weibull": lambda: D.Weibull(p(1.0, 2.0), p(0.8, 2.0)),
        "Wishart": lambda: D.Wishart(p(3.0)[0], matrix),
    }[name]()


NAMES = [
    "Bernoulli", "Bernoulli logits", "Beta", "Binomial", "Categorical", "Categorical logits", "Cauchy", "Chi2", "ContinuousBernoulli", "Dirichlet",
    "Exponential", "FisherSnedecor", "Gamma", "GeneralizedPareto", "Geometric", "Gumbel", "HalfCauchy", "HalfNormal", "Independent", "InverseGamma",
    "Kumaraswamy", "LKJCholesky", "Laplace", "LogNormal", "LogisticNormal", "LowRankMultivariateNormal", "MixtureSameFamily", "Multinomial",
    "MultivariateNormal", "MultivariateNormal precision", "NegativeBinomial", "Normal", "OneHotCategorical", "OneHotCategoricalStraightThrough",
    "Pareto", "Poisson", "RelaxedBernoulli", "RelaxedOneHotCategorical", "StudentT", "TransformedDistribution", "Uniform", "VonMises", "Weibull",
    "Wishart",
]


def test_no_distribution_is_forgotten():
    abstract = {"Distribution", "ExponentialFamily"}
    public = {name for name in D.__all__ if isinstance(getattr(D, name), type) and issubclass(getattr(D, name), D.Distribution)}
    assert public - abstract <= {name.split()[0] for name in NAMES}, public - abstract - {name.split()[0] for name in NAMES}


@pytest.mark.filterwarnings("ignore:Singular sample detected")
@pytest.mark.parametrize("name", NAMES)
def test_samples_and_densities(name, device):
    want, got = make(name, "cpu"), make(name, device)
    assert (got.batch_shape, got.event_shape, got.has_rsample) == (want.batch_shape, want.event_shape, want.has_rsample)
    for method in ("sample", "rsample") if want.has_rsample else ("sample",):
        sides = []
        for side in (want, got):
            torch.manual_seed(7)
            first = getattr(side, method)((400,))
            torch.manual_seed(7)
            assert torch.equal(getattr(side, method)((400,)), first)
            sides.append(first)
        theirs, mine = sides
        assert (mine.device, mine.dtype, mine.shape, mine.stride()) == (device, theirs.dtype, theirs.shape, theirs.stride())
        if name not in ("Cauchy", "HalfCauchy", "FisherSnedecor", "Wishart", "StudentT", "InverseGamma", "Pareto", "GeneralizedPareto", "LKJCholesky"):
            spread = theirs.double().std(0).clamp(min=0.01)
            assert ((mine.cpu().double().mean(0) - theirs.double().mean(0)).abs() < 0.35 * spread).all()
    value = want.sample((5,))
    assert_like(got.log_prob(value.to(device)), want.log_prob(value), device, rtol=1e-3, atol=1e-4)
    for call in (
        lambda d, v: d.entropy(),
        lambda d, v: d.cdf(v),
        lambda d, v: d.icdf(torch.tensor(0.3, device=v.device)),
        lambda d, v: (d.mean, d.variance, d.stddev),
        lambda d, v: d.mode,
        lambda d, v: d.enumerate_support(),
        lambda d, v: d.perplexity(),
        lambda d, v: d.expand((3, *d.batch_shape)).log_prob(v[0]),
    ):
        expected, error = outcome(call, (want, value), {})
        mine, my_error = outcome(call, (got, value.to(device)), {})
        assert type(my_error) is type(error), f"{my_error!r} instead of {error!r}"
        if error is None:
            assert_like(mine, expected, device, rtol=1e-3, atol=1e-4, strides=False)


SMALL = [name for name in NAMES if name not in ("MultivariateNormal precision", "Bernoulli logits", "Categorical logits")]


@pytest.mark.parametrize("name", SMALL)
def test_divergences(name):
    device = torch.device("openreg", 1)
    families = {(p.__name__, q.__name__) for p, q in _KL_REGISTRY}
    for other in SMALL:
        if (type(make(name, "cpu")).__name__, type(make(other, "cpu")).__name__) not in families and name != other:
            continue
        expected, error = outcome(D.kl_divergence, (make(name, "cpu"), make(other, "cpu")), {})
        mine, my_error = outcome(D.kl_divergence, (make(name, device), make(other, device)), {})
        assert type(my_error) is type(error), f"{my_error!r} instead of {error!r}"
        if error is None:
            assert_like(mine, expected, device, rtol=1e-3, atol=1e-4, strides=False)


@pytest.mark.parametrize("make_one", [
    lambda a, b: D.Normal(a, b), lambda a, b: D.Gamma(a, b), lambda a, b: D.Beta(a, b), lambda a, b: D.StudentT(a + 2, b), lambda a, b: D.Laplace(a, b),
    lambda a, b: D.Dirichlet(torch.stack([a, b], -1)), lambda a, b: D.Weibull(a, b), lambda a, b: D.MultivariateNormal(a, torch.diag_embed(b)),
], ids=["normal", "gamma", "beta", "student", "laplace", "dirichlet", "weibull", "multivariate"])
def test_gradients_of_densities_and_samples(make_one, device):
    def run(a, b):
        a, b = a.requires_grad_(), b.requires_grad_()
        d = make_one(a, b)
        value = torch.full_like(d.sample(), 0.4)
        if isinstance(d, D.Dirichlet):
            value = value / value.sum(-1, keepdim=True)
        gradients = torch.autograd.grad(d.log_prob(value).sum(), (a, b))
        sampled = torch.autograd.grad(d.rsample((3,)).sum() * 1.0, (a, b), allow_unused=True)
        assert all(g is None or (g.device == a.device and g.isfinite().all()) for g in sampled)
        a.requires_grad_(False), b.requires_grad_(False)
        return gradients

    check(run, t(0.8, 2.0), t(1.5, 3.0), device=device, rtol=1e-3, atol=1e-4)


def test_wrong_parameters_are_the_cpus_errors(monkeypatch, device):
    monkeypatch.setattr(D.Distribution, "_validate_args", True)  # the compiler switches the checks off for the whole process
    for call in (
        lambda x: D.Normal(x, -x.abs() - 1),
        lambda x: D.Bernoulli(x + 5),
        lambda x: D.Categorical(x - 0.5),
        lambda x: D.Normal(x, 1.0).log_prob(x[:1].expand(3).clone() * float("nan")),
        lambda x: D.MultivariateNormal(x, -torch.eye(2, device=x.device)),
        lambda x: D.Uniform(x, x - 1),
    ):
        assert check(call, t(0.3, 0.6), device=device, message=False) is None


@pytest.mark.parametrize("transform", [
    D.AbsTransform(), D.AffineTransform(1.0, 2.0), D.CorrCholeskyTransform(), D.CumulativeDistributionTransform(D.Normal(0.0, 1.0)), D.ExpTransform(),
    D.SigmoidTransform(), D.TanhTransform(), D.SoftmaxTransform(), D.SoftplusTransform(), D.StickBreakingTransform(), D.LowerCholeskyTransform(),
    D.PowerTransform(torch.tensor(2.0)), D.ReshapeTransform((3,), (3, 1)),
], ids=lambda transform: type(transform).__name__)
def test_transforms(transform, device):
    def run(x):
        if isinstance(transform, D.LowerCholeskyTransform):
            x = x.expand(2, 3, 3)
        y = transform(x)
        return y, transform.inv(y), outcome(transform.log_abs_det_jacobian, (x, y), {})[0]

    check(run, torch.rand(2, 3) * 0.8 + 0.1, device=device, rtol=1e-3, atol=1e-4, strides=False)


def test_pairs_of_the_registry_are_covered():
    pairs = {(p.__name__, q.__name__) for p, q in _KL_REGISTRY}
    names = {name.split()[0] for name in SMALL}
    assert len([pair for pair in itertools.chain(pairs) if set(pair) <= names]) > 40
