"""Elementwise operators with device kernels: values against the CPU, bit by bit, whichever way a call takes, and which
way that is.

Needs the built extension.
"""

import itertools

import pytest
import torch

import torch_openreg  # noqa: F401  (registers the device)

FLOATING = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
INTEGRAL = [torch.int32, torch.int64]
OTHERS = [torch.uint8, torch.int8, torch.int16, torch.bool, torch.complex64]
SPECIAL = [0.0, -0.0, float("inf"), float("-inf"), float("nan"), 1.0, -1.0, 1e-40, 6e-8, 65504.0]
COMPARISONS = ["eq", "ne", "lt", "le", "gt", "ge"]


def sample(dtype, *shape, seed=0):
    """Values on the CPU, with infinities, NaN and zeros of both signs among floating ones."""
    generator = torch.Generator().manual_seed(seed)
    if dtype.is_floating_point or dtype.is_complex:
        real = torch.float64 if not dtype.is_complex else torch.complex128
        values = (torch.randn(shape, dtype=real, generator=generator) * 10).to(dtype)
        if values.numel() > 4 * len(SPECIAL) and not dtype.is_complex:
            special = torch.tensor(SPECIAL, dtype=torch.float64).to(dtype)
            values.view(-1)[seed : seed + len(SPECIAL)] = special
            values.view(-1)[2 * len(SPECIAL) : 3 * len(SPECIAL)] = special.flip(0)
        return values
    if dtype == torch.bool:
        return torch.randint(0, 2, shape, generator=generator).bool()
    low, high = (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
    return torch.randint(low, high, shape, dtype=dtype, generator=generator)


def assert_same(got, want):
    """The same dtype, shape and strides, and the same bits, where one NaN is as good as another."""
    assert got.device.type == "openreg"
    assert (got.dtype, got.shape, got.stride()) == (want.dtype, want.shape, want.stride())
    torch.testing.assert_close(got.cpu(), want, rtol=0, atol=0, equal_nan=True)
    if want.dtype.is_floating_point:
        assert torch.equal(torch.signbit(got.cpu())[~want.isnan()], torch.signbit(want)[~want.isnan()])


def outcome(function, *tensors):
    try:
        return function(*tensors)
    except Exception as error:
        return error


def check(function, *tensors, device="openreg"):
    """Runs the function on CPU tensors and on their copies: the same values, or the same exception with the same text."""
    want = outcome(function, *(tensor.clone() for tensor in tensors))
    got = outcome(function, *(tensor.to(device) for tensor in tensors))
    if isinstance(want, Exception) or isinstance(got, Exception):
        assert type(got) is type(want) and str(got) == str(want), f"{got!r} instead of {want!r}"
    else:
        assert_same(got, want)
    return got


def ways(name):
    return {way: count for way, count in torch.openreg.op_stats().get(name, {}).items() if count}


@pytest.fixture(autouse=True)
def fresh_stats():
    torch.openreg.reset_op_stats()


# ---- Values -----------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATING + INTEGRAL, ids=str)
@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", *COMPARISONS])
def test_two_tensors_give_the_bits_of_the_cpu(name, dtype, device):
    function = getattr(torch, name)
    for numel in (0, 1, 7, 16, 1003):
        check(function, sample(dtype, numel), sample(dtype, numel, seed=1), device=device)
    check(function, sample(dtype), sample(dtype, seed=1), device=device)
    check(function, sample(dtype, 3, 5), sample(dtype, 3, 5, seed=1), device=device)


@pytest.mark.parametrize("dtype", FLOATING + INTEGRAL, ids=str)
@pytest.mark.parametrize("scalar", [3, 0, -2, 0.1, 2.5, float("inf"), 1e30, 2**40, 2**60 + 1, 1e300, True], ids=str)
def test_a_python_number_on_either_side_gives_the_bits_of_the_cpu(scalar, dtype):
    a = sample(dtype, 67)
    for operator in ("+", "-", "*", "/", "==", "!=", "<", "<=", ">", ">="):
        check(eval(f"lambda x: x {operator} {scalar!r}", {"inf": float("inf")}), a)
        check(eval(f"lambda x: {scalar!r} {operator} x", {"inf": float("inf")}), a)


@pytest.mark.parametrize("dtype", FLOATING + INTEGRAL, ids=str)
@pytest.mark.parametrize("scalar_dtype", FLOATING + INTEGRAL + [torch.uint8, torch.int16, torch.bool], ids=str)
def test_a_cpu_scalar_tensor_promotes_as_on_the_cpu(dtype, scalar_dtype):
    scalar = torch.tensor(3).to(scalar_dtype)
    for shape in ((), (1,), (5,)):
        for function in (torch.add, torch.mul, torch.div, torch.eq):
            a = sample(dtype, *shape)
            assert_same(function(a.to("openreg"), scalar), function(a, scalar))
            assert_same(function(scalar, a.to("openreg")), function(scalar, a))


@pytest.mark.parametrize("dtype", FLOATING + INTEGRAL, ids=str)
@pytest.mark.parametrize("alpha", [2, -1, 0, 1.0, 0.25, -0.01, True, 2**33], ids=str)
def test_alpha_gives_the_bits_of_the_cpu(alpha, dtype):
    a, b = sample(dtype, 64), sample(dtype, 64, seed=1)
    check(lambda x, y: torch.add(x, y, alpha=alpha), a, b)
    check(lambda x, y: torch.sub(x, y, alpha=alpha), a, b)
    check(lambda x, y: x.add_(y, alpha=alpha), a, b)
    check(lambda x, y: x.sub_(y, alpha=alpha), a, b)


@pytest.mark.parametrize("alpha", [2, 0.3])
def test_alpha_with_scalars(alpha):
    a = torch.randn(203)
    for function in (
        lambda x: torch.add(x, 5, alpha=alpha),
        lambda x: torch.sub(x, 5, alpha=alpha),
        lambda x: torch.rsub(x, 5, alpha=alpha),
        lambda x: torch.add(torch.tensor(1.5), x, alpha=alpha),
    ):
        assert_same(function(a.to("openreg")), function(a))


@pytest.mark.parametrize("dtype", FLOATING + INTEGRAL, ids=str)
@pytest.mark.parametrize("name", ["neg", "abs", "relu", "reciprocal"])
def test_one_tensor_gives_the_bits_of_the_cpu(name, dtype, device):
    for numel in (0, 1, 16, 1003):
        check(getattr(torch, name), sample(dtype, numel), device=device)
        if name != "reciprocal" or dtype.is_floating_point:
            check(getattr(torch, name + "_"), sample(dtype, numel), device=device)


@pytest.mark.parametrize("dtype", FLOATING + INTEGRAL, ids=str)
@pytest.mark.parametrize("name", ["sqrt", "rsqrt"])
def test_roots_are_within_one_unit_in_the_last_place(name, dtype):
    a = sample(dtype, 1003)
    want, got = getattr(torch, name)(a), getattr(torch, name)(a.to("openreg"))
    eps = torch.finfo(want.dtype).eps
    torch.testing.assert_close(got.cpu(), want, rtol=eps, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", FLOATING, ids=str)
@pytest.mark.parametrize("threshold", [0, 0.5])
def test_threshold_backward(dtype, threshold):
    function = torch.ops.aten.threshold_backward
    check(lambda grad, x: function(grad, x, threshold), sample(dtype, 999), sample(dtype, 999, seed=1))


def test_integers_wrap():
    top = torch.tensor([2**63 - 1, -(2**63)], device="openreg")
    assert (top + 1).tolist() == [-(2**63), -(2**63) + 1]
    assert (-top).tolist() == [-(2**63) + 1, -(2**63)]
    assert torch.add(top, top, alpha=3).tolist() == torch.add(top.cpu(), top.cpu(), alpha=3).tolist()


@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_a_cpu_scalar_tensor_on_the_left_gives_the_bits_of_the_cpu(dtype):
    generator = torch.Generator().manual_seed(2)
    for numel in (1, 2, 37):
        for scalar_dtype in (torch.float32, torch.float64):
            scalar = torch.randn((), dtype=scalar_dtype, generator=generator) * 10
            a = (torch.randn(numel, dtype=torch.float64, generator=generator) * 10).to(dtype)
            for function in (torch.mul, torch.div, torch.add, torch.sub):
                assert_same(function(scalar, a.to("openreg")), function(scalar, a))
                assert_same(function(a.to("openreg"), scalar), function(a, scalar))


def test_an_alpha_that_does_not_fit_is_an_error_of_the_call(device):
    for dtype, alpha in ((torch.float16, 1e40), (torch.int32, 2**40), (torch.int16, 70000), (torch.uint8, -1), (torch.float32, 1e300)):
        for a in (torch.ones(5, dtype=dtype), torch.ones(5, 2, dtype=dtype)[:, 0]):
            for _ in range(2):
                check(lambda x: torch.rsub(x, 3, alpha=alpha), a, device=device)
                check(lambda x: torch.add(x, x, alpha=alpha), a, device=device)
                check(lambda x: torch.add(x, torch.ones(7, dtype=dtype, device=x.device), alpha=alpha), a, device=device)
    check(lambda x: x.add_(1.5, alpha=1e300), torch.ones(3, dtype=torch.int64), device=device)


# ---- Type promotion and mixed operands --------------------------------------


@pytest.mark.parametrize(
    "a, b", list(itertools.product([torch.float32, torch.int64, torch.int32, torch.float16], FLOATING + INTEGRAL + OTHERS)), ids=str
)
def test_mixed_types_promote_as_on_the_cpu(a, b):
    for name in ("add", "mul", "div", "lt" if not b.is_complex else "eq"):
        x, y = sample(a, 24), sample(b, 24, seed=1)
        function = getattr(torch, name)
        torch.testing.assert_close(function(x.to("openreg"), y.to("openreg")).cpu(), function(x, y), equal_nan=True)


@pytest.mark.parametrize("dtype", OTHERS, ids=str)
def test_types_without_kernels_take_the_engine(dtype):
    a, b = sample(dtype, 33), sample(dtype, 33, seed=1)
    for function in (torch.add, torch.mul, torch.eq, torch.sub):
        check(function, a, b)
    check(torch.abs, a)
    check(lambda x: x + 1, a)


def test_reversed_operands_stay_on_the_device():
    x = torch.arange(1.0, 5, device="openreg")
    for result in (1 - x, torch.rsub(x, 1), 2 / x, torch.tensor(1.0) - x, torch.tensor(1.0) / x, 1 + x, 2 * x):
        assert result.device == x.device
    assert (1 - x).tolist() == [0, -1, -2, -3]
    assert (12 / x).tolist() == [12, 6, 4, 3]


# ---- Layouts ----------------------------------------------------------------


def layouts(dtype=torch.float32):
    base = sample(dtype, 6, 4, 2)
    yield "transposed", base.transpose(0, 2)
    yield "sliced", base[::2, 1:3]
    yield "expanded", base[:1].expand(6, 4, 2)
    yield "permuted", base.permute(1, 2, 0)
    yield "channels_last", sample(dtype, 2, 3, 4, 5).to(memory_format=torch.channels_last)
    yield "offset", base.view(-1)[5:]
    yield "no_dims", base[0, 0, 0]


@pytest.mark.parametrize("layout", [name for name, _ in layouts()])
def test_every_layout_gives_the_values_of_the_cpu(layout):
    a = dict(layouts())[layout]
    on_device = torch.empty_like(a, device="openreg").copy_(a) if layout != "expanded" else a[:1].to("openreg").expand(6, 4, 2)
    for function in (torch.neg, torch.relu, lambda x: x + x, lambda x: x * 2, lambda x: x > 0.5, lambda x: 1 - x):
        torch.testing.assert_close(function(on_device).cpu(), function(a), rtol=0, atol=0, equal_nan=True)


def test_dimensions_of_one_element_keep_their_strides_beside_a_scalar():
    for a in (torch.randn(2, 4, 1, 1).to(memory_format=torch.channels_last), torch.randn(4, 1).t(), torch.randn(3, 1, 2).permute(1, 0, 2)):
        assert a.is_contiguous()
        on_device = torch.empty_strided(a.shape, a.stride(), device="openreg").copy_(a)
        for function in (lambda x: x * 2, lambda x: 1 - x, lambda x: x > 0, lambda x: torch.tensor(2.0) / x, lambda x: x + x, torch.neg):
            assert_same(function(on_device), function(a))


def test_broadcasting():
    a, b = torch.randn(4, 1, 3), torch.randn(5, 1)
    for function in (torch.add, torch.mul, torch.div, torch.ge):
        check(function, a, b)
    check(lambda x, y: x.add_(y), torch.randn(4, 3), torch.randn(3))


def test_out_arguments_are_written_and_resized():
    a, b = torch.randn(7), torch.randn(7)
    for name in ("add", "mul", "lt"):
        want = getattr(torch, name)(a, b)
        out = torch.empty(0, dtype=want.dtype, device="openreg")
        result = getattr(torch, name)(a.to("openreg"), b.to("openreg"), out=out)
        assert result is out
        assert_same(out, want)


def test_in_place_results_are_the_same_tensor():
    a = torch.randn(9, device="openreg")
    before = a.data_ptr()
    for result in (a.add_(1), a.mul_(a), a.sub_(a, alpha=0.5), a.div_(2), a.neg_(), a.relu_(), a.fill_(3), a.zero_()):
        assert result is a and result.data_ptr() == before
    assert a.tolist() == [0] * 9


def test_in_place_on_overlapping_memory_raises_as_on_the_cpu():
    check(lambda x: x.expand(3, 4).add_(1), torch.randn(4))
    check(lambda x: x[1:].add_(x[:-1]), torch.randn(5))
    check(lambda x: x.expand(3, 4).neg_(), torch.randn(4))


def test_in_place_cannot_change_the_type():
    check(lambda x: x.add_(1.5), torch.arange(3))
    check(lambda x, y: x.mul_(y), torch.arange(3), torch.randn(3))
    check(lambda x: x.div_(2), torch.arange(3))


def test_views_are_written_where_they_lie():
    base = torch.zeros(4, 6, device="openreg")
    base[1].add_(1)
    base.view(-1)[18:].fill_(2)
    base[:, 5].sub_(4)
    want = torch.zeros(4, 6)
    want[1] += 1
    want.view(-1)[18:] = 2
    want[:, 5] -= 4
    assert torch.equal(base.cpu(), want)


def test_conjugate_negative_and_zero_tensors():
    a = sample(torch.complex64, 12)
    check(lambda x: x.conj() + x, a)
    check(lambda x: x.conj().imag * 2, a)
    zero = torch._efficientzerotensor(5, device="openreg")
    assert (zero + torch.ones(5, device="openreg")).tolist() == [1] * 5


# ---- Fills ------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATING + INTEGRAL + OTHERS + [torch.complex128], ids=str)
@pytest.mark.parametrize("value", [0, 1, 2.7, -1, True], ids=str)
def test_fill_gives_the_bits_of_the_cpu(dtype, value, device):
    for numel in (0, 2, 33):
        check(lambda x: x.fill_(value), sample(dtype, numel), device=device)
    check(lambda x: x.t().fill_(value), sample(dtype, 3, 4), device=device)
    check(lambda x: x[:, 1].fill_(value), sample(dtype, 3, 4), device=device)
    check(lambda x: x.zero_(), sample(dtype, 3, 4), device=device)


def test_a_value_that_does_not_fit_raises_as_on_the_cpu():
    for dtype, value in ((torch.uint8, 300), (torch.int32, 2**40), (torch.float32, 1e300), (torch.float16, 1e6), (torch.float32, 1j)):
        check(lambda x: x.fill_(value), torch.zeros(50).to(dtype))


def test_a_value_that_does_not_fit_is_an_error_of_the_call_for_any_layout():
    for a in (torch.zeros(8)[::2], torch.zeros(1).expand(4), torch.zeros(0), torch.zeros(())):
        for _ in range(2):
            check(lambda x: x.fill_(1e300), a)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("value", [70000, 1e300, -1e39, 3.4e38, 1e5, float("inf"), 1j], ids=str)
def test_one_element_of_16_bits_takes_what_the_cpu_takes(dtype, value):
    for shape in ((), (1,), (1, 1), (2,)):
        check(lambda x: x.fill_(value), torch.zeros(shape, dtype=dtype))


# ---- Devices and streams ----------------------------------------------------


def test_operators_run_where_their_tensors_are():
    assert torch.openreg.current_device() == 0
    x = torch.arange(5.0, device="openreg:1")
    for result in (x + 1, 1 - x, x * x, -x, x > 2, x.abs(), torch.relu(x), x.clone().add_(x), x.clone().zero_()):
        assert result.device == torch.device("openreg", 1)
        result.cpu()
    assert torch.openreg.current_device() == 0


def test_operands_on_two_devices_raise():
    a, b = torch.ones(3, device="openreg:0"), torch.ones(3, device="openreg:1")
    for function in (torch.add, torch.mul, torch.eq):
        with pytest.raises(RuntimeError, match="same device"):
            function(a, b)
    with pytest.raises(RuntimeError, match="same device"):
        a + torch.ones(3)


def test_operators_run_on_the_current_stream_in_order():
    stream = torch.openreg.Stream()
    x = torch.zeros(1000, device="openreg")
    torch.openreg.synchronize()
    with torch.openreg.stream(stream):
        for _ in range(100):
            x.add_(1)
        y = x * 2
    stream.synchronize()
    assert y.cpu().unique().tolist() == [200]


# ---- Which way a call takes -------------------------------------------------


def test_the_common_calls_take_device_kernels():
    x, y = torch.randn(16, device="openreg"), torch.randn(16, device="openreg")
    calls = {
        "aten::add.Tensor": lambda: (x + y, x + 1, 1 + x, torch.add(x, y, alpha=2)),
        "aten::sub.Tensor": lambda: (x - y, x - 1, 1 - x),
        "aten::mul.Tensor": lambda: (x * y, x * 2, 2 * x),
        "aten::div.Tensor": lambda: (x / y, x / 2),
        "aten::add_.Tensor": lambda: (x.add_(y), x.add_(1), x.add_(y, alpha=-0.1)),
        "aten::mul_.Tensor": lambda: (x.mul_(y), x.mul_(0.9)),
        "aten::eq.Scalar": lambda: (x == 0,),
        "aten::lt.Tensor": lambda: (x < y,),
        "aten::relu": lambda: (torch.relu(x),),
        "aten::neg": lambda: (-x,),
        "aten::fill_.Scalar": lambda: (x.fill_(1),),
        "aten::zero_": lambda: (x.zero_(),),
    }
    for name, call in calls.items():
        torch.openreg.reset_op_stats()
        count = len(call())
        assert ways(name) == {"native": count}, name


def test_what_kernels_do_not_cover_takes_the_engine():
    x = torch.randn(8, 2, device="openreg")
    for call in (lambda: x.t() + 1, lambda: x + x[0], lambda: x + x.double(), lambda: x + x.new_ones(())):
        torch.openreg.reset_op_stats()
        call()
        assert ways("aten::add.Tensor").get("engine") == 1


def test_large_tensors_use_all_threads(python):
    """A device kernel has one thread; with several intra-op threads the engine takes over."""
    code = """
        import torch, torch_openreg
        torch.set_num_threads({threads})
        x = torch.ones(40000, device="openreg")
        torch.openreg.reset_op_stats()
        y = x + x
        stats = torch.openreg.op_stats()["aten::add.Tensor"]
        assert y.cpu().unique().tolist() == [2]
        print(stats["native"], stats["engine"])
    """
    assert python(code.replace("{threads}", "1")).stdout.split() == ["1", "0"]
    assert python(code.replace("{threads}", "2")).stdout.split() == ["0", "1"]


def test_a_call_without_memory_for_its_result_leaves_no_notes_for_the_sanitizer(python):
    """What the call would have read may be freed before the next one."""
    code = """
        import torch, torch_openreg
        z = torch.zeros(3, device="openreg")
        for call in (lambda x: x + x, lambda x: x * 2, lambda x: torch._foreach_sqrt([x])):
            x, kept = torch.ones(32000, device="openreg"), []
            try:
                while True:
                    kept.append(call(x))
            except torch.OutOfMemoryError:
                pass
            del x, kept
            torch.openreg.synchronize()
            torch.openreg.empty_cache()
            z.add_(1)
        print(z.tolist())
    """
    assert python(code, env={"OPENREG_SANITIZE": "lifetime", "OPENREG_MEMORY": "3MiB"}).stdout == "[3.0, 3.0, 3.0]\n"


# ---- Gradients --------------------------------------------------------------


def test_gradients_flow_through_device_kernels(device):
    def run(where):
        x = torch.linspace(-2, 2, 40).to(where).requires_grad_()
        w = torch.linspace(1, 3, 40).to(where).requires_grad_()
        loss = (torch.relu(x * w - 0.5) / (1 + w)).sum() + (3 - x).abs().sqrt().sum()
        loss.backward()
        return [loss.detach().cpu(), x.grad.cpu(), w.grad.cpu()]

    for got, want in zip(run(device), run("cpu")):
        torch.testing.assert_close(got, want)


def test_in_place_on_a_leaf_that_requires_grad_raises():
    check(lambda x: x.requires_grad_().add_(1), torch.ones(3))
