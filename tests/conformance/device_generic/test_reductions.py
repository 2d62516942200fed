"""Reductions and scans over every choice of dimensions, with empty, nan and overflowing inputs. Reference: numpy, or a loop."""

import math

import numpy
import torch
from reference import INTEGERS, host, numbers, reals
from torch.testing._internal.common_device_type import dtypes, instantiate_device_type_tests
from torch.testing._internal.common_utils import TestCase, parametrize, run_tests

DIMS = {"all": None, "first": 0, "last": -1, "middle": 1, "two": (0, 2), "every": (0, 1, 2)}

REDUCTIONS = {
    "sum": (torch.sum, numpy.sum),
    "mean": (torch.mean, numpy.mean),
    "amax": (torch.amax, numpy.max),
    "amin": (torch.amin, numpy.min),
    "var": (torch.var, lambda a, **k: numpy.var(a, ddof=1, **k)),
    "std": (torch.std, lambda a, **k: numpy.std(a, ddof=1, **k)),
    "var_biased": (lambda x, **k: torch.var(x, correction=0, **k), numpy.var),
    "nansum": (torch.nansum, numpy.nansum),
    "logsumexp": (torch.logsumexp, lambda a, **k: numpy.log(numpy.exp(a).sum(**k))),
    "count_nonzero": (lambda x, dim=None, keepdim=False: torch.count_nonzero(x, dim=dim), lambda a, axis=None, keepdims=False: numpy.count_nonzero(a, axis=axis)),
    "all": (torch.all, lambda a, **k: numpy.all(a, **k)),
    "any": (torch.any, lambda a, **k: numpy.any(a, **k)),
    "norm": (lambda x, dim=None, keepdim=False: torch.linalg.vector_norm(x, dim=dim, keepdim=keepdim), lambda a, **k: numpy.sqrt((a * a).sum(**k))),
    "norm_1": (lambda x, dim=None, keepdim=False: torch.linalg.vector_norm(x, 1, dim=dim, keepdim=keepdim), lambda a, **k: abs(a).sum(**k)),
    "norm_inf": (lambda x, dim=None, keepdim=False: torch.linalg.vector_norm(x, math.inf, dim=dim, keepdim=keepdim), lambda a, **k: abs(a).max(**k)),
}
SCANS = {
    "cumsum": (torch.cumsum, numpy.cumsum),
    "cumprod": (torch.cumprod, numpy.cumprod),
    "cummax": (lambda x, dim: x.cummax(dim)[0], lambda a, axis: numpy.maximum.accumulate(a, axis)),
    "cummin": (lambda x, dim: x.cummin(dim)[0], lambda a, axis: numpy.minimum.accumulate(a, axis)),
    "logcumsumexp": (torch.logcumsumexp, lambda a, axis: numpy.log(numpy.cumsum(numpy.exp(a), axis))),
    "flipped_cumsum": (lambda x, dim: x.flip(dim).cumsum(dim).flip(dim), lambda a, axis: numpy.flip(numpy.cumsum(numpy.flip(a, axis), axis), axis).copy()),
}


