"""Every operator that takes a generator: it draws from that one, and its numbers are the same on every device and for every number of threads.

Needs the built extension.
"""

import pytest
import torch

import torch_openreg  # noqa: F401  (registers the device)

N = 70_000  # more than one part for the CPU's parallel loops
ops = torch.ops.aten


def half(device):
    return torch.full((N,), 0.5, device=device)


def in_place(name, *arguments):
    return lambda g, d: getattr(half(d), name)(*arguments, generator=g)


# One call for each operator, by its name without overload: call(generator, device).
CALLS = {
    "_fused_dropout": lambda g, d: ops._fused_dropout(half(d), 0.5, g)[0],
    "_no_grad_normal_": lambda g, d: torch.nn.init.normal_(half(d), generator=g),
    "_no_grad_uniform_": lambda g, d: torch.nn.init.uniform_(half(d), generator=g),
    "_sample_dirichlet": lambda g, d: torch._sample_dirichlet(torch.ones(N // 4, 4, device=d), g),
    "_standard_gamma": lambda g, d: torch._standard_gamma(half(d), g),
    "bernoulli": lambda g, d: torch.bernoulli(half(d), generator=g),
    "bernoulli_": in_place("bernoulli_", 0.3),
    "binomial": lambda g, d: torch.binomial(torch.full((N,), 9.0, device=d), half(d), g),
    "cauchy": lambda g, d: ops.cauchy(half(d), generator=g),
    "cauchy_": in_place("cauchy_"),
    "exponential": lambda g, d: ops.exponential(half(d), generator=g),
    "exponential_": in_place("exponential_"),
    "geometric": lambda g, d: ops.geometric(half(d), 0.3, generator=g),
    "geometric_": in_place("geometric_", 0.3),
    "log_normal": lambda g, d: ops.log_normal(half(d), generator=g),
    "log_normal_": in_place("log_normal_"),
    "multinomial": lambda g, d: torch.multinomial(torch.ones(200, 30, device=d), 9, generator=g),
    "normal": lambda g, d: torch.normal(half(d), half(d), generator=g),
    "normal_": in_place("normal_"),
    "normal_functional": lambda g, d: ops.normal_functional(half(d), generator=g),
    "poisson": lambda g, d: torch.poisson(half(d) * 6, g),
    "rand": lambda g, d: torch.rand(N, generator=g, device=d),
    "rand_like": lambda g, d: ops.rand_like(half(d), generator=g),
    "randint": lambda g, d: torch.randint(0, 99, (N,), generator=g, device=d),
    "randint_like": lambda g, d: ops.randint_like(half(d), 99, generator=g),
    "randn": lambda g, d: torch.randn(N, generator=g, device=d),
    "randn_like": lambda g, d: ops.randn_like(half(d), generator=g),
    "random": lambda g, d: ops.random(half(d), generator=g),
    "random_": in_place("random_", 0, 99),
    "randperm": lambda g, d: torch.randperm(N, generator=g, device=d),
    "rrelu": lambda g, d: torch.rrelu(-half(d), training=True, generator=g),
    "rrelu_": lambda g, d: ops.rrelu_(-half(d), training=True, generator=g),
    "rrelu_with_noise": lambda g, d: ops.rrelu_with_noise(-half(d), half(d), training=True, generator=g),
    "rrelu_with_noise_": lambda g, d: ops.rrelu_with_noise_(-half(d), half(d), training=True, generator=g),
    "rrelu_with_noise_functional": lambda g, d: ops.rrelu_with_noise_functional(-half(d), half(d), training=True, generator=g)[0],
    "uniform": lambda g, d: ops.uniform(half(d), generator=g),
    "uniform_": in_place("uniform_"),
}
OF_GENERATORS = {"initial_seed", "manual_seed", "seed"}  # TorchScript's methods


def test_no_operator_with_a_generator_is_forgotten():
    names = {
        schema.name.removeprefix("aten::")
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.startswith("aten::") and any("Generator" in str(argument.type) for argument in schema.arguments)
    }
    assert names - OF_GENERATORS == set(CALLS)


@pytest.fixture
def threads():
    """Sets the number of threads; restored after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", CALLS)
def test_numbers_come_from_the_generator_alone(name, threads):
    def numbers(seed, device, count):
        threads(count)
        return CALLS[name](torch.Generator(device).manual_seed(seed), device).cpu()

    if name == "_fused_dropout" and not _exists_on_the_cpu(name):
        with pytest.raises(NotImplementedError, match="_fused_dropout"):
            numbers(1, "openreg:0", 1)
        return
    default = torch.openreg.get_rng_state_all()
    first = numbers(1, "openreg:0", 1)
    assert torch.equal(numbers(1, "openreg:0", 3), first), "another number of threads"
    assert torch.equal(numbers(1, "openreg:1", 2), first), "another device"
    assert not torch.equal(numbers(2, "openreg:0", 1), first), "another seed"
    assert all(map(torch.equal, torch.openreg.get_rng_state_all(), default)), "the default generators are not used"


def _exists_on_the_cpu(name):
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", "CPU")


@pytest.mark.parametrize("name", sorted(set(CALLS) - {"_fused_dropout"}))
def test_a_generator_of_another_device_type_is_refused(name, device):
    with pytest.raises(RuntimeError, match="(?i)generator|device type"):
        CALLS[name](torch.Generator("cpu"), device)
