"""Operators that move, repeat, join and cut elements without computing. Reference: numpy."""

import itertools

import numpy
import torch
from reference import NUMPY_DTYPES, numbers
from torch.testing._internal.common_device_type import dtypes, instantiate_device_type_tests
from torch.testing._internal.common_utils import TestCase, parametrize, run_tests

# On an array of shape (4, 6, 5).
MOVES = {
    "flip": (lambda x: x.flip(0, 2), lambda a: numpy.flip(a, (0, 2))),
    "fliplr": (lambda x: x.fliplr(), numpy.fliplr),
    "roll": (lambda x: x.roll((2, -1), (0, 1)), lambda a: numpy.roll(a, (2, -1), (0, 1))),
    "roll_flat": (lambda x: x.roll(7), lambda a: numpy.roll(a, 7)),
    "rot90": (lambda x: x.rot90(3, (1, 2)), lambda a: numpy.rot90(a, 3, (1, 2))),
    "repeat": (lambda x: x.repeat(2, 1, 1, 3), lambda a: numpy.tile(a, (2, 1, 1, 3))),
    "tile": (lambda x: x.tile((2, 3)), lambda a: numpy.tile(a, (2, 3))),
    "repeat_interleave": (lambda x: x.repeat_interleave(3, 1), lambda a: numpy.repeat(a, 3, 1)),
    "repeat_interleave_flat": (lambda x: x.repeat_interleave(2), lambda a: numpy.repeat(a, 2)),
    "repeat_interleave_each": (lambda x: x.repeat_interleave(torch.tensor([0, 2, 1, 3], device=x.device), 0), lambda a: numpy.repeat(a, [0, 2, 1, 3], 0)),
    "tril": (lambda x: x.tril(1), lambda a: numpy.tril(a, 1)),
    "triu": (lambda x: x.triu(-2), lambda a: numpy.triu(a, -2)),
    "diag": (lambda x: x[0].diag(1), lambda a: numpy.diag(a[0], 1)),
    "diag_of_vector": (lambda x: x[0, 0].diag(-2), lambda a: numpy.diag(a[0, 0], -2)),
    "diagflat": (lambda x: x[0, :2].diagflat(), lambda a: numpy.diagflat(a[0, :2])),
    "cat": (lambda x: torch.cat([x, x[:, :2], x[:, :0]], 1), lambda a: numpy.concatenate([a, a[:, :2]], 1)),
    "cat_of_transposed": (lambda x: torch.cat([x.transpose(0, 2), x.transpose(0, 2)[:1]]), lambda a: numpy.concatenate([a.swapaxes(0, 2), a.swapaxes(0, 2)[:1]])),
    "stack": (lambda x: torch.stack([x, x.flip(0)], -1), lambda a: numpy.stack([a, a[::-1]], -1)),
    "hstack": (lambda x: torch.hstack([x, x]), lambda a: numpy.hstack([a, a])),
    "vstack": (lambda x: torch.vstack([x[0], x[1]]), lambda a: numpy.vstack([a[0], a[1]])),
    "dstack": (lambda x: torch.dstack([x, x]), lambda a: numpy.dstack([a, a])),
    "column_stack": (lambda x: torch.column_stack([x[0, 0], x[1, 0]]), lambda a: numpy.column_stack([a[0, 0], a[1, 0]])),
    "pad": (lambda x: torch.nn.functional.pad(x, (1, 2, 0, 3), value=1), lambda a: numpy.pad(a, ((0, 0), (0, 3), (1, 2)), constant_values=1)),
    "pad_negative": (lambda x: torch.nn.functional.pad(x, (-1, 2)), lambda a: numpy.pad(a[..., 1:], ((0, 0), (0, 0), (0, 2)))),
    "circular": (lambda x: torch.nn.functional.pad(x, (2, 1), mode="circular"), lambda a: numpy.pad(a, ((0, 0), (0, 0), (2, 1)), mode="wrap")),
    "kron_free_block": (lambda x: torch.block_diag(x[0, :2, :3], x[1, :1]), lambda a: block_diagonal(a[0, :2, :3], a[1, :1])),
    "trapped_broadcast": (lambda x: torch.broadcast_tensors(x[:, :1], x[:1])[0].contiguous(), lambda a: numpy.broadcast_to(a[:, :1], a.shape)),
    "meshgrid": (lambda x: torch.meshgrid(x[0, 0], x[0, :, 0], indexing="ij")[1], lambda a: numpy.meshgrid(a[0, 0], a[0, :, 0], indexing="ij")[1]),
    "swap_halves": (lambda x: torch.fft.fftshift(x, 1), lambda a: numpy.fft.fftshift(a, 1)),
    "atleast": (lambda x: torch.atleast_3d(x[0, 0]), lambda a: numpy.atleast_3d(a[0, 0])),
    "cartesian": (lambda x: torch.cartesian_prod(x[0, 0], x[0, :2, 0]), lambda a: numpy.array(list(itertools.product(a[0, 0], a[0, :2, 0])))),
    "take_rows": (lambda x: torch.unbind(x.movedim(2, 0))[1].contiguous(), lambda a: a[:, :, 1]),
}


