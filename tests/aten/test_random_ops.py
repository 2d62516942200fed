"""Random operators: the generator behind them against published numbers, distributions against their formulas, and that
the numbers depend on seed and call alone.

Every statistical test draws from a fixed seed, so it passes always or never. Needs the built extension.
"""

import math

import pytest
import torch

import torch_openreg  # noqa: F401  (registers the device)

FLOATING = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
INTEGRAL = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
COUNT = 200_000


@pytest.fixture(autouse=True)
def seeded():
    """The same seed for every test; the generators' states are restored."""
    states = torch.openreg.get_rng_state_all()
    torch.openreg.manual_seed_all(1234)
    torch.openreg.reset_op_stats()
    yield
    torch.openreg.set_rng_state_all(states)


def generator(seed=0, offset=0, device="openreg"):
    result = torch.Generator(device)
    state = seed.to_bytes(8, "little") + offset.to_bytes(8, "little")
    result.set_state(torch.tensor(list(state), dtype=torch.uint8))
    return result


def offset_of(g):
    return int.from_bytes(bytes(g.get_state().tolist())[8:], "little")


def draw(method, *args, dtype=torch.float32, count=COUNT, device="openreg", **kwargs):
    return getattr(torch.empty(count, dtype=dtype, device=device), method)(*args, **kwargs)


# ---- Philox -----------------------------------------------------------------