class TestReductions(TestCase):
    @parametrize("dim", sorted(DIMS))
    @parametrize("name", sorted(REDUCTIONS))
    def test_values_over_dimensions(self, device, name, dim):
        function, reference = REDUCTIONS[name]
        array = reals((4, 5, 6))
        array[0, 1] = 0
        for order in ((0, 1, 2), (2, 0, 1)):
            tensor = torch.tensor(array.transpose(numpy.argsort(order)).copy(), device=device).permute(order)
            for keepdim in (False, True):
                if DIMS[dim] is None and (name == "logsumexp" or name == "all" or name == "any"):
                    continue
                if DIMS[dim] is None and keepdim:
                    continue
                arguments = {} if DIMS[dim] is None else {"dim": DIMS[dim], "keepdim": keepdim}
                got = function(tensor, **arguments)
                want = reference(array, axis=DIMS[dim], keepdims=keepdim)
                self.assertEqual(got, numpy.asarray(want))

    @parametrize("dim", [0, 1, -1])
    @parametrize("name", sorted(SCANS))
    def test_scans(self, device, name, dim):
        function, reference = SCANS[name]
        array = reals((4, 5, 6))
        self.assertEqual(function(torch.tensor(array, device=device), dim), reference(array, dim))
        self.assertEqual(function(torch.tensor(array.T.copy(), device=device).permute(2, 1, 0), dim), reference(array, dim))

    @parametrize("dim", [None, 0, 1, 2])
    @dtypes(torch.float32, torch.int64, torch.int8, torch.uint8)
    def test_the_place_of_the_extreme_is_the_first(self, device, dtype, dim):
        array = numbers((3, 4, 40), dtype)  # few values, so every extreme occurs several times
        tensor = torch.tensor(array, device=device)
        self.assertEqual(tensor.argmax(dim), numpy.asarray(array.argmax(dim)))
        self.assertEqual(tensor.argmin(dim), numpy.asarray(array.argmin(dim)))
        if dim is not None:
            self.assertEqual(tensor.max(dim)[0], array.max(dim))
            self.assertEqual(tensor.max(dim)[1], array.argmax(dim))
            self.assertEqual(tensor.min(dim, keepdim=True)[1], array.argmin(dim, keepdims=True))
        low, high = torch.aminmax(tensor) if dim is None else torch.aminmax(tensor, dim=dim)
        self.assertEqual(low, numpy.asarray(array.min(dim)))
        self.assertEqual(high, numpy.asarray(array.max(dim)))

    @dtypes(*INTEGERS, torch.bool)
    def test_integers_are_added_as_int64(self, device, dtype):
        array = numpy.full(300, 1 if dtype == torch.bool else 100, str(dtype).removeprefix("torch."))
        tensor = torch.tensor(array, device=device)
        total = int(array.astype("int64").sum())
        self.assertEqual(tensor.sum(), torch.tensor(total))
        self.assertEqual(tensor.cumsum(0)[-1], torch.tensor(total))
        self.assertEqual(tensor[:4].prod(), torch.tensor(int(array[0]) ** 4))
        if dtype == torch.int8:
            self.assertEqual(tensor.sum(dtype=torch.int8).item(), (total + 128) % 256 - 128)
        self.assertEqual(tensor.sum(dtype=torch.float64).item(), float(total))

    def test_int64_wraps_around(self, device):
        x = torch.tensor([2**63 - 1, 1], device=device)
        self.assertEqual(x.sum().item(), -(2**63))
        self.assertEqual(torch.tensor([2**62, 2], device=device).prod().item(), -(2**63))
        self.assertEqual(torch.tensor([2**53 + 1, 0], device=device).sum().item(), 2**53 + 1)

    @parametrize("name", ["sum", "mean", "amax", "max", "min", "prod", "argmax", "logsumexp", "cumsum", "cummax", "norm", "median", "sort", "var"])
    def test_nan_comes_through(self, device, name):
        x = torch.tensor([1.0, math.nan, 3.0, math.inf], device=device)
        calls = {
            "sum": x.sum, "mean": x.mean, "amax": x.amax, "max": x.max, "min": x.min, "prod": x.prod, "norm": x.norm, "median": x.median, "var": x.var,
            "argmax": lambda: x[x.argmax()], "logsumexp": lambda: x.logsumexp(0), "cumsum": lambda: x.cumsum(0)[-1],
            "cummax": lambda: x.cummax(0)[0][-1], "sort": lambda: x.sort()[0][-1],
        }  # fmt: skip
        self.assertTrue(math.isnan(calls[name]().item()))
        self.assertEqual(x.nanmedian().item(), 3)
        self.assertEqual(torch.tensor([1.0, math.nan, 3.0], device=device).nanmean().item(), 2)

    def test_empty_inputs_have_a_neutral_result_or_none(self, device):
        x = torch.empty(0, 3, device=device)
        self.assertEqual(x.sum().item(), 0)
        self.assertEqual(x.prod().item(), 1)
        self.assertTrue(math.isnan(x.mean().item()))
        self.assertEqual(x.sum(0).tolist(), [0, 0, 0])
        self.assertEqual(x.prod(0).tolist(), [1, 1, 1])
        self.assertEqual(x.all(0).tolist(), [True] * 3)
        self.assertEqual(x.any(0).tolist(), [False] * 3)
        self.assertEqual(x.logsumexp(0).tolist(), [-math.inf] * 3)
        self.assertEqual(tuple(x.amax(1).shape), (0,))
        self.assertEqual(tuple(x.sum(1).shape), (0,))
        self.assertEqual(tuple(x.cumsum(0).shape), (0, 3))
        for call in (lambda: x.max(), lambda: x.argmax(), lambda: x.amax(0), lambda: x.max(0), lambda: x.amin((0, 1))):
            with self.assertRaisesRegex((RuntimeError, IndexError), "(?i)numel|non-zero size|identity|zero|empty"):
                call()

    def test_a_number_is_reduced_too(self, device):
        x = torch.tensor(-2.5, device=device)
        for value in (x.sum(), x.sum(0), x.max(), x.max(0)[0], x.cumsum(-1), x.prod(), x.mean(0), x.sort()[0], x.median()):
            self.assertEqual(value, torch.tensor(-2.5))
        self.assertEqual((x.argmax().item(), x.max(0)[1].item()), (0, 0))
        with self.assertRaisesRegex(IndexError, "Dimension out of range"):
            x.sum(1)

    def test_dimensions_are_checked(self, device):
        x = torch.ones(2, 3, device=device)
        with self.assertRaisesRegex(IndexError, "Dimension out of range"):
            x.sum(2)
        with self.assertRaisesRegex(RuntimeError, "appears multiple times"):
            x.sum((0, -2))
        with self.assertRaisesRegex(RuntimeError, "mean.*dtype|floating point"):
            torch.ones(3, dtype=torch.int64, device=device).mean()

    @parametrize("shape", [(100003,), (300, 1001), (3, 40000), (40000, 3), (17, 33, 65)])
    @dtypes(torch.float32, torch.int32)
    def test_large_inputs(self, device, dtype, shape):
        array = numbers(shape, dtype)
        tensor = torch.tensor(array, device=device)
        for dim in (None, *range(len(shape))):
            exact = array.astype("int64")
            self.assertEqual(tensor.sum(dim), numpy.asarray(exact.sum(dim)).astype("float32" if dtype == torch.float32 else "int64"))
            self.assertEqual(tensor.amax(() if dim is None else dim), numpy.asarray(array.max(dim)))
            self.assertEqual(tensor.argmin(dim), numpy.asarray(array.argmin(dim)))
            self.assertEqual(torch.count_nonzero(tensor, dim), numpy.asarray(numpy.count_nonzero(array, axis=dim)))
            if dim is not None:
                self.assertEqual(tensor.cumsum(dim, dtype=torch.int64), exact.cumsum(dim))

    @dtypes(torch.float16, torch.bfloat16)
    def test_narrow_floats_are_accumulated_in_wider_ones(self, device, dtype):
        ones = torch.ones(4096, dtype=dtype, device=device)
        self.assertEqual(ones.sum().item(), 4096)
        self.assertEqual(ones.mean().item(), 1)
        self.assertEqual((ones * 60000).mean().item(), torch.tensor(60000, dtype=dtype).item())
        self.assertEqual(ones.sum().dtype, dtype)
        self.assertEqual(torch.full((3000,), 60.0, dtype=dtype, device=device).sum(dtype=torch.float32).item(), 180000)

    @parametrize("keepdim", [True, False])
    @parametrize("dim", [0, 1])
    def test_order_statistics(self, device, dim, keepdim):
        array = numpy.random.default_rng(0).permutation(35).reshape(5, 7).astype("float64")
        tensor = torch.tensor(array, device=device)
        shape = (lambda a: numpy.expand_dims(a, dim)) if keepdim else (lambda a: a)
        middle = numpy.sort(array, dim).take((array.shape[dim] - 1) // 2, dim)
        values, places = tensor.median(dim, keepdim)
        self.assertEqual(values, shape(middle))
        self.assertEqual(tensor.gather(dim, places if keepdim else places.unsqueeze(dim)), numpy.expand_dims(middle, dim))
        for k in (1, 3, 5):
            self.assertEqual(tensor.kthvalue(k, dim, keepdim)[0], shape(numpy.sort(array, dim).take(k - 1, dim)))
        for q in (0.0, 0.25, 0.6, 1.0):
            self.assertEqual(tensor.quantile(q, dim, keepdim), numpy.quantile(array, q, axis=dim, keepdims=keepdim))
        holes = array.copy()
        holes[1, 2] = holes[3, 3] = math.nan
        self.assertEqual(torch.tensor(holes, device=device).nanquantile(0.5, dim, keepdim), numpy.nanquantile(holes, 0.5, axis=dim, keepdims=keepdim))
        repeated = torch.tensor([[1, 2, 2, 3, 3], [5, 5, 1, 1, 0]], device=device)
        self.assertEqual(repeated.mode(1)[0].tolist(), [2, 1])

    def test_histograms(self, device):
        array = reals((500,))
        tensor = torch.tensor(array, device=device)
        self.assertEqual(tensor.histc(10, -2, 2), numpy.histogram(array, 10, (-2, 2))[0].astype("float64"))
        index = numpy.random.default_rng(0).integers(0, 12, 300)
        indices = torch.tensor(index, device=device)
        self.assertEqual(indices.bincount(), numpy.bincount(index))
        self.assertEqual(indices.bincount(minlength=20), numpy.bincount(index, minlength=20))
        self.assertEqual(indices.bincount(tensor[:300]), numpy.bincount(index, array[:300]))

    def test_correction_of_the_variance(self, device):
        array = reals((6, 4))
        tensor = torch.tensor(array, device=device)
        for correction in (0, 1, 2):
            self.assertEqual(tensor.var(0, correction=correction), array.var(0, ddof=correction))
        variance, mean = torch.var_mean(tensor, 1)
        self.assertEqual(variance, array.var(1, ddof=1))
        self.assertEqual(mean, array.mean(1))
        self.assertEqual(tensor.cov(), numpy.cov(array))
        self.assertEqual(tensor.corrcoef(), numpy.corrcoef(array))
        shifted = torch.tensor(array + 1e8, device=device)
        self.assertEqual(shifted.var(), numpy.asarray((array + 1e8).var(ddof=1)), rtol=1e-6, atol=0)

    def test_complex_numbers(self, device):
        array = reals((4, 5)) + 1j * reals((4, 5), seed=1)
        tensor = torch.tensor(array, device=device)
        self.assertEqual(tensor.sum(0), array.sum(0))
        self.assertEqual(tensor.prod(1), array.prod(1))
        self.assertEqual(tensor.mean(), numpy.asarray(array.mean()))
        self.assertEqual(tensor.cumsum(1), array.cumsum(1))
        self.assertEqual(tensor.var(0), array.var(0, ddof=1))
        self.assertEqual(tensor.norm(), numpy.asarray(numpy.linalg.norm(array)))
        with self.assertRaisesRegex(RuntimeError, "complex|not implemented"):
            tensor.amax()

    def test_out_is_resized_and_its_dtype_respected(self, device):
        x = torch.arange(6.0, device=device).reshape(2, 3)
        out = torch.empty(0, device=device)
        torch.sum(x, 0, out=out)
        self.assertEqual(out.tolist(), [3, 5, 7])
        values, places = torch.empty(0, device=device), torch.empty(0, dtype=torch.int64, device=device)
        torch.max(x, 1, out=(values, places))
        self.assertEqual((values.tolist(), places.tolist()), ([2, 5], [2, 2]))
        with self.assertRaisesRegex(RuntimeError, "(?i)dtype|type"):
            torch.amax(x, 0, out=torch.empty(3, dtype=torch.int64, device=device))

    @parametrize("name", ["sum", "mean", "amax", "logsumexp", "prod", "var", "cumsum", "median"])
    def test_gradients(self, device, name):
        array = reals((3, 4))
        x = torch.tensor(array, device=device, requires_grad=True)
        function = {
            "sum": lambda t: t.sum(1), "mean": lambda t: t.mean(1), "amax": lambda t: t.amax(1), "logsumexp": lambda t: t.logsumexp(1),
            "prod": lambda t: t.prod(1), "var": lambda t: t.var(1), "cumsum": lambda t: t.cumsum(1)[:, 2], "median": lambda t: t.median(1)[0],
        }[name]  # fmt: skip
        function(x).sum().backward()
        step, numeric = 1e-6, numpy.zeros_like(array)
        for place in numpy.ndindex(array.shape):
            change = numpy.zeros_like(array)
            change[place] = step
            values = [host(function(torch.tensor(array + sign * change, device=device)).sum()) for sign in (1, -1)]
            numeric[place] = (values[0] - values[1]) / (2 * step)
        self.assertEqual(x.grad, numeric, rtol=1e-5, atol=1e-6)


instantiate_device_type_tests(TestReductions, globals())

if __name__ == "__main__":
    run_tests()