def block_diagonal(first, second):
    result = numpy.zeros((first.shape[0] + second.shape[0], first.shape[1] + second.shape[1]), first.dtype)
    result[: first.shape[0], : first.shape[1]] = first
    result[first.shape[0] :, first.shape[1] :] = second
    return result


class TestShapeOps(TestCase):
    @parametrize("name", sorted(MOVES))
    @dtypes(torch.float32, torch.bool, torch.int64, torch.complex64, torch.int8, torch.float16)
    def test_elements_are_where_numpy_has_them(self, device, dtype, name):
        move, move_numpy = MOVES[name]
        array = numbers((4, 6, 5), dtype)
        expected = numpy.ascontiguousarray(move_numpy(array))
        self.assertEqual(move(torch.tensor(array, device=device)), expected, rtol=0, atol=0)
        strided = torch.tensor(array.T.repeat(2, 0).copy(), device=device)[::2].permute(2, 1, 0)
        self.assertFalse(strided.is_contiguous())
        self.assertEqual(move(strided), expected, rtol=0, atol=0)

    @parametrize("name", sorted(set(MOVES) - {"meshgrid"}))
    def test_gradients_go_back_where_elements_came_from(self, device, name):
        move, move_numpy = MOVES[name]
        place = numpy.arange(1, 121, dtype="float64").reshape(4, 6, 5)
        x = torch.tensor(place, device=device, requires_grad=True)
        moved = move(x)
        if moved.is_complex():
            moved = moved.real
        (moved * torch.arange(1.0, moved.numel() + 1, dtype=torch.float64, device=device).reshape(moved.shape)).sum().backward()
        expected = numpy.zeros(121)
        arrived = numpy.asarray(move_numpy(place)).reshape(-1)
        numpy.add.at(expected, arrived.astype("int64"), numpy.arange(1.0, arrived.size + 1))
        if name == "pad":  # its border is filled with ones, which the array has, too
            border = numpy.asarray(move_numpy(numpy.zeros_like(place))).reshape(-1) == 1
            expected[1] -= numpy.arange(1.0, arrived.size + 1)[border].sum()
        self.assertEqual(x.grad, expected[1:].reshape(4, 6, 5))

    @parametrize("parts", [1, 2, 3, 5, 7])
    @parametrize("dim", [0, 1, -1])
    def test_cut_and_joined_again(self, device, parts, dim):
        array = numbers((4, 6, 5))
        x = torch.tensor(array, device=device)
        for got, want in zip(x.tensor_split(parts, dim), numpy.array_split(array, parts, dim), strict=True):
            self.assertEqual(got, want)
        for pieces in (x.tensor_split(parts, dim), x.split(parts, dim), x.chunk(parts, dim), torch.split_copy(x, parts, dim)):
            self.assertEqual(torch.cat(pieces, dim), array)
        self.assertEqual(torch.stack(x.unbind(dim), dim), array)

    def test_sizes_of_pieces(self, device):
        x = torch.arange(10, device=device)
        self.assertEqual([piece.tolist() for piece in x.split([3, 0, 7])], [[0, 1, 2], [], [3, 4, 5, 6, 7, 8, 9]])
        self.assertEqual([len(piece) for piece in x.chunk(4)], [3, 3, 3, 1])
        self.assertEqual([piece.tolist() for piece in x.tensor_split(torch.tensor([2, 8]))], [[0, 1], [2, 3, 4, 5, 6, 7], [8, 9]])
        with self.assertRaisesRegex(RuntimeError, "split_with_sizes expects|split_sizes"):
            x.split([3, 3])

    @dtypes(*NUMPY_DTYPES)
    def test_joining_promotes_and_skips_nothing(self, device, dtype):
        array = numbers((3, 4), dtype)
        x = torch.tensor(array, device=device)
        half = torch.ones(1, 4, dtype=torch.float16, device=device)
        joined = torch.cat([x, half])
        self.assertEqual(joined.dtype, torch.promote_types(dtype, torch.float16))
        self.assertEqual(joined[:3].to(dtype), array)
        self.assertEqual(joined[3].real.tolist() if joined.is_complex() else joined[3].tolist(), [1] * 4)
        self.assertEqual(torch.cat([torch.empty(0, dtype=dtype, device=device), x]), array)
        out = torch.empty(0, dtype=dtype, device=device)
        torch.cat([x, x], out=out)
        self.assertEqual(out, numpy.concatenate([array, array]))
        torch.cat([x, x], out=(wide := torch.zeros(6, 8, dtype=dtype, device=device)[:, ::2]))
        self.assertEqual(wide, numpy.concatenate([array, array]))

    def test_joining_checks_shapes(self, device):
        x = torch.ones(2, 3, device=device)
        with self.assertRaisesRegex(RuntimeError, "Sizes of tensors must match"):
            torch.cat([x, torch.ones(3, 2, device=device)])
        with self.assertRaisesRegex(RuntimeError, "equal size"):
            torch.stack([x, x.t()])
        with self.assertRaisesRegex((RuntimeError, ValueError), "non-empty|expected"):
            torch.cat([])

    @parametrize("count", [1, 2, 17, 200])
    def test_many_pieces_are_joined_in_order(self, device, count):
        pieces = [torch.full((i % 3, 2), float(i), device=device) for i in range(count)]
        expected = [[float(i)] * 2 for i in range(count) for _ in range(i % 3)]
        self.assertEqual(torch.cat(pieces).tolist(), expected)
        self.assertEqual(torch.stack([torch.tensor(i, device=device) for i in range(count)]).tolist(), list(range(count)))

    @parametrize("mode", ["reflect", "replicate"])
    def test_padding_with_what_is_there(self, device, mode):
        array = numbers((2, 3, 5, 6))
        padded = torch.nn.functional.pad(torch.tensor(array, device=device), (2, 1, 3, 0), mode=mode)
        self.assertEqual(padded, numpy.pad(array, ((0, 0), (0, 0), (3, 0), (2, 1)), mode={"reflect": "reflect", "replicate": "edge"}[mode]))

    def test_broadcasting_of_shapes(self, device):
        for left, right in (((3, 1), (1, 4)), ((5,), (2, 1, 5)), ((), (2, 3)), ((2, 0), (1, 1)), ((1,), (0,))):
            first, second = numbers(left), numbers(right, seed=1)
            got = torch.tensor(first, device=device) * 10 + torch.tensor(second, device=device)
            self.assertEqual(got, first * 10 + second)
        with self.assertRaisesRegex(RuntimeError, "must match the size of tensor b"):
            torch.ones(3, device=device) + torch.ones(4, device=device)

    @dtypes(*NUMPY_DTYPES)
    def test_filling_and_cloning(self, device, dtype):
        x = torch.empty(3, 4, dtype=dtype, device=device)
        self.assertEqual(x.fill_(1), numpy.ones((3, 4), str(dtype).removeprefix("torch.")))
        x[:, ::2].zero_()
        copy = x.clone()
        x.fill_(1)
        self.assertEqual(copy.sum(1).tolist(), [2, 2, 2])
        self.assertEqual(torch.zeros_like(x).any().item(), False)
        self.assertEqual(torch.full_like(x, 1), x)
        self.assertEqual(x.new_full((2,), 1).tolist(), [1, 1])

    def test_windows(self, device):
        array = numbers((2, 3, 6, 7))
        columns = torch.nn.functional.unfold(torch.tensor(array, device=device), (2, 3), stride=(2, 1), padding=1)
        padded = numpy.pad(array, ((0, 0), (0, 0), (1, 1), (1, 1)))
        expected = [padded[:, :, i : i + 2, j : j + 3].reshape(2, -1) for i in range(0, 7, 2) for j in range(7)]
        self.assertEqual(columns, numpy.stack(expected, -1))
        folded = torch.nn.functional.fold(columns, (6, 7), (2, 3), stride=(2, 1), padding=1)
        counts = numpy.zeros((8, 9))
        for i in range(0, 7, 2):
            for j in range(7):
                counts[i : i + 2, j : j + 3] += 1
        self.assertEqual(folded, array * counts[1:-1, 1:-1])
        pixels = torch.nn.functional.pixel_shuffle(torch.tensor(numbers((1, 8, 2, 3)), device=device), 2)
        self.assertEqual(pixels, numbers((1, 8, 2, 3)).reshape(1, 2, 2, 2, 2, 3).transpose(0, 1, 4, 2, 5, 3).reshape(1, 2, 4, 6))


instantiate_device_type_tests(TestShapeOps, globals())

if __name__ == "__main__":
    run_tests()
