"""Which dtype a result has, and its values: pairs of dtypes, numbers beside tensors, in-place and out=, casts.

Values are computed by numpy in the dtype that the rule names, so a device that computes in another one is found.
"""

import itertools
import math

import numpy
import torch
from reference import NUMPY_DTYPES, host, numbers
from torch.testing._internal.common_device_type import dtypes, instantiate_device_type_tests
from torch.testing._internal.common_utils import TestCase, parametrize, run_tests

ORDER = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16,
         torch.float32, torch.float64, torch.complex64, torch.complex128)  # fmt: skip


def category(dtype):
    return 0 if dtype == torch.bool else 3 if dtype.is_complex else 2 if dtype.is_floating_point else 1


def promoted(first, second):
    """The rule, written again: the higher category; within one, the wider; what neither holds goes one up."""
    if category(first) != category(second):
        high, low = (first, second) if category(first) > category(second) else (second, first)
        return torch.complex128 if (high, low) == (torch.complex64, torch.float64) else high
    if {first, second} == {torch.float16, torch.bfloat16}:
        return torch.float32
    if first != second and torch.uint8 in (first, second) and torch.int8 in (first, second):
        return torch.int16
    return max(first, second, key=ORDER.index)


def computed(array, dtype):
    name = "float32" if dtype == torch.bfloat16 else str(dtype).removeprefix("torch.")
    return array.astype(name)


