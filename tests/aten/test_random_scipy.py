"""Distributions on the device against scipy's: Kolmogorov and Smirnov's test for continuous ones, Pearson's for discrete ones.

Every sample comes from a fixed seed, so a test passes always or never. Needs the built extension and scipy.
"""

import pytest
import torch
from scipy import stats

import torch_openreg  # noqa: F401  (registers the device)

COUNT = 50_000
LEVEL = 1e-6  # a true distribution fails one seed in a million

D = torch.distributions


def t(*values):
    return torch.tensor(values if len(values) > 1 else values[0], dtype=torch.float64, device="openreg")


CONTINUOUS = {
    "uniform": (lambda: D.Uniform(t(-1.0), t(3.0)), stats.uniform(-1, 4)),
    "normal": (lambda: D.Normal(t(1.0), t(2.0)), stats.norm(1, 2)),
    "log normal": (lambda: D.LogNormal(t(0.2), t(0.5)), stats.lognorm(0.5, scale=2.718281828459045**0.2)),
    "half normal": (lambda: D.HalfNormal(t(2.0)), stats.halfnorm(scale=2)),
    "exponential": (lambda: D.Exponential(t(0.5)), stats.expon(scale=2)),
    "cauchy": (lambda: D.Cauchy(t(1.0), t(0.5)), stats.cauchy(1, 0.5)),
    "half cauchy": (lambda: D.HalfCauchy(t(0.5)), stats.halfcauchy(scale=0.5)),
    "laplace": (lambda: D.Laplace(t(1.0), t(2.0)), stats.laplace(1, 2)),
    "gumbel": (lambda: D.Gumbel(t(1.0), t(2.0)), stats.gumbel_r(1, 2)),
    "weibull": (lambda: D.Weibull(t(2.0), t(1.5)), stats.weibull_min(1.5, scale=2)),
    "pareto": (lambda: D.Pareto(t(1.0), t(3.0)), stats.pareto(3)),
    "gamma": (lambda: D.Gamma(t(2.5), t(0.5)), stats.gamma(2.5, scale=2)),
    "gamma below one": (lambda: D.Gamma(t(0.3), t(1.0)), stats.gamma(0.3)),
    "chi squared": (lambda: D.Chi2(t(3.0)), stats.chi2(3)),
    "beta": (lambda: D.Beta(t(2.0), t(0.7)), stats.beta(2, 0.7)),
    "student": (lambda: D.StudentT(t(4.0)), stats.t(4)),
    "fisher": (lambda: D.FisherSnedecor(t(5.0), t(8.0)), stats.f(5, 8)),
    "von mises": (lambda: D.VonMises(t(0.5), t(2.0)), stats.vonmises(2, loc=0.5)),
}
DISCRETE = {
    "bernoulli": (lambda: D.Bernoulli(t(0.3)), stats.bernoulli(0.3)),
    "binomial": (lambda: D.Binomial(20, t(0.3)), stats.binom(20, 0.3)),
    "geometric": (lambda: D.Geometric(t(0.25)), stats.geom(0.25, loc=-1)),
    "poisson": (lambda: D.Poisson(t(3.5)), stats.poisson(3.5)),
    "large poisson": (lambda: D.Poisson(t(80.0)), stats.poisson(80)),
    "negative binomial": (lambda: D.NegativeBinomial(t(5.0), t(0.4)), stats.nbinom(5, 0.6)),
    "categorical": (lambda: D.Categorical(t(0.1, 0.2, 0.3, 0.4)), stats.rv_discrete(values=(range(4), (0.1, 0.2, 0.3, 0.4)))),
    "integers": (lambda: Integers(), stats.randint(0, 16)),
}


class Integers:
    def sample(self, shape):
        return torch.randint(0, 16, shape, device="openreg")


@pytest.fixture(autouse=True)
def seeded():
    """The same seed for every test; the generators' states are restored."""
    states = torch.openreg.get_rng_state_all()
    torch.openreg.manual_seed_all(20)
    yield
    torch.openreg.set_rng_state_all(states)


def matches_discrete(sample, expected):
    """Pearson's test over the values that are expected at least ten times; the rest is one class."""
    values, counts = (x.cpu().tolist() for x in sample.long().unique(return_counts=True))
    found = dict(zip(values, counts))
    low, high = (int(x) for x in expected.interval(1 - 1e-9))
    classes = [value for value in range(low, high + 1) if expected.pmf(value) * COUNT >= 10]
    observed = [found.get(value, 0) for value in classes]
    wanted = [expected.pmf(value) * COUNT for value in classes]
    rest = COUNT - sum(wanted)
    if rest >= 10:
        observed.append(COUNT - sum(observed))
        wanted.append(rest)
    else:
        scale = sum(observed) / sum(wanted)
        wanted = [value * scale for value in wanted]
    return stats.chisquare(observed, wanted).pvalue > LEVEL


@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous_distributions(name):
    make, expected = CONTINUOUS[name]
    sample = make().sample((COUNT,)).cpu().numpy()
    assert stats.kstest(sample, expected.cdf).pvalue > LEVEL


@pytest.mark.parametrize("name", DISCRETE)
def test_discrete_distributions(name):
    make, expected = DISCRETE[name]
    assert matches_discrete(make().sample((COUNT,)), expected)


def test_a_wrong_parameter_is_noticed():
    sample = D.Normal(t(1.1), t(2.0)).sample((COUNT,)).cpu().numpy()
    assert stats.kstest(sample, stats.norm(1, 2).cdf).pvalue < LEVEL
    assert not matches_discrete(D.Poisson(t(3.6)).sample((COUNT,)), stats.poisson(3.5))


def test_parts_of_a_dirichlet_and_rows_of_a_multinomial():
    parts = D.Dirichlet(t(1.0, 2.0, 3.0)).sample((COUNT,)).cpu()
    for index, weight in enumerate((1, 2, 3)):
        assert stats.kstest(parts[:, index].numpy(), stats.beta(weight, 6 - weight).cdf).pvalue > LEVEL
    rows = torch.multinomial(t(0.1, 0.2, 0.7).expand(COUNT, 3), 2, replacement=True)
    assert matches_discrete(rows[:, 1], stats.rv_discrete(values=(range(3), (0.1, 0.2, 0.7))))


def test_permutations_put_every_number_everywhere():
    first = torch.stack([torch.randperm(8, device="openreg") for _ in range(4000)]).cpu()
    for place in range(8):
        assert stats.chisquare(first[:, place].bincount(minlength=8).numpy()).pvalue > LEVEL
