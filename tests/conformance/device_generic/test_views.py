"""Views: values, sharing in both directions, strides, bits, and what must be a copy instead. Reference: numpy's views."""

import numpy
import torch
from reference import COMPLEX, EVERY_DTYPE, NUMPY_DTYPES, host, numbers
from torch.testing._internal.common_device_type import dtypes, instantiate_device_type_tests
from torch.testing._internal.common_utils import TestCase, parametrize, run_tests


def as_diagonal(array):
    """The diagonal one above the main one of the first two dimensions; numpy's own is not writable."""
    step, row, item = array.strides
    return numpy.lib.stride_tricks.as_strided(array[:, 1:], (5, 4), (item, step + row))


# On an array of shape (4, 6, 5): the view in torch, and the same view in numpy.
VIEWS = {
    "slice": (lambda x: x[1:3], lambda a: a[1:3]),
    "step": (lambda x: x[::2, 1::3], lambda a: a[::2, 1::3]),
    "select": (lambda x: x.select(1, -1), lambda a: a[:, -1]),
    "element": (lambda x: x[3, 5, 4], lambda a: a[3:, 5:, 4:].reshape(())),
    "narrow": (lambda x: x.narrow(2, 1, 3), lambda a: a[:, :, 1:4]),
    "empty": (lambda x: x[2:2], lambda a: a[2:2]),
    "transpose": (lambda x: x.transpose(0, 2), lambda a: a.swapaxes(0, 2)),
    "permute": (lambda x: x.permute(2, 0, 1), lambda a: a.transpose(2, 0, 1)),
    "movedim": (lambda x: x.movedim(0, -1), lambda a: numpy.moveaxis(a, 0, -1)),
    "mT": (lambda x: x.mT, lambda a: a.swapaxes(-1, -2)),
    "view": (lambda x: x.view(8, 15), lambda a: a.reshape(8, 15)),
    "view_minus_one": (lambda x: x.view(2, -1), lambda a: a.reshape(2, -1)),
    "view_of_slice": (lambda x: x[1:].view(3, 30), lambda a: a[1:].reshape(3, 30)),
    "reshape_of_transposed": (lambda x: x.transpose(0, 1).unsqueeze(0).reshape(6, 4, 5, 1), lambda a: a.swapaxes(0, 1)[..., None]),
    "flatten": (lambda x: x.flatten(1), lambda a: a.reshape(4, 30)),
    "unflatten": (lambda x: x.unflatten(1, (2, 3)), lambda a: a.reshape(4, 2, 3, 5)),
    "squeeze": (lambda x: x[:, 2:3].squeeze(1), lambda a: a[:, 2]),
    "unsqueeze": (lambda x: x.unsqueeze(1), lambda a: a[:, None]),
    "diagonal": (lambda x: x.diagonal(1, 0, 1), as_diagonal),
    "unfold": (lambda x: x.unfold(1, 3, 3), lambda a: a.reshape(4, 2, 3, 5).swapaxes(2, 3)),
    "split": (lambda x: x.split(4, 1)[1], lambda a: a[:, 4:]),
    "chunk": (lambda x: x.chunk(3, 1)[2], lambda a: a[:, 4:]),
    "tensor_split": (lambda x: x.tensor_split((1, 3))[1], lambda a: a[1:3]),
    "unbind": (lambda x: x.unbind(2)[3], lambda a: a[:, :, 3]),
    "as_strided": (lambda x: x.as_strided((3, 4), (30, 7), 2), lambda a: numpy.lib.stride_tricks.as_strided(a.reshape(-1)[2:], (3, 4), (30 * a.itemsize, 7 * a.itemsize))),
    "view_of_view": (lambda x: x[1:][:, ::2].transpose(0, 2)[1:], lambda a: a[1:][:, ::2].swapaxes(0, 2)[1:]),
    "detach": (lambda x: x.detach(), lambda a: a.view()),
    "view_as": (lambda x: x.view_as(x), lambda a: a.view()),
}