class TestTypePromotion(TestCase):
    @dtypes(*itertools.product(ORDER, ORDER))
    def test_pairs_of_tensors(self, device, dtypes):
        first, second = dtypes
        left = torch.tensor([0, 1, 3, 2], device=device).to(first)
        right = torch.tensor([1, 1, 2, 0], device=device).to(second)
        common = promoted(first, second)
        self.assertEqual(torch.result_type(left, right), common)
        a, b = computed(host(left), common), computed(host(right), common)
        results = {"mul": (left * right, a * b), "add": (left + right, a + b), "where": (torch.where(left == right, left, right), numpy.where(host(left) == host(right), a, b))}
        if torch.bool not in (first, second):
            results["sub"] = (left - right, a - b)
        if not common.is_complex:
            results["maximum"] = (torch.maximum(left, right), numpy.maximum(a, b))
        for name, (got, want) in results.items():
            self.assertEqual(got.dtype, common, msg=name)
            self.assertEqual(host(got), want, msg=name)
        self.assertEqual((left == right).tolist(), (a == b).tolist())
        quotient = left / right
        self.assertEqual(quotient.dtype, common if category(common) > 1 else torch.float32)
        joined = torch.cat([left, right])
        self.assertEqual(joined.dtype, common)
        self.assertEqual(host(joined), numpy.concatenate([a, b]))

    @dtypes(*ORDER)
    def test_a_number_counts_only_when_its_category_is_higher(self, device, dtype):
        x = torch.tensor([1, 0, 1], device=device).to(dtype)
        for number, kind in ((True, torch.bool), (2, torch.int64), (2.5, torch.float32), (1 + 2j, torch.complex64)):
            expected = dtype if category(kind) <= category(dtype) else kind
            if kind.is_complex and dtype.is_floating_point:
                expected = dtype.to_complex()
            for result in (x * number, number * x, x + number, torch.add(x, number)):
                self.assertEqual(result.dtype, expected)
            if expected not in (torch.complex32, torch.bfloat16):
                self.assertEqual(host(x * number), computed(host(x), expected) * numpy.asarray(number).astype(computed(host(x), expected).dtype))

    @dtypes(*ORDER)
    def test_a_tensor_without_dimensions_counts_like_a_number(self, device, dtype):
        x = torch.tensor([1, 0, 1], device=device).to(dtype)
        for other in ORDER:
            for where in (device, "cpu"):
                zero_dim = torch.tensor(1, device=where).to(other)
                expected = promoted(dtype, other) if category(other) > category(dtype) else dtype
                if other.is_complex and dtype.is_floating_point:
                    expected = dtype.to_complex()
                result = x * zero_dim
                self.assertEqual(result.dtype, expected)
                self.assertEqual(result.device, x.device)
                self.assertEqual(result.to(torch.complex64).real.tolist(), [1, 0, 1])

    @dtypes(*itertools.product(ORDER, ORDER))
    def test_in_place_keeps_the_dtype_or_refuses(self, device, dtypes):
        first, second = dtypes
        x, y = torch.tensor([1, 0, 1], device=device).to(first), torch.tensor([1, 1, 0], device=device).to(second)
        if torch.can_cast(promoted(first, second), first):
            self.assertEqual(x.mul_(y).dtype, first)
            self.assertEqual(x.to(torch.complex64).real.tolist(), [1, 0, 0])
        else:
            with self.assertRaisesRegex(RuntimeError, "can't be cast to the desired output type"):
                x.mul_(y)
            self.assertEqual(x.to(torch.complex64).real.tolist(), [1, 0, 1])

    @dtypes(*itertools.product((torch.int32, torch.float32, torch.float16, torch.complex64, torch.bool), ORDER))
    def test_out_takes_what_can_be_cast_to_it(self, device, dtypes):
        dtype, out_dtype = dtypes
        x = torch.tensor([1, 2, 3], device=device).to(dtype)
        out = torch.zeros(3, dtype=out_dtype, device=device)
        if torch.can_cast(dtype, out_dtype):
            torch.mul(x, x, out=out)
            self.assertEqual(out.to(torch.complex64), (x * x).to(out_dtype).to(torch.complex64))
        else:
            with self.assertRaisesRegex(RuntimeError, "can't be cast to the desired output type"):
                torch.mul(x, x, out=out)

    @dtypes(*itertools.product(NUMPY_DTYPES, NUMPY_DTYPES))
    def test_conversions(self, device, dtypes):
        source, target = dtypes
        array = numbers((5, 7), source)
        name = str(target).removeprefix("torch.")
        expected = array.real.astype(name) if source.is_complex and not target.is_complex and target != torch.bool else array.astype(name)
        x = torch.tensor(array, device=device)
        self.assertEqual(x.to(target), expected)
        self.assertEqual(x.t().to(target), expected.T.copy())
        self.assertEqual(torch.zeros(5, 7, dtype=target, device=device).copy_(x), expected)
        self.assertEqual(x.type(target).dtype, target)

    def test_floats_become_integers_towards_zero(self, device):
        x = torch.tensor([1.9, -1.9, 0.5, -0.5, 255.0, 2.0**31 - 128], device=device)
        self.assertEqual(x.int().tolist(), [1, -1, 0, 0, 255, 2**31 - 128])
        self.assertEqual(x[:5].abs().to(torch.uint8).tolist(), [1, 1, 0, 0, 255])
        self.assertEqual(torch.tensor([256, 257, -1], device=device).to(torch.uint8).tolist(), [0, 1, 255])
        self.assertEqual(torch.tensor([128, 255], dtype=torch.uint8, device=device).to(torch.int8).tolist(), [-128, -1])
        self.assertEqual(torch.tensor([0.1, math.nan, -0.0], device=device).bool().tolist(), [True, True, False])

    @dtypes(torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
    def test_narrow_floats_round_to_even(self, device, dtype):
        one, step = torch.tensor(1.0), torch.finfo(dtype).eps
        x = torch.tensor([1 + step / 2, 1 + step * 1.5, 1 + step * 0.51, 1 - step / 4, -1 - step / 2], device=device)
        self.assertEqual(x.to(dtype).float().tolist(), [1, 1 + 2 * step, 1 + step, 1, -1])
        self.assertEqual(one.to(device).to(dtype).float().item(), 1)
        top = torch.finfo(dtype).max
        self.assertEqual(torch.tensor([top, -top], device=device).to(dtype).float().tolist(), [top, -top])

    @dtypes(torch.float16, torch.bfloat16)
    def test_every_narrow_float_becomes_float_and_back(self, device, dtype):
        bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
        x = bits.view(dtype).to(device)
        back = x.float().to(dtype)
        self.assertEqual(back.isnan(), x.cpu().isnan())
        number = ~x.cpu().isnan()
        self.assertEqual(back.cpu().view(torch.int16)[number], bits[number])

    @parametrize("name", ["div", "true_divide", "mean", "sqrt", "exp", "sigmoid", "atan2", "rsqrt", "log1p"])
    @dtypes(torch.bool, torch.uint8, torch.int16, torch.int64)
    def test_float_functions_of_integers_use_the_default_dtype(self, device, dtype, name):
        x = torch.tensor([1, 1, 1], device=device).to(dtype)
        call = {"div": lambda: x / x, "true_divide": lambda: torch.true_divide(x, 2), "mean": lambda: x.float().mean(), "atan2": lambda: torch.atan2(x, x)}.get(name)
        for default in (torch.float32, torch.float64):
            torch.set_default_dtype(default)
            try:
                result = (call or (lambda: getattr(torch, name)(x)))()
            finally:
                torch.set_default_dtype(torch.float32)
            if name != "mean":
                self.assertEqual(result.dtype, default)

    def test_results_of_several_dtypes_at_once(self, device):
        ints, floats = torch.tensor([1, 2], device=device), torch.tensor([0.5, 0.25], device=device)
        self.assertEqual(torch.add(ints, floats, alpha=2).tolist(), [2.0, 2.5])
        self.assertEqual(torch.addcmul(floats, floats, floats, value=2).tolist(), [1.0, 0.375])
        self.assertEqual(torch.lerp(floats, floats + 1, 0.5).tolist(), [1.0, 0.75])
        self.assertEqual([t.tolist() for t in torch._foreach_add([ints, floats], 1)], [[2, 3], [1.5, 1.25]])
        self.assertEqual([t.dtype for t in torch._foreach_mul([ints, floats], [floats, ints])], [torch.float32] * 2)
        self.assertEqual(torch.clamp(ints, 1.5, 3).dtype, torch.float32)
        self.assertEqual(torch.where(ints > 1, 1, 2.5).dtype, torch.float32)
        self.assertEqual(torch.where(ints > 1, ints, 2.5).tolist(), [2.5, 2.0])
        self.assertEqual(torch.bitwise_and(ints, True).dtype, torch.int64)
        self.assertEqual((ints & ints.to(torch.uint8)).dtype, torch.int64)
        with self.assertRaisesRegex(RuntimeError, "(?i)bitwise_and.*not (implemented|supported)|not implemented"):
            floats & floats
        with self.assertRaisesRegex(RuntimeError, "Subtraction.*bool"):
            torch.tensor([True], device=device) - torch.tensor([True], device=device)

    def test_unsigned_integers_wrap(self, device):
        x = torch.tensor([250, 10], dtype=torch.uint8, device=device)
        self.assertEqual((x + 10).tolist(), [4, 20])
        self.assertEqual((x * x).tolist(), [36, 100])
        self.assertEqual((-x).tolist(), [6, 246])
        self.assertEqual((x - 20).tolist(), [230, 246])
        y = torch.tensor([2**31 - 1], dtype=torch.int32, device=device)
        self.assertEqual((y + 1).tolist(), [-(2**31)])


instantiate_device_type_tests(TestTypePromotion, globals())

if __name__ == "__main__":
    run_tests()
