"""Functions of single elements: values over dtypes, strides and special numbers, and the rules of integers. Reference: numpy, math."""

import math
import operator

import numpy
import torch
from reference import COMPLEX, FLOATS, INTEGERS, host, numbers, reals, synchronize
from torch.testing._internal.common_device_type import dtypes, instantiate_device_type_tests
from torch.testing._internal.common_utils import TestCase, noncontiguous_like, parametrize, run_tests

SPECIAL = numpy.array([0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 1e-30, 1e30, math.inf, -math.inf, math.nan, 3.0, 700.0, -700.0, math.pi])

UNARY = {
    name: getattr(numpy, name)
    for name in ("abs", "ceil", "cos", "cosh", "exp", "exp2", "expm1", "floor", "isfinite", "isinf", "isnan", "log", "log10", "log1p", "log2",
                 "signbit", "sin", "sinh", "sqrt", "square", "tan", "tanh", "trunc", "positive", "reciprocal", "sinc")
}  # fmt: skip
UNARY |= {
    "acos": numpy.arccos, "acosh": numpy.arccosh, "asin": numpy.arcsin, "asinh": numpy.arcsinh, "atan": numpy.arctan, "atanh": numpy.arctanh,
    "neg": numpy.negative, "round": numpy.rint, "deg2rad": numpy.deg2rad, "rad2deg": numpy.rad2deg, "logical_not": numpy.logical_not,
    "rsqrt": lambda a: 1 / numpy.sqrt(a), "sigmoid": lambda a: numpy.where(a < 0, numpy.exp(a) / (1 + numpy.exp(a)), 1 / (1 + numpy.exp(-a))),
    "frac": lambda a: a - numpy.trunc(a), "relu": lambda a: numpy.maximum(a, 0), "erf": numpy.vectorize(math.erf), "erfc": numpy.vectorize(math.erfc),
    "nan_to_num": numpy.nan_to_num, "sign": lambda a: numpy.nan_to_num(numpy.sign(a)),
}  # fmt: skip
BINARY = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv, "pow": numpy.power, "atan2": numpy.arctan2,
    "maximum": numpy.maximum, "minimum": numpy.minimum, "fmax": numpy.fmax, "fmin": numpy.fmin, "hypot": numpy.hypot, "copysign": numpy.copysign,
    "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge,
    "heaviside": lambda a, b: numpy.heaviside(numpy.nan_to_num(a, nan=-1), b) * numpy.ones_like(b),
    "fmod": numpy.fmod, "remainder": numpy.remainder, "floor_divide": numpy.floor_divide, "logaddexp": numpy.logaddexp, "nextafter": numpy.nextafter,
    "logical_and": numpy.logical_and, "logical_xor": numpy.logical_xor, "xlogy": lambda a, b: numpy.where(numpy.isnan(b), b, numpy.where(a == 0, 0, a * numpy.log(b))),
}  # fmt: skip
TOLERANCE = {torch.float32: {"rtol": 2e-5, "atol": 1e-6}, torch.complex64: {"rtol": 1e-4, "atol": 1e-4}}