class TestViews(TestCase):
    @parametrize("name", sorted(VIEWS))
    @dtypes(torch.float32, torch.int64, torch.bool, torch.complex64, torch.float16)
    def test_values_and_sharing_are_those_of_numpy(self, device, dtype, name):
        take, take_numpy = VIEWS[name]
        array = numbers((4, 6, 5), dtype)
        base = torch.tensor(array, device=device)
        view, expected = take(base), take_numpy(array)
        self.assertEqual(view, expected.copy(), rtol=0, atol=0)
        self.assertEqual(view.untyped_storage().data_ptr(), base.untyped_storage().data_ptr())
        if view.numel() > 1:
            strides = [stride for stride, size in zip(view.stride(), view.shape) if size > 1]
            steps = [step // array.itemsize for step, size in zip(expected.strides, expected.shape) if size > 1]
            self.assertEqual(strides, steps)
        change = numbers(tuple(view.shape), dtype, seed=1)
        view.copy_(torch.tensor(change, device=device))
        expected[...] = change
        self.assertEqual(base, array, rtol=0, atol=0)
        base.fill_(1)
        array.fill(1)
        self.assertEqual(view, expected.copy(), rtol=0, atol=0)

    @parametrize("name", sorted(VIEWS))
    def test_an_in_place_operator_writes_through_a_view_and_nothing_else(self, device, name):
        take, take_numpy = VIEWS[name]
        array = numbers((4, 6, 5))
        base = torch.tensor(array, device=device)
        take(base).mul_(3).add_(0.5)
        expected = take_numpy(array)
        expected *= 3
        expected += 0.5
        self.assertEqual(base, array, rtol=0, atol=0)

    @parametrize("name", sorted(VIEWS))
    def test_out_writes_through_a_view(self, device, name):
        take, take_numpy = VIEWS[name]
        array = numbers((4, 6, 5))
        base = torch.tensor(array, device=device)
        view, expected = take(base), take_numpy(array)
        torch.add(torch.ones(view.shape, dtype=torch.float64, device=device), 6, out=view)
        expected[...] = 7
        self.assertEqual(base, array, rtol=0, atol=0)

    @dtypes(*NUMPY_DTYPES)
    def test_the_bytes_of_a_tensor_seen_as_another_dtype(self, device, dtype):
        array = numbers((3, 16), dtype)
        tensor = torch.tensor(array, device=device)
        for other in (torch.int8, torch.int16, torch.int32, torch.int64, torch.float32, torch.complex64):
            name = str(other).removeprefix("torch.")
            view = tensor.view(other)
            self.assertEqual(host(view).tobytes(), array.view(name).tobytes())
            self.assertEqual(tuple(view.shape), array.view(name).shape)
        with self.assertRaisesRegex(RuntimeError, r"self.stride\(-1\) must be 1|must be divisible"):
            tensor.t()[:, ::2].view(torch.int8 if tensor.element_size() > 1 else torch.int64)

    @dtypes(*EVERY_DTYPE)
    def test_copies_keep_every_bit(self, device, dtype):
        pattern = numpy.arange(256, dtype="uint8").repeat(4)
        if dtype == torch.bool:
            pattern = pattern & 1
        tensor = torch.from_numpy(pattern.copy()).view(dtype).to(device)
        pieces = [tensor, tensor.clone(), torch.empty_like(tensor).copy_(tensor), tensor.to(device, copy=True), tensor.view(2, -1).t().contiguous().t()]
        for piece in pieces:
            self.assertEqual(piece.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes(), pattern.tobytes())

    @dtypes(*COMPLEX)
    def test_real_and_imaginary_parts_are_views(self, device, dtype):
        array = numbers((3, 4), dtype)
        tensor = torch.tensor(array, device=device)
        tensor.real.mul_(2)
        tensor.imag[1] = 9
        array.real *= 2
        array.imag[1] = 9
        self.assertEqual(tensor, array)
        self.assertEqual(torch.view_as_real(tensor)[..., 1], array.imag.copy())
        self.assertEqual(torch.view_as_complex(torch.view_as_real(tensor)[1:].contiguous()), array[1:])
        torch.view_as_real(tensor).fill_(1)
        self.assertEqual(tensor, numpy.full((3, 4), 1 + 1j, array.dtype))

    @dtypes(*COMPLEX)
    def test_a_conjugate_view_counts_everywhere(self, device, dtype):
        array = numbers((4, 4), dtype)
        tensor = torch.tensor(array, device=device)
        conj = tensor.conj()
        self.assertTrue(conj.is_conj())
        want = array.conj()
        self.assertEqual(host(conj), want)
        self.assertEqual(conj.resolve_conj(), want)
        self.assertEqual(conj + tensor, want + array)
        self.assertEqual(conj * 2j, want * 2j)
        self.assertEqual(conj @ tensor, want @ array)
        self.assertEqual(conj.sum(0), want.sum(0))
        self.assertEqual(conj[1, 2].item(), want[1, 2])
        self.assertEqual(conj.mH, array.T.copy())
        self.assertEqual(conj.imag, want.imag.copy())
        self.assertEqual(torch.cat([conj, tensor]), numpy.concatenate([want, array]))
        self.assertEqual(conj.clone(), want)
        self.assertEqual(conj.to(torch.complex128), want.astype("complex128"))
        self.assertEqual(torch.tensor(conj.tolist(), dtype=dtype), want)
        conj.mul_(1j)
        self.assertEqual(tensor, (want * 1j).conj())
        conj[0] = 5 + 2j
        self.assertEqual(tensor[0], numpy.full(4, 5 - 2j, array.dtype))
        tensor.copy_(torch.tensor(array, device=device).conj())
        self.assertEqual(tensor, want)

    @dtypes(*COMPLEX)
    def test_a_negative_view_counts_everywhere(self, device, dtype):
        array = numbers((3, 4), dtype)
        tensor = torch.tensor(array, device=device)
        negative = tensor.conj().imag
        self.assertTrue(negative.is_neg())
        want = -array.imag
        self.assertEqual(host(negative), want)
        self.assertEqual(negative + 1, want + 1)
        self.assertEqual(negative.resolve_neg(), want)
        self.assertEqual(negative.abs().max().item(), abs(want).max())
        self.assertEqual(negative.sum().item(), want.sum())
        self.assertEqual(torch.stack([negative, negative])[1], want)
        negative.add_(2)
        self.assertEqual(tensor.imag, array.imag - 2)
        negative[0, 0] = 7
        self.assertEqual(tensor[0, 0].imag.item(), -7)

    def test_an_expanded_tensor_reads_everywhere_and_refuses_writes(self, device):
        row = torch.arange(4.0, device=device)
        wide = row.expand(3, 4)
        self.assertEqual(wide, numpy.broadcast_to(numpy.arange(4, dtype="float32"), (3, 4)).copy())
        self.assertEqual(wide + wide.t().t(), 2 * numpy.tile(numpy.arange(4, dtype="float32"), (3, 1)))
        self.assertEqual(wide.sum(0), 3 * numpy.arange(4, dtype="float32"))
        row[1] = 8
        self.assertEqual(wide[:, 1], numpy.full(3, 8, "float32"))
        for write in (lambda: wide.add_(1), lambda: wide.mul_(wide), lambda: torch.add(row, row, out=wide)):
            with self.assertRaisesRegex(RuntimeError, "single memory location"):
                write()
        self.assertEqual(row.cpu().tolist(), [0, 8, 2, 3])

    def test_partly_overlapping_operands_are_refused(self, device):
        x = torch.arange(10.0, device=device)
        with self.assertRaisesRegex(RuntimeError, "partially overlap|single memory location"):
            x[1:].add_(x[:-1])
        with self.assertRaisesRegex(RuntimeError, "partially overlap|single memory location"):
            torch.mul(x[:5], 2, out=x[1:6])
        x[:5].add_(x[5:])
        self.assertEqual(x.tolist(), [5, 7, 9, 11, 13, 5, 6, 7, 8, 9])
        x.add_(x)
        self.assertEqual(x[:2].tolist(), [10, 14])

    def test_reshape_is_a_view_where_strides_allow_it_and_a_copy_elsewhere(self, device):
        x = torch.arange(24.0, device=device).reshape(2, 3, 4)
        self.assertEqual(x.reshape(6, 4).data_ptr(), x.data_ptr())
        self.assertEqual(x[:, 1:].reshape(2, 8).data_ptr(), x[:, 1:].data_ptr())
        flat = x.transpose(1, 2).reshape(-1)
        self.assertNotEqual(flat.data_ptr(), x.data_ptr())
        self.assertEqual(flat, numpy.arange(24, dtype="float32").reshape(2, 3, 4).swapaxes(1, 2).reshape(-1))
        with self.assertRaisesRegex(RuntimeError, "view size is not compatible"):
            x.transpose(1, 2).view(-1)
        with self.assertRaisesRegex(RuntimeError, "invalid for input of size"):
            x.view(5, 5)

    def test_metadata_operators_in_place(self, device):
        x = torch.arange(6.0, device=device).reshape(2, 3)
        pointer = x.data_ptr()
        self.assertEqual(x.t_().shape, (3, 2))
        self.assertEqual(x.unsqueeze_(0).squeeze_(0).transpose_(0, 1).swapdims_(0, 1).shape, (3, 2))
        self.assertEqual(x.data_ptr(), pointer)
        self.assertEqual(x, numpy.arange(6, dtype="float32").reshape(2, 3).T.copy())
        self.assertEqual(x.as_strided_((2, 2), (1, 2), 1), numpy.array([[1, 3], [2, 4]], "float32"))

    @parametrize("format", [torch.contiguous_format, torch.channels_last, torch.preserve_format])
    def test_memory_formats_keep_values(self, device, format):
        array = numbers((2, 3, 4, 5), torch.float32)
        x = torch.tensor(array, device=device)
        for source in (x, x.to(memory_format=torch.channels_last), x.permute(1, 3, 0, 2).contiguous().permute(2, 0, 3, 1)):
            copy = source.clone(memory_format=format)
            self.assertEqual(copy, array)
            expected = source.stride() if format == torch.preserve_format else torch.empty(array.shape).to(memory_format=format).stride()
            self.assertEqual(copy.stride(), expected)
            self.assertEqual(torch.empty_like(source, memory_format=format).stride(), expected)

    def test_a_result_of_channels_last_operands_is_channels_last(self, device):
        x = torch.rand(2, 3, 4, 5, device=device).to(memory_format=torch.channels_last)
        for result in (x + 1, x * x, torch.relu(x), x.double(), x + torch.ones(3, 1, 1, device=device)):
            self.assertTrue(result.is_contiguous(memory_format=torch.channels_last))

    def test_views_and_bases_share_one_version(self, device):
        base = torch.zeros(4, device=device)
        view = base[1:]
        before = base._version
        view.add_(1)
        self.assertEqual((base._version, view._version), (before + 1, before + 1))
        base.detach().mul_(2)
        self.assertEqual(view._version, before + 2)
        self.assertIs(view._base, base)
        self.assertIsNone(view.clone()._base)

    def test_storages_can_be_shared_set_and_grown(self, device):
        x = torch.arange(6.0, device=device)
        y = torch.empty(0, device=device).set_(x.untyped_storage(), 1, (2, 2), (2, 1))
        self.assertEqual(y.tolist(), [[1, 2], [3, 4]])
        y.fill_(9)
        self.assertEqual(x.tolist(), [0, 9, 9, 9, 9, 5])
        x.resize_(2)
        self.assertEqual(x.tolist(), [0, 9])
        x.resize_(6)
        self.assertEqual(x[:6].tolist(), [0, 9, 9, 9, 9, 5])
        x.resize_(3, 100)
        self.assertEqual(x.flatten()[:6].tolist(), [0, 9, 9, 9, 9, 5])
        self.assertGreaterEqual(x.untyped_storage().nbytes(), 1200)
        x.untyped_storage().resize_(0)
        self.assertEqual(x.untyped_storage().nbytes(), 0)

    def test_a_base_is_kept_alive_by_its_view(self, device):
        view = torch.arange(1000.0, device=device)[990:]
        others = [torch.full((1000,), -1.0, device=device) for _ in range(4)]
        self.assertEqual(view.tolist(), list(range(990, 1000)))
        del others

    def test_gradients_of_views_reach_the_base(self, device):
        x = torch.arange(12.0, device=device).reshape(3, 4).requires_grad_()
        y = x.clone()
        y[1].mul_(3)
        y.t()[2].add_(y.t()[0])
        (y * y).sum().backward()
        # y[i] = (s*x0, s*x1, s*(x0 + x2), s*x3) with s = 3 in row 1
        values = numpy.arange(12.0).reshape(3, 4)
        scale = numpy.array([[1.0], [9.0], [1.0]])
        third = values[:, 0] + values[:, 2]
        expected = 2 * scale * numpy.stack([values[:, 0] + third, values[:, 1], third, values[:, 3]], 1)
        self.assertEqual(x.grad, expected.astype("float32"))


instantiate_device_type_tests(TestViews, globals())

if __name__ == "__main__":
    run_tests()
