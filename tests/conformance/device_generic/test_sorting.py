"""Sorting, selecting, searching, and what is unique: order, stability, nan, and indices that lead to the values. Reference: numpy."""

import math

import numpy
import torch
from reference import INTEGERS, host, numbers, reals
from torch.testing._internal.common_device_type import dtypes, instantiate_device_type_tests
from torch.testing._internal.common_utils import TestCase, parametrize, run_tests

DTYPES = (*INTEGERS, torch.float32, torch.float64, torch.float16, torch.bool)


class TestSorting(TestCase):
    @parametrize("dim", [0, 1, -1])
    @parametrize("descending", [False, True])
    @dtypes(*DTYPES)
    def test_stable_sorting(self, device, dtype, descending, dim):
        array = numbers((5, 40, 6), dtype)  # few values, so many are equal
        order = numpy.flip(numpy.flip(array, dim).argsort(dim, kind="stable"), dim) if descending else array.argsort(dim, kind="stable")
        if descending:
            order = array.shape[dim] - 1 - order
        for tensor in (torch.tensor(array, device=device), torch.tensor(array.T.copy(), device=device).permute(2, 1, 0)):
            values, places = tensor.sort(dim=dim, descending=descending, stable=True)
            self.assertEqual(places, order.astype("int64"))
            self.assertEqual(values, numpy.take_along_axis(array, order, dim))
            self.assertEqual(torch.argsort(tensor, dim=dim, descending=descending, stable=True), places)

    @parametrize("shape", [(0,), (1,), (3, 0), (), (100001,), (2, 50000)])
    def test_sorting_of_sizes(self, device, shape):
        array = reals(shape)
        array = numpy.asarray(array)
        tensor = torch.tensor(array, device=device)
        values, places = tensor.sort(-1)
        self.assertEqual(values, numpy.sort(array, -1) if shape else array)
        if shape:
            self.assertEqual(tensor.gather(-1, places), values)
            self.assertEqual(torch.msort(tensor), numpy.sort(array, 0))

    def test_nan_is_the_largest(self, device):
        x = torch.tensor([3.0, math.nan, -math.inf, math.inf, 1.0], device=device)
        self.assertEqual(x.sort()[1].tolist(), [2, 4, 0, 3, 1])
        self.assertEqual(x.sort(descending=True)[1].tolist(), [1, 3, 0, 4, 2])
        self.assertEqual(x.topk(2)[1].tolist(), [1, 3])
        self.assertEqual(x.topk(2, largest=False)[1].tolist(), [2, 4])
        self.assertEqual(x.kthvalue(4)[1].item(), 3)
        self.assertEqual(torch.tensor([0.0, -0.0], device=device).sort(stable=True)[1].tolist(), [0, 1])

    @parametrize("k", [0, 1, 7, 40])
    @parametrize("largest", [True, False])
    @dtypes(*[dtype for dtype in DTYPES if dtype != torch.bool])
    def test_the_k_extremes(self, device, dtype, largest, k):
        array = numbers((3, 40), dtype)
        expected = numpy.sort(array, 1)
        expected = (expected[:, ::-1] if largest else expected)[:, :k].copy()
        for tensor in (torch.tensor(array, device=device), torch.tensor(array.T.copy(), device=device).t()):
            values, places = tensor.topk(k, 1, largest)
            self.assertEqual(values, expected)
            self.assertEqual(tensor.gather(1, places), values)
            for row in host(places):
                self.assertEqual(len(set(row.tolist())), k)
            unsorted = tensor.topk(k, 1, largest, sorted=False)[0].sort(1, descending=largest)[0]
            self.assertEqual(unsorted, expected)

    @parametrize("dim", [0, 1])
    def test_topk_and_kthvalue_of_a_dimension(self, device, dim):
        array = numpy.random.default_rng(0).permutation(60).reshape(6, 10).astype("float32")
        tensor = torch.tensor(array, device=device)
        order = array.argsort(dim)
        self.assertEqual(tensor.topk(3, dim, False)[1], numpy.take(order, range(3), dim).astype("int64"))
        self.assertEqual(tensor.kthvalue(2, dim)[1], numpy.take(order, 1, dim).astype("int64"))
        with self.assertRaisesRegex(RuntimeError, "out of range"):
            tensor.topk(11, dim)
        with self.assertRaisesRegex(RuntimeError, "out of range|selected number k"):
            tensor.kthvalue(0, dim)

    @dtypes(*DTYPES)
    def test_unique(self, device, dtype):
        array = numbers((4, 30), dtype)
        tensor = torch.tensor(array, device=device)
        want, inverse, counts = numpy.unique(array, return_inverse=True, return_counts=True)
        got = tensor.unique(return_inverse=True, return_counts=True)
        for mine, expected in zip(got, (want, inverse.reshape(array.shape), counts)):
            self.assertEqual(mine, expected)
        self.assertEqual(tensor.t().unique(), want)

    @parametrize("dim", [0, 1])
    @dtypes(torch.int64, torch.float32, torch.bool)
    def test_unique_slices(self, device, dtype, dim):
        array = numbers((3, 12), dtype) if dim else numbers((3, 12), dtype).T.copy()
        want, inverse, counts = numpy.unique(array, return_inverse=True, return_counts=True, axis=dim)
        got = torch.tensor(array, device=device).unique(return_inverse=True, return_counts=True, dim=dim)
        for mine, expected in zip(got, (want, inverse.reshape(-1), counts)):
            self.assertEqual(mine, expected)

    def test_runs_of_equal_elements(self, device):
        x = torch.tensor([1, 1, 2, 2, 2, 1, 3], device=device)
        values, inverse, counts = x.unique_consecutive(return_inverse=True, return_counts=True)
        self.assertEqual((values.tolist(), inverse.tolist(), counts.tolist()), ([1, 2, 1, 3], [0, 0, 1, 1, 1, 2, 3], [2, 3, 1, 1]))
        self.assertEqual(x[:0].unique().tolist(), [])
        self.assertEqual(x.reshape(7, 1).expand(7, 2).unique_consecutive(dim=0)[:, 1].tolist(), [1, 2, 1, 3])

    @parametrize("side", ["left", "right"])
    @dtypes(torch.int32, torch.int64, torch.float32, torch.float64)
    def test_places_in_a_sorted_sequence(self, device, dtype, side):
        edges, values = numpy.sort(numbers((9,), dtype)), numbers((4, 11), dtype, seed=1)
        want = numpy.searchsorted(edges, values, side)
        e, v = torch.tensor(edges, device=device), torch.tensor(values, device=device)
        self.assertEqual(torch.searchsorted(e, v, side=side), want.astype("int64"))
        self.assertEqual(torch.bucketize(v, e, right=side == "right"), want.astype("int64"))
        self.assertEqual(torch.searchsorted(e, v.t(), side=side, out_int32=True), want.T.astype("int32"))
        shuffled = torch.tensor(edges[::-1].copy(), device=device)
        self.assertEqual(torch.searchsorted(shuffled, v, side=side, sorter=torch.argsort(shuffled, stable=True)), want.astype("int64"))

    @parametrize("invert", [False, True])
    @parametrize("assume_unique", [False, True])
    def test_membership(self, device, assume_unique, invert):
        x = numpy.arange(20).reshape(4, 5)
        for size in (0, 1, 3, 100):
            among = numpy.arange(size) * 3
            got = torch.isin(torch.tensor(x, device=device), torch.tensor(among, device=device), assume_unique=assume_unique, invert=invert)
            self.assertEqual(got, numpy.isin(x, among, invert=invert))

    def test_gradients_follow_the_order(self, device):
        x = torch.tensor([3.0, 1.0, 2.0], device=device, requires_grad=True)
        (x.sort()[0] * torch.tensor([10.0, 20.0, 30.0], device=device)).sum().backward()
        self.assertEqual(x.grad.tolist(), [30, 10, 20])
        x.grad = None
        x.topk(2)[0].sum().backward()
        self.assertEqual(x.grad.tolist(), [1, 0, 1])

    def test_out_of_sort_and_topk(self, device):
        x = torch.tensor([3.0, 1.0, 2.0], device=device)
        values, places = torch.empty(0, device=device), torch.empty(0, dtype=torch.int64, device=device)
        torch.sort(x, out=(values, places))
        self.assertEqual((values.tolist(), places.tolist()), ([1, 2, 3], [1, 2, 0]))
        torch.topk(x, 1, out=(values.resize_(0), places.resize_(0)))
        self.assertEqual((values.tolist(), places.tolist()), ([3], [0]))


instantiate_device_type_tests(TestSorting, globals())

if __name__ == "__main__":
    run_tests()