def philox(counter, key, rounds=10):
    """Philox 4x32 as its authors define it: four 32-bit words from a counter of four and a key of two."""
    c, k = list(counter), list(key)
    for _ in range(rounds):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & 0xFFFFFFFF, (a >> 32) ^ c[3] ^ k[1], a & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def words(seed, offset, count):
    """The 32-bit words that a launch at (seed, offset) uses."""
    key = [seed & 0xFFFFFFFF, seed >> 32]
    result = []
    for block in range(offset // 4, offset // 4 + (count + 3) // 4):
        result += philox([block & 0xFFFFFFFF, block >> 32, 0, 0], key)
    return result[:count]


def test_the_reference_gives_the_published_numbers():
    """kat_vectors of the Random123 library, philox4x32 with 10 rounds."""
    ones = 0xFFFFFFFF
    assert philox([0] * 4, [0] * 2) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert philox([ones] * 4, [ones] * 2) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    pi = [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344]
    assert philox(pi, [0xA4093822, 0x299F31D0]) == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


@pytest.mark.parametrize("seed", [0, 1, 0x299F31D0A4093822, 2**63 + 5, 2**64 - 1])
@pytest.mark.parametrize("offset", [0, 4, 1000, 2**32 * 4 - 8, 2**40])
@pytest.mark.parametrize("count", [1, 2, 3, 8, 70])
def test_device_words_are_those_of_the_reference(seed, offset, count, device):
    bits = torch.empty(count, dtype=torch.int64, device=device).random_(-(2**63), None, generator=generator(seed, offset, device))
    expected = words(seed, offset, 2 * count)
    assert [value & (2**64 - 1) for value in bits.tolist()] == [low | high << 32 for low, high in zip(expected[::2], expected[1::2])]


def test_uniform_numbers_are_the_words_upper_bits():
    expected = [word >> 8 for word in words(7, 0, 3000)]
    assert (draw("uniform_", count=3000, generator=generator(7)).double() * 2**24).tolist() == expected


def test_a_call_takes_its_words_from_the_generator():
    g = generator(3)
    for dtype, method, count, taken in [
        (torch.float32, "uniform_", 5, 8),
        (torch.float64, "uniform_", 5, 12),
        (torch.float32, "normal_", 4, 4),
        (torch.float16, "exponential_", 1, 4),
        (torch.int64, "random_", 3, 8),
    ]:
        before = offset_of(g)
        draw(method, dtype=dtype, count=count, generator=g)
        assert offset_of(g) - before == taken, (method, dtype)
    before = g.get_state()
    draw("uniform_", count=0, generator=g)
    assert torch.equal(g.get_state(), before)


# ---- Distributions ----------------------------------------------------------


def assert_follows(sample, distribution_function):
    """Kolmogorov and Smirnov's test at a level of one in a million."""
    x = sample.cpu().double().sort().values
    n = x.numel()
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    f = distribution_function(x)
    distance = torch.maximum((steps[1:] - f).abs().max(), (f - steps[:-1]).abs().max())
    assert distance * math.sqrt(n) < 2.7


def normal_function(x):
    return 0.5 * torch.erfc(-x / math.sqrt(2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_continuous_distributions_follow_their_formulas(dtype, device):
    def check(method, args, function):
        assert_follows(draw(method, *args, dtype=dtype, device=device), function)

    check("uniform_", (), lambda x: x)
    check("uniform_", (-3, 5), lambda x: (x + 3) / 8)
    check("normal_", (), normal_function)
    check("normal_", (2, 0.5), lambda x: normal_function((x - 2) / 0.5))
    check("log_normal_", (0.5, 0.25), lambda x: normal_function((x.log() - 0.5) / 0.25))
    check("exponential_", (2,), lambda x: -torch.expm1(-2 * x))
    check("cauchy_", (1, 3), lambda x: 0.5 + torch.atan((x - 1) / 3) / math.pi)


@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_moments_of_every_floating_type(dtype):
    def moments(sample):
        sample = sample.cpu().double()
        assert sample.isfinite().all()
        return sample.mean().item(), sample.var().item()

    def close(got, mean, variance):
        coarse = torch.finfo(dtype).eps
        assert abs(got[0] - mean) < 5 * math.sqrt(variance / COUNT) + coarse
        assert abs(got[1] - variance) < 0.03 * variance + coarse

    close(moments(draw("uniform_", dtype=dtype)), 0.5, 1 / 12)
    close(moments(draw("normal_", dtype=dtype)), 0, 1)
    close(moments(draw("exponential_", dtype=dtype)), 1, 1)
    close(moments(draw("geometric_", 0.25, dtype=dtype)), 4, 12)
    close(moments(draw("bernoulli_", 0.3, dtype=dtype)), 0.3, 0.21)
    close(moments(draw("random_", 0, 16, dtype=dtype)), 7.5, (256 - 1) / 12)


def test_normal_numbers_are_not_correlated():
    x = torch.randn(COUNT, device="openreg", dtype=torch.float64).cpu()
    for lag in (1, 2, 3, 4, 8):
        assert abs((x[:-lag] * x[lag:]).mean()) < 5 / math.sqrt(COUNT)


@pytest.mark.parametrize("dtype", FLOATING, ids=str)
@pytest.mark.parametrize("bounds", [(0, 1), (-1, 0), (5, 6), (0.1, 0.1001), (-1000, 1000)], ids=str)
def test_uniform_includes_its_lower_bound_and_never_reaches_the_upper(dtype, bounds):
    low, high = (torch.tensor(bound, dtype=torch.float64).to(dtype).double() for bound in bounds)
    x = draw("uniform_", *bounds, dtype=dtype).cpu().double()
    assert (x >= low).all()
    assert (x < high).all() or low == high


def test_uniform_of_an_empty_range_is_its_bound():
    assert draw("uniform_", 3, 3, count=9).cpu().unique().tolist() == [3]


@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_exponential_numbers_are_positive(dtype):
    assert (draw("exponential_", dtype=dtype) > 0).all()


@pytest.mark.parametrize("dtype", [*FLOATING, *INTEGRAL], ids=str)
def test_integers_fill_their_range_evenly(dtype, device):
    x = draw("random_", 3, 13, dtype=dtype, device=device).cpu().long()
    counts = torch.bincount(x, minlength=13)
    assert counts[:3].sum() == 0 and len(counts) == 13
    assert ((counts[3:] - COUNT / 10).abs() < 6 * math.sqrt(COUNT / 10)).all()


@pytest.mark.parametrize("bounds", [(-5, 2**33), (0, 2**63 - 1), (-(2**63), 2**63 - 1), (2**62, 2**62 + 2**21 + 7)], ids=str)
def test_wide_ranges(bounds):
    low, high = bounds
    x = draw("random_", low, high, dtype=torch.int64).cpu()
    assert x.min() >= low and x.max() < high
    assert_follows((x.double() - low) / (high - low), lambda u: u)


@pytest.mark.parametrize("dtype", [*INTEGRAL, torch.bool], ids=str)
def test_random_without_bounds_covers_the_type(dtype):
    x = draw("random_", dtype=dtype).cpu()
    top = 1 if dtype == torch.bool else torch.iinfo(dtype).max
    assert x.min() >= 0
    assert abs((x.double() / (top + 1)).mean().item() - (0.25 if top == 1 else 0.5)) < 0.01


@pytest.mark.parametrize("dtype, top", [(torch.float16, 2**11), (torch.bfloat16, 2**8), (torch.float32, 2**24), (torch.float64, 2**53)])
def test_random_without_bounds_covers_exact_integers_of_a_floating_type(dtype, top):
    x = draw("random_", dtype=dtype).cpu().double()
    assert (x == x.round()).all() and x.min() >= 0 and x.max() <= top
    assert abs(x.mean().item() / top - 0.5) < 0.01


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64], ids=str)
def test_unsigned_types_take_bounds(dtype):
    x = draw("random_", 0, 60000, dtype=dtype, count=5000).cpu().to(torch.int64)
    assert x.min() >= 0 and 50000 < x.max() < 60000


@pytest.mark.parametrize("dtype", INTEGRAL, ids=str)
def test_geometric_integers_stay_in_their_type(dtype):
    x = draw("geometric_", 0.01, dtype=dtype).cpu().double()
    assert x.min() == 1 and x.max() <= torch.iinfo(dtype).max
    assert draw("geometric_", 0.5, dtype=dtype).cpu().double().mean().item() == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize("dtype", [*FLOATING, *INTEGRAL, torch.bool], ids=str)
def test_bernoulli_of_a_number(dtype):
    for p in (0, 0.25, 1):
        x = draw("bernoulli_", p, dtype=dtype).cpu().double()
        assert set(x.unique().tolist()) <= {0.0, 1.0}
        assert x.mean().item() == pytest.approx(p, abs=0.005 if 0 < p < 1 else 0)


@pytest.mark.parametrize("p_dtype", FLOATING, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool], ids=str)
def test_bernoulli_of_a_tensor(dtype, p_dtype, device):
    p = torch.tensor([0, 0.125, 0.5, 0.875, 1], dtype=p_dtype)
    for where in (device, "cpu"):
        x = torch.empty(50_000, 5, dtype=dtype, device=device).bernoulli_(p.to(where)).cpu().double()
        assert set(x.unique().tolist()) <= {0.0, 1.0}
        assert x.mean(0).tolist() == pytest.approx(p.tolist(), abs=0.01)
        assert x[:, 0].sum() == 0 and x[:, 4].sum() == 50_000
    assert torch.bernoulli(torch.full((7,), 1.0, device=device)).tolist() == [1] * 7
    out = torch.empty(0, device=device)
    assert torch.bernoulli(torch.ones(3, device=device), out=out) is out and out.tolist() == [1] * 3


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
def test_complex_numbers_have_two_parts(dtype):
    z = torch.randn(COUNT, dtype=dtype, device="openreg").cpu()
    assert z.real.var().item() == pytest.approx(0.5, rel=0.02) and z.imag.var().item() == pytest.approx(0.5, rel=0.02)
    u = torch.rand(COUNT, dtype=dtype, device="openreg").cpu()
    assert 0 <= u.imag.min() and u.imag.max() < 1 and abs((u.real - 0.5).mul(u.imag - 0.5).mean()) < 0.001


