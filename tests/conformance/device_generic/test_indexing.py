"""Indexing: reading and writing with every kind of index, gather and scatter families, and indices that are out of range.

References: numpy's indexing, and loops in Python where numpy has no such operator.
"""

import itertools

import numpy
import torch
from reference import host, numbers, reals, synchronize
from torch.testing._internal.common_device_type import dtypes, instantiate_device_type_tests
from torch.testing._internal.common_utils import TestCase, parametrize, run_tests

MASK = numpy.array([True, False, True, True])
MASK_2D = numpy.arange(24).reshape(4, 6) % 3 == 0

# On an array of shape (4, 6, 5). numpy arrays among the parts become tensors of the device.
INDICES = {
    "integer": (2,),
    "negative": (-1, -6, -5),
    "slices": (slice(1, 3), slice(None, None, 2)),
    "ellipsis": (..., 3),
    "new_axis": (None, 1, ..., None, slice(0, 2)),
    "empty_slice": (slice(3, 1),),
    "beyond_the_end": (slice(2, 100),),
    "array": (numpy.array([3, 0, 0, -1]),),
    "array_2d": (numpy.array([[0, 3], [1, 1]]),),
    "two_arrays": (numpy.array([0, 3, 1]), numpy.array([5, 0, -2])),
    "three_arrays": (numpy.array([0, 3]), numpy.array([5, 0]), numpy.array([-1, 4])),
    "broadcast": (numpy.array([[0], [2]]), numpy.array([1, 3, 5])),
    "array_and_integer": (numpy.array([0, 3]), 2),
    "array_and_slice": (numpy.array([0, 3]), slice(1, 4)),
    "slice_and_array": (slice(None), numpy.array([0, 3, 3]), slice(1, 3)),
    "separated_arrays": (numpy.array([0, 3]), slice(None), numpy.array([4, 1])),
    "arrays_behind_slice": (slice(1, 3), numpy.array([[1, 2]]), numpy.array([[0], [4]])),
    "array_and_new_axis": (numpy.array([1, 2]), None),
    "ellipsis_and_array": (..., numpy.array([4, 4, 0])),
    "mask": (MASK,),
    "mask_2d": (MASK_2D,),
    "mask_of_all": (numpy.arange(120).reshape(4, 6, 5) % 7 == 1,),
    "mask_and_slice": (MASK, slice(None), slice(0, 2)),
    "mask_in_the_middle": (slice(None), numpy.array([True, False, False, True, True, False])),
    "mask_and_array": (MASK, numpy.array([0, 1, 2])),
    "mask_of_nothing": (numpy.zeros(4, bool),),
    "mask_0d": (numpy.array(True),),
    "mask_0d_false": (numpy.array(False),),
    "no_indices": (numpy.zeros((0,), "int64"),),
    "no_indices_2d": (slice(None), numpy.zeros((2, 0), "int64")),
    "array_0d": (numpy.array(2),),
    "int32": (numpy.array([3, 1], "int32"),),
    "list": ([0, 2, 2],),
    "booleans": (True,),
}


def on(device, index):
    return tuple(torch.tensor(part, device=device) if isinstance(part, numpy.ndarray) else part for part in index)