class TestElementwise(TestCase):
    def setUp(self):
        super().setUp()
        self.enterContext(numpy.errstate(all="ignore"))

    @parametrize("name", sorted(UNARY))
    @dtypes(*FLOATS)
    def test_functions_of_one_number(self, device, dtype, name):
        array = numpy.concatenate([SPECIAL, reals(86)]).astype(str(dtype).removeprefix("torch."))
        if name == "sinc":
            array = array[numpy.isfinite(array)]  # numpy has nan where the limit is 0
        want = UNARY[name](array)
        if want.dtype != bool:
            want = want.astype(array.dtype)
        x = torch.tensor(array, device=device)
        for source in (x, noncontiguous_like(x), x.flip(0).flip(0), torch.stack([x, x])[1]):
            self.assertEqual(getattr(torch, name)(source), want, equal_nan=True, **TOLERANCE.get(dtype, {}))
        out = torch.empty(0, dtype=torch.bool if want.dtype == bool else dtype, device=device)
        if name not in ("isfinite", "isinf", "isnan", "relu", "positive"):
            self.assertEqual(getattr(torch, name)(x, out=out), want, **TOLERANCE.get(dtype, {}))
        if hasattr(x, f"{name}_"):
            copy = torch.tensor(numpy.stack([array, array], 1), device=device)
            getattr(copy[:, 0], f"{name}_")()
            self.assertEqual(copy[:, 0], want.astype(array.dtype), **TOLERANCE.get(dtype, {}))
            self.assertEqual(copy[:, 1], array)

    @parametrize("name", ["abs", "exp", "log", "sin", "cos", "tanh", "sqrt", "reciprocal", "neg", "square", "angle", "conj", "acos", "asinh", "atan", "sigmoid", "isfinite", "sgn"])
    @dtypes(*COMPLEX)
    def test_functions_of_a_complex_number(self, device, dtype, name):
        array = ((reals(50) + 1j * reals(50, 1)) / 2 + 0.25j).astype(str(dtype).removeprefix("torch."))
        functions = {"sgn": lambda a: a / abs(a), "sigmoid": lambda a: 1 / (1 + numpy.exp(-a)), "acos": numpy.arccos, "asinh": numpy.arcsinh, "atan": numpy.arctan, "neg": numpy.negative}
        want = functions.get(name, getattr(numpy, name, None))(array)
        self.assertEqual(getattr(torch, name)(torch.tensor(array, device=device)), want, **TOLERANCE.get(dtype, {}))

    @parametrize("name", sorted(BINARY))
    @dtypes(*FLOATS)
    def test_functions_of_two_numbers(self, device, dtype, name):
        values = numpy.array([0.0, -0.0, 1.0, -1.5, 2.0, 0.3, -7.25, math.inf, -math.inf, math.nan, 1e3]).astype(str(dtype).removeprefix("torch."))
        left, right = values[:, None], values[None, :]
        want = numpy.asarray(BINARY[name](left, right))
        if name in ("remainder", "floor_divide", "fmod"):  # torch has its own rules for infinite operands
            keep = numpy.isfinite(left) & numpy.isfinite(right) & (right != 0)
        else:
            keep = numpy.ones(want.shape, bool)
        a, b = torch.tensor(left, device=device), torch.tensor(right, device=device)
        full_a, full_b = a.expand(11, 11), b.expand(11, 11)
        for first, second in ((a, b), (full_a, full_b), (full_a.contiguous(), full_b.contiguous()), (full_a.t().contiguous().t(), b), (full_b.t(), full_a.t())):
            got = host(getattr(torch, name)(first, second))
            self.assertEqual(got[keep], want[keep], **TOLERANCE.get(dtype, {}))
        for number in (2.0, -0.5):
            if name in ("add", "sub", "mul", "div", "pow", "eq", "ne", "lt", "le", "gt", "ge", "fmod", "remainder", "floor_divide", "xlogy"):
                got, want_number = host(getattr(torch, name)(a[:7], number)), BINARY[name](left[:7], values.dtype.type(number))
                nonzero = left[:7] != 0  # the sign of -0.0 ** -0.5 is not agreed on
                self.assertEqual(got[nonzero], want_number[nonzero], **TOLERANCE.get(dtype, {}))

    @dtypes(*INTEGERS)
    def test_division_and_remainder_of_integers(self, device, dtype):
        left = numpy.array([7, 8, 9, 0, 100] if dtype == torch.uint8 else [7, -7, 8, -8, 0], str(dtype).removeprefix("torch."))
        right = numpy.array([2, 3, 5] if dtype == torch.uint8 else [2, -3, 5], left.dtype)
        a, b = torch.tensor(left, device=device)[:, None], torch.tensor(right, device=device)
        exact = [[(int(x), int(y)) for y in right] for x in left]
        table = lambda f: [[f(x, y) for x, y in row] for row in exact]  # noqa: E731
        self.assertEqual((a // b).tolist(), table(operator.floordiv))
        self.assertEqual((a % b).tolist(), table(operator.mod))
        self.assertEqual(torch.div(a, b, rounding_mode="trunc").tolist(), table(lambda x, y: int(x / y)))
        self.assertEqual(torch.div(a, b, rounding_mode="floor").tolist(), table(operator.floordiv))
        self.assertEqual(torch.fmod(a, b).tolist(), table(lambda x, y: int(math.fmod(x, y))))
        self.assertEqual((a / b), (left[:, None] / right).astype("float32"))
        self.assertEqual((100 // b).tolist(), [100 // int(y) for y in right])
        self.assertEqual((100 % b).tolist(), [100 % int(y) for y in right])
        self.assertEqual(torch.gcd(a, b).tolist(), table(math.gcd))
        self.assertEqual(torch.lcm(a[:4], b).tolist(), table(math.lcm)[:4])

    def test_an_integer_divided_by_zero_is_an_error(self, device):
        x = torch.tensor([1, 2], device=device)
        for call in (lambda: x // 0, lambda: x % 0, lambda: torch.div(x, torch.zeros_like(x), rounding_mode="floor")):
            with self.assertRaisesRegex(RuntimeError, "ZeroDivisionError"):
                call()
                synchronize(device)
        self.assertEqual((x / 0).tolist(), [math.inf, math.inf])

    @dtypes(*INTEGERS)
    def test_powers_and_shifts_of_integers(self, device, dtype):
        values = numpy.array([0, 1, 2, 3, 5], str(dtype).removeprefix("torch."))
        x = torch.tensor(values, device=device)
        self.assertEqual(x.pow(2), values**2)
        self.assertEqual(x.pow(x), values**values)
        self.assertEqual((2**x), 2**values)
        self.assertEqual(x << 2, values << 2)
        self.assertEqual(x >> 1, values >> 1)
        self.assertEqual(x << x, values << values)
        if dtype != torch.uint8:
            self.assertEqual((-x) >> 1, (-values) >> 1)
            self.assertEqual(x.neg().abs(), values)

    @dtypes(*INTEGERS)
    def test_a_negative_number_as_the_power_of_integers_is_an_error_at_the_call(self, device, dtype):
        x = torch.tensor([1, 2, 3], dtype=dtype, device=device)
        x.pow(2), x.clone().pow_(2)  # good calls first: the same call is wrong with another number
        calls = (
            lambda: x.pow(-1), lambda: x**-2, lambda: x.pow_(-1), lambda: torch.pow(x, -1, out=torch.empty_like(x)), lambda: x[:0].pow(-1),
            lambda: torch._foreach_pow([x], -1), lambda: torch._foreach_pow_([x], [-1]),
        )  # fmt: skip
        for call in calls * 2:
            with self.assertRaisesRegex(RuntimeError, "^Integers to negative integer powers are not allowed.$"):
                call()
        synchronize(device)  # nothing comes late
        self.assertEqual(x.tolist(), [1, 2, 3])

    @dtypes(*(dtype for dtype in INTEGERS if dtype != torch.uint8))
    def test_negative_powers_in_a_tensor_are_computed(self, device, dtype):
        x = torch.tensor([1, -1, 2, 5, -3], dtype=dtype, device=device)
        for power, want in ((-1, [1, -1, 0, 0, 0]), (-2, [1, 1, 0, 0, 0])):
            for exponent in (torch.full_like(x, power), torch.tensor(power, dtype=dtype, device=device), torch.tensor(power, dtype=dtype)):
                self.assertEqual(x.pow(exponent).tolist(), want)
        self.assertEqual((2 ** -x.abs()).tolist(), [0] * 5)

    @dtypes(*INTEGERS, torch.bool)
    def test_bits(self, device, dtype):
        a, b = numbers((20,), dtype), numbers((20,), dtype, seed=1)
        x, y = torch.tensor(a, device=device), torch.tensor(b, device=device)
        for function in (operator.and_, operator.or_, operator.xor):
            self.assertEqual(function(x, y), function(a, b))
            self.assertEqual(function(x, bool(1) if dtype == torch.bool else 3), function(a, a.dtype.type(1 if dtype == torch.bool else 3)))
        self.assertEqual(~x, ~a)
        self.assertEqual(x.bitwise_and_(y), a & b)

    @parametrize("mode", ["numbers", "tensors", "low", "high"])
    @dtypes(torch.float32, torch.int64)
    def test_clamping(self, device, dtype, mode):
        array = numbers((30,), dtype)
        if dtype == torch.float32:
            array[3] = math.nan
        x = torch.tensor(array, device=device)
        low, high = {"numbers": (-1, 2), "low": (-1, None), "high": (None, 2), "tensors": (-numpy.ones_like(array), 2 * numpy.ones_like(array))}[mode]
        want = array
        want = numpy.maximum(want, low).astype(array.dtype) if low is not None else want
        want = numpy.minimum(want, high).astype(array.dtype) if high is not None else want
        arguments = [torch.tensor(bound, device=device) if isinstance(bound, numpy.ndarray) else bound for bound in (low, high)]
        self.assertEqual(x.clamp(*arguments), want)
        self.assertEqual(x.clone().clamp_(*arguments), want)

    def test_compound_functions(self, device):
        a, b, c = reals((3, 4)), reals((4,), 1), reals((3, 1), 2)
        x, y, z = (torch.tensor(array, device=device) for array in (a, b, c))
        self.assertEqual(torch.addcmul(x, y, z, value=0.5), a + 0.5 * b * c)
        self.assertEqual(torch.addcdiv(x, y, z, value=-2), a - 2 * b / c)
        self.assertEqual(torch.lerp(x, y, 0.3), a + 0.3 * (b - a))
        self.assertEqual(torch.lerp(x, y, z), a + c * (b - a))
        self.assertEqual(torch.add(x, y, alpha=3), a + 3 * b)
        self.assertEqual(torch.sub(x, 2, alpha=3), a - 6)
        self.assertEqual(torch.rsub(x, y, alpha=2), b - 2 * a)
        self.assertEqual(torch.where(x > y, x, 0.0), numpy.where(a > b, a, 0))
        self.assertEqual(torch.polar(x.abs(), x), abs(a) * numpy.exp(1j * a))
        self.assertEqual(torch.complex(x, x), a + 1j * a)
        mantissa, exponent = torch.frexp(x)
        self.assertEqual((mantissa, exponent), numpy.frexp(a))
        self.assertEqual(torch.ldexp(mantissa, exponent), a)
        self.assertEqual(torch.threshold(x, 0.1, -5), numpy.where(a > 0.1, a, -5))
        self.assertEqual(torch.allclose(x, x + 1e-9), True)
        self.assertEqual(torch.isclose(x, x + 1e-3).any().item(), False)
        self.assertEqual((torch.equal(x, x.clone()), torch.equal(x, x + 1)), (True, False))

    def test_operands_that_are_the_same_tensor(self, device):
        array = reals((5, 5))
        x = torch.tensor(array, device=device)
        self.assertEqual(x + x.t(), array + array.T)
        self.assertEqual(x.mul_(x), array * array)
        self.assertEqual(x.sub_(x).any().item(), False)
        y = torch.tensor(array, device=device)
        torch.exp(y, out=y)
        self.assertEqual(y, numpy.exp(array))
        with self.assertRaisesRegex(RuntimeError, "single memory location"):
            z = torch.tensor(array, device=device)
            z.add_(z.t())

    @parametrize("size", [0, 1, 3, 7, 8, 15, 16, 17, 31, 33, 63, 65, 127, 1000, 4097, 32769, 100003])
    @dtypes(torch.float32, torch.int8, torch.float16, torch.bool)
    def test_every_length_is_computed_to_its_end(self, device, dtype, size):
        array = numbers((size + 1,), dtype)
        x = torch.tensor(array, device=device)[1:]
        array = array[1:]
        self.assertEqual(x * x, array * array)
        self.assertEqual(x.clone().fill_(1), numpy.ones_like(array))
        self.assertEqual(torch.where(x > 0, x, x.flip(0)), numpy.where(array > 0, array, array[::-1]))
        self.assertEqual((x == x.flip(0)), array == array[::-1])

    def test_results_are_written_into_out_of_any_strides(self, device):
        array = reals((4, 6))
        x = torch.tensor(array, device=device)
        wide = torch.full((4, 12), -1.0, dtype=x.dtype, device=device)
        torch.mul(x, 2, out=wide[:, ::2])
        self.assertEqual(wide[:, ::2], 2 * array)
        self.assertEqual(wide[:, 1::2].unique().tolist(), [-1])
        transposed = torch.empty(6, 4, dtype=x.dtype, device=device).t()
        self.assertEqual(torch.mul(x, 2, out=transposed).stride(), (1, 4))
        self.assertEqual(transposed, 2 * array)
        with self.assertWarnsRegex(UserWarning, "An output with one or more elements was resized"):
            torch.mul(x, 2, out=torch.empty(3, dtype=x.dtype, device=device))


instantiate_device_type_tests(TestElementwise, globals())

if __name__ == "__main__":
    run_tests()