def test_normal_with_tensors():
    mean = torch.tensor([0.0, 10.0, -10.0], device="openreg").repeat(50_000, 1)
    std = torch.tensor([1.0, 0.1, 2.0], device="openreg").repeat(50_000, 1)
    for x, means, stds in (
        (torch.normal(mean, 1.0), [0, 10, -10], [1, 1, 1]),
        (torch.normal(5.0, std), [5, 5, 5], [1, 0.1, 2]),
        (torch.normal(mean, std), [0, 10, -10], [1, 0.1, 2]),
    ):
        assert x.cpu().mean(0).tolist() == pytest.approx(means, abs=0.04)
        assert x.cpu().std(0).tolist() == pytest.approx(stds, rel=0.03)


def test_factories_draw_from_the_same_distributions():
    assert_follows(torch.rand(COUNT, device="openreg"), lambda x: x)
    assert_follows(torch.randn(COUNT, device="openreg"), normal_function)
    assert torch.randint(3, 9, (COUNT,), device="openreg").cpu().unique().tolist() == [3, 4, 5, 6, 7, 8]
    like = torch.empty(4, 5, device="openreg", dtype=torch.float64)
    for made in (torch.rand_like(like), torch.randn_like(like), torch.randint_like(like, 5)):
        assert (made.shape, made.dtype, made.device) == (like.shape, like.dtype, like.device)


# ---- What the numbers depend on ---------------------------------------------