class TestIndexing(TestCase):
    @parametrize("name", sorted(INDICES))
    @dtypes(torch.float32, torch.int64, torch.bool, torch.complex64, torch.int8)
    def test_reading(self, device, dtype, name):
        array = numbers((4, 6, 5), dtype)
        tensor = torch.tensor(array, device=device)
        self.assertEqual(tensor[on(device, INDICES[name])], array[INDICES[name]].copy(), rtol=0, atol=0)
        transposed = torch.tensor(array.transpose(2, 1, 0).copy(), device=device).permute(2, 1, 0)
        self.assertEqual(transposed[on(device, INDICES[name])], array[INDICES[name]].copy(), rtol=0, atol=0)

    @parametrize("name", sorted(INDICES))
    def test_reading_with_indices_on_the_host(self, device, name):
        array = numbers((4, 6, 5))
        self.assertEqual(torch.tensor(array, device=device)[on("cpu", INDICES[name])], array[INDICES[name]].copy(), rtol=0, atol=0)

    @parametrize("name", sorted(INDICES))
    @dtypes(torch.float32, torch.int64, torch.bool)
    def test_writing_a_number(self, device, dtype, name):
        array = numbers((4, 6, 5), dtype)
        tensor = torch.tensor(array, device=device)
        tensor[on(device, INDICES[name])] = 3
        array[INDICES[name]] = 3
        self.assertEqual(tensor, array, rtol=0, atol=0)

    @parametrize("name", sorted(INDICES))
    def test_writing_a_tensor_into_a_transposed_one(self, device, name):
        array = numbers((4, 6, 5))
        tensor = torch.tensor(array.transpose(1, 0, 2).copy(), device=device).transpose(0, 1)
        index = INDICES[name]
        values = 100 + numpy.arange(array[index].size, dtype=array.dtype).reshape(array[index].shape)
        if name in ("array", "list", "slice_and_array", "ellipsis_and_array"):
            values = numpy.full_like(values, 7)  # an element written twice takes either value
        tensor[on(device, index)] = torch.tensor(values, device=device)
        array[index] = values
        self.assertEqual(tensor, array, rtol=0, atol=0)

    @parametrize("name", ["array", "two_arrays", "separated_arrays", "mask", "broadcast", "list"])
    def test_gradients_of_reading_add_up(self, device, name):
        array = reals((4, 6, 5))
        tensor = torch.tensor(array, device=device, requires_grad=True)
        taken = tensor[on(device, INDICES[name])]
        weight = reals(tuple(taken.shape), seed=1)
        (taken * torch.tensor(weight, device=device)).sum().backward()
        expected = numpy.zeros_like(array)
        numpy.add.at(expected, INDICES[name], weight)
        self.assertEqual(tensor.grad, expected)

    @parametrize("name", ["array", "array_2d", "two_arrays", "three_arrays", "mask", "broadcast"])
    @dtypes(torch.float64, torch.int32)
    def test_index_put_accumulates(self, device, dtype, name):
        index = INDICES[name]
        array = numbers((4, 6, 5), dtype)
        tensor = torch.tensor(array, device=device)
        values = numbers(array[index].shape, dtype, seed=2)
        tensor.index_put_(on(device, index), torch.tensor(values, device=device), accumulate=True)
        numpy.add.at(array, index, values)
        self.assertEqual(tensor, array)

    def test_many_duplicates_accumulate_exactly(self, device):
        index = torch.arange(20000, device=device) % 7
        total = torch.zeros(7, device=device).index_put_((index,), torch.ones(20000, device=device), accumulate=True)
        self.assertEqual(total.tolist(), [2858, 2857, 2857, 2857, 2857, 2857, 2857])
        self.assertEqual(torch.zeros(7, device=device).index_add_(0, index, torch.ones(20000, device=device)), total)
        self.assertEqual(torch.zeros(7, device=device).scatter_add_(0, index, torch.ones(20000, device=device)), total)
        self.assertEqual(torch.bincount(index), total.long())

    def test_a_mask_of_bytes_is_a_mask(self, device):
        x = torch.arange(4.0, device=device)
        with self.assertWarnsRegex(UserWarning, "indexing with dtype torch.uint8"):
            self.assertEqual(x[torch.tensor([1, 0, 0, 1], dtype=torch.uint8, device=device)].tolist(), [0, 3])

    def test_a_value_is_cast_and_broadcast(self, device):
        x = torch.zeros(3, 4, dtype=torch.int64, device=device)
        x[1] = torch.tensor([1.9, -1.9, 2.0, 3.5], device=device)
        x[:, 0] = torch.tensor(7)
        x[2, 1:] = torch.tensor([[5]], device=device)
        self.assertEqual(x.tolist(), [[7, 0, 0, 0], [7, -1, 2, 3], [7, 5, 5, 5]])
        with self.assertRaisesRegex(RuntimeError, "expand|shape"):
            x[0] = torch.ones(3, dtype=torch.int64, device=device)

    def test_rows_swap_through_an_index(self, device):
        x = torch.arange(6.0, device=device).reshape(3, 2)
        x[[0, 2]] = x[[2, 0]]
        self.assertEqual(x.tolist(), [[4, 5], [2, 3], [0, 1]])

    @parametrize("name", ["too_large", "too_small"])
    def test_an_integer_out_of_range_is_an_error_at_once(self, device, name):
        x = torch.zeros(3, 2, device=device)
        bad = 3 if name == "too_large" else -4
        for call in (lambda: x[bad], lambda: x.select(0, bad), lambda: x[:, bad], lambda: x.__setitem__(bad, 1)):
            with self.assertRaisesRegex(IndexError, "out of (range|bounds)"):
                call()
        with self.assertRaisesRegex(IndexError, "too many indices"):
            x[0, 0, 0]

    @parametrize("name", ["read", "write", "gather", "scatter", "index_select", "take", "embedding", "index_add"])
    def test_an_index_tensor_out_of_range_is_reported_by_the_next_wait(self, device, name):
        x, bad = torch.zeros(3, device=device), torch.tensor([1, 9], device=device)
        calls = {
            "read": lambda: x[bad],
            "write": lambda: x.index_put_((bad,), torch.ones(2, device=device)),
            "gather": lambda: x.gather(0, bad),
            "scatter": lambda: x.scatter_(0, bad, 1.0),
            "index_select": lambda: x.index_select(0, bad),
            "take": lambda: x.take(bad),
            "embedding": lambda: torch.nn.functional.embedding(bad, x[:, None]),
            "index_add": lambda: x.index_add_(0, bad, torch.ones(2, device=device)),
        }
        with self.assertRaisesRegex((IndexError, RuntimeError), "out of (range|bounds)"):
            calls[name]()
            synchronize(device)
        self.assertEqual((torch.ones(3, device=device) + 1).tolist(), [2, 2, 2])

    @parametrize("dim", [0, 1, -1])
    @dtypes(torch.float64, torch.int16, torch.bool)
    def test_gather_and_take_along_dim(self, device, dtype, dim):
        array = numbers((4, 5, 6), dtype)
        index = numpy.random.default_rng(1).integers(0, 4, (3, 4, 4))
        tensor, indices = torch.tensor(array, device=device), torch.tensor(index, device=device)
        got = host(tensor.gather(dim, indices))
        for place in itertools.product(*map(range, index.shape)):
            source = list(place)
            source[dim] = index[place]
            self.assertEqual(got[place], array[tuple(source)])
        whole = array.argsort(axis=dim, kind="stable")
        self.assertEqual(torch.take_along_dim(tensor, torch.tensor(whole, device=device), dim), numpy.take_along_axis(array, whole, dim))

    @parametrize("reduce", ["sum", "prod", "mean", "amax", "amin"])
    @parametrize("include_self", [True, False])
    @parametrize("dim", [0, 1])
    def test_scatter_reduce(self, device, reduce, include_self, dim):
        array, source = reals((4, 5)), reals((4, 5), seed=1)
        index = numpy.random.default_rng(2).integers(0, 4, (4, 5))
        got = torch.tensor(array, device=device).scatter_reduce(
            dim, torch.tensor(index, device=device), torch.tensor(source, device=device), reduce, include_self=include_self
        )
        buckets = {place: [array[place]] if include_self else [] for place in numpy.ndindex(4, 5)}
        for place in numpy.ndindex(4, 5):
            target = (index[place], place[1]) if dim == 0 else (place[0], index[place])
            buckets[target].append(source[place])
        combine = {"sum": sum, "prod": numpy.prod, "mean": numpy.mean, "amax": max, "amin": min}[reduce]
        expected = numpy.array([[combine(buckets[i, j] or [array[i, j]]) for j in range(5)] for i in range(4)])
        self.assertEqual(got, expected)

    @parametrize("dim", [0, 1, 2])
    @dtypes(torch.float32, torch.int64, torch.complex64)
    def test_index_select_copy_fill_and_add(self, device, dtype, dim):
        array = numbers((4, 6, 5), dtype)
        tensor = torch.tensor(array, device=device)
        index = numpy.array([2, 0, 3])
        place = (slice(None),) * dim + (index,)
        indices = torch.tensor(index, device=device)
        self.assertEqual(tensor.index_select(dim, indices), array[place])
        values = numbers(array[place].shape, dtype, seed=3)
        source = torch.tensor(values, device=device)
        copied, filled, added = array.copy(), array.copy(), array.copy()
        copied[place] = values
        filled[place] = 9
        added[place] += 2 * values
        self.assertEqual(tensor.index_copy(dim, indices, source), copied)
        self.assertEqual(tensor.index_fill(dim, indices, 9), filled)
        self.assertEqual(tensor.index_add(dim, indices, source, alpha=2), added)
        self.assertEqual(tensor.index_fill(dim, indices, torch.tensor(9, dtype=dtype, device=device)), filled)

    @dtypes(torch.float32, torch.int32, torch.bool)
    def test_take_and_put_number_elements_in_order_whatever_the_strides(self, device, dtype):
        array = numbers((3, 4), dtype)
        tensor = torch.tensor(array.T.copy(), device=device).t()
        index = numpy.array([[0, 11], [-1, 5]])
        self.assertEqual(tensor.take(torch.tensor(index, device=device)), array.take(index))
        tensor.put_(torch.tensor([1, 6], device=device), torch.ones(2, dtype=dtype, device=device))
        array.put([1, 6], 1)
        self.assertEqual(tensor, array)

    @dtypes(torch.float32, torch.int32, torch.bool)
    def test_the_masked_family(self, device, dtype):
        array = numbers((4, 6), dtype)
        tensor, mask = torch.tensor(array, device=device), torch.tensor(MASK_2D, device=device)
        self.assertEqual(tensor.masked_select(mask), array[MASK_2D])
        self.assertEqual(tensor.t().masked_select(mask.t()), array.T[MASK_2D.T])
        filled, scattered = array.copy(), array.copy()
        filled[MASK_2D] = 1
        self.assertEqual(tensor.masked_fill(mask, 1), filled)
        source = numbers((24,), dtype, seed=4)
        scattered[MASK_2D] = source[: MASK_2D.sum()]
        self.assertEqual(tensor.masked_scatter(mask, torch.tensor(source, device=device)), scattered)
        row = torch.tensor(MASK_2D[0], device=device)
        self.assertEqual(tensor.masked_fill(row, 1), numpy.where(MASK_2D[0], numpy.ones_like(array), array))
        self.assertEqual(torch.where(mask, tensor, tensor.flip(0)), numpy.where(MASK_2D, array, array[::-1]))

    @parametrize("shape", [(0,), (1,), (7,), (3, 4), (2, 3, 4), ()])
    @dtypes(torch.float32, torch.bool, torch.int64, torch.complex64)
    def test_nonzero_and_its_forms(self, device, dtype, shape):
        array = numbers(shape, dtype)
        if shape == ():
            array = numpy.array(array)
        tensor = torch.tensor(array, device=device)
        expected = numpy.argwhere(array)
        self.assertEqual(tensor.nonzero(), expected)
        if shape:
            for got, want in zip(tensor.nonzero(as_tuple=True), array.nonzero()):
                self.assertEqual(got, want)
        self.assertEqual(torch.argwhere(tensor), expected)
        self.assertEqual(torch.count_nonzero(tensor).item(), len(expected))
        padded = torch.nonzero_static(tensor, size=len(expected) + 2, fill_value=-1)
        self.assertEqual(padded[: len(expected)], expected)
        self.assertEqual(padded[len(expected) :].unique().tolist(), [-1] if shape else [])

    def test_diagonals_and_slices_are_scattered(self, device):
        x = torch.zeros(3, 4, device=device)
        self.assertEqual(torch.diagonal_scatter(x, torch.ones(3, device=device), 1), numpy.eye(3, 4, 1, dtype="float32"))
        self.assertEqual(torch.select_scatter(x, torch.ones(4, device=device), 0, 1).sum(1).tolist(), [0, 4, 0])
        self.assertEqual(torch.slice_scatter(x, torch.ones(3, 2, device=device), 1, 0, 4, 2)[0].tolist(), [1, 0, 1, 0])
        self.assertEqual(torch.as_strided_scatter(x, torch.ones(2, device=device), (2,), (5,), 1).nonzero().tolist(), [[0, 1], [1, 2]])
        self.assertEqual(x.sum().item(), 0)
        self.assertEqual(x.fill_diagonal_(2).diagonal().tolist(), [2, 2, 2])

    def test_a_tensor_is_an_index_of_python(self, device):
        self.assertEqual("abc"[torch.tensor(1, device=device)], "b")
        self.assertEqual(list(range(torch.tensor(3, device=device))), [0, 1, 2])
        x = torch.arange(10, device=device)
        self.assertEqual(x[torch.tensor(2, device=device) : torch.tensor(5, device=device)].tolist(), [2, 3, 4])
        self.assertEqual([value.item() for value in x[:3]], [0, 1, 2])
        self.assertIn(torch.tensor(4, device=device), x)


instantiate_device_type_tests(TestIndexing, globals())

if __name__ == "__main__":
    run_tests()