CALLS = {
    "uniform": lambda **how: draw("uniform_", count=1003, **how),
    "normal": lambda **how: draw("normal_", count=1003, **how),
    "normal64": lambda **how: draw("normal_", count=1003, dtype=torch.float64, **how),
    "log_normal": lambda **how: draw("log_normal_", count=1003, **how),
    "exponential": lambda **how: draw("exponential_", count=1003, **how),
    "cauchy": lambda **how: draw("cauchy_", count=1003, **how),
    "geometric": lambda **how: draw("geometric_", 0.1, count=1003, **how),
    "bernoulli": lambda **how: draw("bernoulli_", 0.5, count=1003, **how),
    "integer": lambda **how: draw("random_", 0, 99, count=1003, dtype=torch.int32, **how),
    "wide_integer": lambda **how: draw("random_", count=1003, dtype=torch.int64, **how),
}


@pytest.mark.parametrize("name", CALLS)
def test_numbers_depend_on_the_seed_and_on_nothing_else(name):
    call = CALLS[name]
    torch.openreg.manual_seed_all(5)
    first, second = call().cpu(), call().cpu()
    assert not torch.equal(first, second)
    torch.openreg.manual_seed_all(5)
    assert torch.equal(call().cpu(), first) and torch.equal(call().cpu(), second)
    assert torch.equal(call(device="openreg:1").cpu(), first)
    stream = torch.openreg.Stream()
    torch.openreg.manual_seed_all(5)
    with torch.openreg.stream(stream):
        on_stream = call()
    stream.synchronize()
    assert torch.equal(on_stream.cpu(), first)
    torch.openreg.manual_seed_all(6)
    assert not torch.equal(call().cpu(), first)


@pytest.mark.parametrize("name", CALLS)
def test_an_explicit_generator_replaces_the_default_one(name, device):
    call = CALLS[name]
    default = torch.openreg.get_rng_state(device)
    one = call(device=device, generator=torch.Generator(device).manual_seed(11)).cpu()
    two = call(device=device, generator=torch.Generator(device).manual_seed(11)).cpu()
    assert torch.equal(one, two)
    assert torch.equal(torch.openreg.get_rng_state(device), default)


def test_a_saved_state_continues_the_sequence(device):
    draw("normal_", count=77, device=device)
    state = torch.openreg.get_rng_state(device)
    first = draw("normal_", count=10, device=device)
    torch.openreg.set_rng_state(state, device)
    assert torch.equal(draw("normal_", count=10, device=device), first)


def test_the_layout_does_not_change_the_numbers():
    torch.openreg.manual_seed_all(5)
    want = torch.empty(6, 10, device="openreg").normal_()
    transposed, sliced = torch.zeros(10, 6, device="openreg").t(), torch.zeros(6, 20, device="openreg")[:, ::2]
    for view in (transposed, sliced, torch.zeros(70, device="openreg")[10:].view(6, 10)):
        torch.openreg.manual_seed_all(5)
        assert torch.equal(view.normal_(), want)
    gaps = torch.zeros(6, 20, device="openreg")
    gaps[:, ::2].uniform_()
    assert (gaps[:, 1::2] == 0).all() and (gaps[:, ::2] != 0).any()


def test_schedules_do_not_change_the_numbers(python):
    code = """
        import torch, torch_openreg
        torch.openreg.manual_seed(3)
        streams = [torch.openreg.Stream() for _ in range(3)]
        made = []
        for i in range(9):
            with torch.openreg.stream(streams[i % 3]):
                made.append(torch.empty(1000 + i, device="openreg").normal_())
        torch.openreg.synchronize()
        print([x.cpu().double().sum().item() for x in made])
    """
    eager = python(code).stdout
    assert python(code, env={"OPENREG_SCHEDULE": "lazy"}).stdout == eager
    assert python(code, env={"OPENREG_SCHEDULE": "random:7"}).stdout == eager


def test_random_operators_do_not_touch_the_cpu_generator():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for call in CALLS.values():
        call()
    torch.nn.functional.dropout(torch.ones(100, device="openreg"))
    assert torch.equal(torch.get_rng_state(), before)


# ---- Errors -----------------------------------------------------------------


@pytest.mark.parametrize(
    "method, args, dtype",
    [
        ("normal_", (0, -1), torch.float32),
        ("normal_", (0, float("nan")), torch.float32),
        ("normal_", (), torch.int64),
        ("uniform_", (2, 1), torch.float32),
        ("uniform_", (0, 1e6), torch.float16),
        ("uniform_", (), torch.int32),
        ("uniform_", (-3e38, 3e38), torch.float32),
        ("log_normal_", (0, 0), torch.float32),
        ("log_normal_", (), torch.int64),
        ("exponential_", (0,), torch.float32),
        ("exponential_", (), torch.int64),
        ("cauchy_", (0, 0), torch.float32),
        ("cauchy_", (), torch.int64),
        ("geometric_", (0,), torch.float32),
        ("geometric_", (1,), torch.float32),
        ("geometric_", (0.5,), torch.bool),
        ("bernoulli_", (1.5,), torch.float32),
        ("bernoulli_", (-0.5,), torch.int32),
        ("bernoulli_", (0.5,), torch.complex64),
        ("random_", (5, 5), torch.int64),
        ("random_", (0, 300), torch.uint8),
        ("random_", (-1, 3), torch.bool),
        ("random_", (), torch.complex64),
        ("random_", (0,), torch.int64),
        ("random_", (-(2**63), None), torch.int8),
        ("random_", (-(2**63), None), torch.int32),
        ("random_", (-(2**63), None), torch.float16),
        ("random_", (-(2**63), None), torch.bool),
        ("random_", (-(2**63), None), torch.uint64),
        ("bernoulli", (), torch.complex64),
        ("bernoulli", (), torch.float8_e5m2),
    ],
)
def test_bad_arguments_raise_as_on_the_cpu_and_draw_nothing(method, args, dtype):
    state = torch.openreg.get_rng_state()
    with pytest.raises(Exception) as cpu:
        getattr(torch.zeros(3, dtype=dtype), method)(*args)
    with pytest.raises(cpu.type) as here:
        getattr(torch.zeros(3, dtype=dtype, device="openreg"), method)(*args)
    assert str(here.value) == str(cpu.value)
    assert torch.equal(torch.openreg.get_rng_state(), state)


def test_all_numbers_of_64_bits_are_for_the_types_of_the_cpu(device):
    for dtype in (torch.int64, torch.float32, torch.float64, torch.bfloat16):
        x = torch.zeros(4000, dtype=dtype, device=device).random_(-(2**63), None).cpu().double()
        assert x.min() < -(2**62) and x.max() > 2**62, dtype


def test_probabilities_without_memory_are_an_error_of_the_call(device):
    p = torch.zeros(4, device=device)
    p.untyped_storage().resize_(0)
    for call in (lambda: torch.bernoulli(p), lambda: torch.zeros(4, device=device).bernoulli_(p), lambda: p.bernoulli_(torch.ones(4, device=device))):
        with pytest.raises(RuntimeError, match="has no memory"):
            call()


def test_bad_arguments_of_operators_on_the_cpus_kernels_draw_nothing(device):
    ones, own = torch.ones(8, device=device), torch.Generator(device)
    before = torch.openreg.get_rng_state(device), own.get_state()
    for generator in (None, own):
        for call in (
            lambda: torch.multinomial(ones, -1, generator=generator),
            lambda: torch.multinomial(ones, 100, generator=generator),
            lambda: torch.poisson(ones.int(), generator=generator),
            lambda: torch.binomial(ones, torch.ones(3, device=device), generator=generator),
        ):
            with pytest.raises(RuntimeError):
                call()
    assert torch.equal(torch.openreg.get_rng_state(device), before[0]) and torch.equal(own.get_state(), before[1])
    torch.poisson(ones)
    assert not torch.equal(torch.openreg.get_rng_state(device), before[0])


def test_writing_to_overlapping_memory_raises_as_on_the_cpu():
    for method, args in (("normal_", ()), ("uniform_", ()), ("bernoulli_", (0.5,)), ("random_", ())):
        with pytest.raises(RuntimeError, match="more than one element of the written-to tensor"):
            getattr(torch.zeros(3, device="openreg").expand(2, 3), method)(*args)


def test_a_generator_of_another_device_type_raises():
    for method in ("normal_", "random_", "exponential_"):
        with pytest.raises(RuntimeError, match="generator"):
            draw(method, count=3, generator=torch.Generator("cpu"))


@pytest.mark.parametrize(
    "call",
    [
        lambda g: torch.randn(3, generator=g),
        lambda g: torch.randperm(3, generator=g),
        lambda g: torch.ones(3).random_(generator=g),
        lambda g: torch.bernoulli(torch.full((3,), 0.5), generator=g),
        lambda g: torch.multinomial(torch.ones(3), 1, generator=g),
        lambda g: torch.poisson(torch.ones(3), generator=g),
    ],
    ids=["randn", "randperm", "random_", "bernoulli", "multinomial", "poisson"],
)
def test_a_generator_of_this_device_for_tensors_of_the_cpu_is_named_as_the_mistake(call, device):
    generator = torch.Generator(device)
    before = generator.get_state()
    with pytest.raises(RuntimeError, match="^Expected a 'cpu' device type for generator but found 'openreg'$"):
        call(generator)
    assert torch.equal(generator.get_state(), before)


def test_bad_probabilities_are_a_late_error(python):
    python(
        """
        import torch, torch_openreg
        for p in (1.5, -0.1, float("nan")):
            x = torch.zeros(3, device="openreg").bernoulli_(torch.tensor([0.5, p, 0.5], device="openreg"))
            try:
                torch.openreg.synchronize()
            except RuntimeError as error:
                assert "Expected p_in >= 0 && p_in <= 1" in str(error) and "bernoulli_" in str(error), error
            else:
                raise SystemExit("no error")
        assert torch.ones(3, device="openreg").bernoulli_(1.0).tolist() == [1] * 3
        """
    )


# ---- Dropout ----------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_dropout_keeps_and_scales(dtype, device):
    x = torch.full((COUNT,), 3.0, dtype=dtype, device=device)
    out, mask = torch.native_dropout(x, 0.25, True)
    assert mask.dtype == torch.bool and out.dtype == dtype
    assert mask.cpu().double().mean().item() == pytest.approx(0.75, abs=0.005)
    assert torch.equal(out.cpu(), torch.where(mask.cpu(), torch.tensor(4.0, dtype=dtype), torch.tensor(0.0, dtype=dtype)))


def test_dropout_at_its_ends(device):
    x = torch.randn(50, device=device)
    assert torch.equal(torch.dropout(x, 0.0, True), x)
    assert torch.equal(torch.dropout(x, 1.0, True), torch.zeros_like(x))
    assert torch.equal(torch.dropout(x, 0.5, False), x)
    for p, value in ((0.0, True), (1.0, False)):
        out, mask = torch.native_dropout(x, p, True)
        assert mask.cpu().unique().tolist() == [value]
        assert torch.equal(out, x if value else torch.zeros_like(x))
    out, mask = torch.native_dropout(x, 0.5, False)
    assert torch.equal(out, x) and mask.all()
    with pytest.raises(RuntimeError, match="between 0 and 1"):
        torch.native_dropout(x, 1.5, True)


def test_dropout_keeps_the_layout_and_its_gradient_uses_the_same_mask(device):
    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last).to(device).requires_grad_()
    out = torch.nn.functional.dropout(x, 0.5)
    assert out.stride() == x.stride()
    out.backward(torch.ones_like(out))
    kept = out.detach().cpu() != 0
    assert torch.equal(x.grad.cpu(), kept * 2.0)
    sliced = torch.randn(8, 8, device=device)[:, ::2]
    out, mask = torch.native_dropout(sliced, 0.5, True)
    assert torch.equal(out, sliced * mask * 2)


def test_a_mask_of_dropout_is_true_for_every_byte_but_0():
    mask = torch.tensor([0, 1, 2, 255], dtype=torch.uint8, device="openreg").view(torch.bool)
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        grad = torch.ones(4, dtype=dtype, device="openreg")
        assert torch.ops.aten.native_dropout_backward(grad, mask, 2.0).tolist() == [0, 2, 2, 2]


def test_dropout_of_8_bit_floats_raises_as_on_the_cpu(device):
    for x in (torch.ones(3, dtype=torch.float8_e5m2), torch.ones(3, dtype=torch.float8_e5m2, device=device)):
        with pytest.raises(NotImplementedError, match="bernoulli_scalar_cpu_"):
            torch.nn.functional.dropout(x, 0.5)


def test_dropout_of_complex_numbers():
    x = torch.full((1000,), 1 + 1j, device="openreg")
    out, mask = torch.native_dropout(x, 0.5, True)
    assert torch.equal(out.cpu(), x.cpu() * mask.cpu() * 2) and 400 < mask.sum() < 600


# ---- Which way a call takes -------------------------------------------------


def test_random_operators_take_device_kernels():
    for name, call in CALLS.items():
        torch.openreg.reset_op_stats()
        call()
        stats = torch.openreg.op_stats()
        assert not any(count["engine"] or count["waited"] for count in stats.values()), (name, stats)
    torch.openreg.reset_op_stats()
    x = torch.ones(100, device="openreg", requires_grad=True)
    (torch.nn.functional.dropout(x) * 3).backward(torch.ones(100, device="openreg"))
    stats = torch.openreg.op_stats()
    assert stats["aten::native_dropout"]["native"] == stats["aten::native_dropout_backward"]["native"] == 1
