"""torch.save, pickle, deepcopy, numpy, dlpack and shared memory: every dtype, views that share, where tensors come back."""

import copy
import io
import pickle
from collections import OrderedDict

import numpy
import torch
from reference import EVERY_DTYPE, NUMPY_DTYPES, host, numbers
from torch.testing._internal.common_device_type import deviceCountAtLeast, dtypes, instantiate_device_type_tests, onlyAccelerator
from torch.testing._internal.common_utils import TestCase, parametrize, run_tests

TYPED = tuple(dtype for dtype in EVERY_DTYPE if dtype in (*NUMPY_DTYPES, torch.bfloat16))  # the ones with a typed storage


def saved(thing, **options):
    buffer = io.BytesIO()
    torch.save(thing, buffer, **options)
    buffer.seek(0)
    return buffer


def patterned(dtype, device):
    """A tensor of (4, 8) whose bytes differ."""
    pattern = torch.arange(4 * 8 * 16, dtype=torch.int64).mul(37).to(torch.uint8)[: 4 * 8 * torch.empty(0, dtype=dtype).element_size()]
    return (pattern & 1 if dtype == torch.bool else pattern).view(dtype).reshape(4, 8).to(device)


def same_bytes(first, second):
    as_bytes = lambda t: t.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()  # noqa: E731
    return first.dtype == second.dtype and first.shape == second.shape and as_bytes(first) == as_bytes(second)


class TestSerialization(TestCase):
    @parametrize("weights_only", [True, False])
    @dtypes(*EVERY_DTYPE)
    def test_every_dtype_comes_back(self, device, dtype, weights_only):
        x = patterned(dtype, device)
        back = torch.load(saved(x), weights_only=weights_only)
        self.assertEqual(back.device, x.device)
        self.assertTrue(same_bytes(back, x))
        self.assertTrue(same_bytes(torch.load(saved(x), map_location="cpu", weights_only=weights_only), x))
        self.assertTrue(same_bytes(torch.load(saved(x.cpu()), map_location=device, weights_only=weights_only), x))

    @dtypes(*TYPED)
    def test_the_old_format_and_pickle(self, device, dtype):
        x = patterned(dtype, device)
        for back in (torch.load(saved(x, _use_new_zipfile_serialization=False)), pickle.loads(pickle.dumps(x))):
            self.assertEqual(back.device, x.device)
            self.assertTrue(same_bytes(back, x))

    @dtypes(*EVERY_DTYPE)
    def test_deepcopy(self, device, dtype):
        x = patterned(dtype, device)
        back = copy.deepcopy(x)
        self.assertEqual(back.device, x.device)
        self.assertTrue(same_bytes(back, x))
        self.assertNotEqual(back.data_ptr(), x.data_ptr())

    @parametrize("name", ["transposed", "sliced", "expanded", "element", "empty", "conj", "neg", "channels_last"])
    def test_strides_and_bits_come_back(self, device, name):
        z = torch.tensor(numbers((2, 3, 4, 5), torch.complex64), device=device)
        view = {
            "transposed": lambda: z.transpose(0, 3), "sliced": lambda: z[:, 1:, ::2], "expanded": lambda: z[:1].expand(3, 3, 4, 5),
            "element": lambda: z[1, 2, 3, 4], "empty": lambda: z[:, 3:], "conj": lambda: z.conj(), "neg": lambda: z.conj().imag,
            "channels_last": lambda: z.to(memory_format=torch.channels_last),
        }[name]()  # fmt: skip
        self.assertEqual(host(copy.deepcopy(view)), host(view))
        for back in (torch.load(saved(view)), pickle.loads(pickle.dumps(view))):
            self.assertEqual(host(back), host(view))
            self.assertEqual((back.stride(), back.is_conj(), back.is_neg(), back.device), (view.stride(), view.is_conj(), view.is_neg(), view.device))

    def test_views_share_memory_after_loading(self, device):
        x = torch.arange(10.0, device=device)
        for load in (lambda thing: torch.load(saved(thing)), copy.deepcopy):
            base, view, other = load([x, x[2:5], x.clone()])
            view.fill_(-1)
            self.assertEqual(base.tolist(), [0, 1, -1, -1, -1, 5, 6, 7, 8, 9])
            self.assertEqual(other.tolist(), list(range(10)))
        self.assertEqual(x.tolist(), list(range(10)))

    def test_the_work_before_saving_is_saved(self, device):
        x = torch.zeros(1000, device=device)
        for _ in range(50):
            x.add_(1)
        buffer = saved(x)
        x.zero_()
        self.assertEqual(torch.load(buffer), numpy.full(1000, 50, "float32"))

    def test_a_model_and_its_optimizer_go_on_where_they_were(self, device):
        def step(model, optimizer):
            optimizer.zero_grad()
            model(torch.ones(2, 3, device=device)).pow(2).sum().backward()
            optimizer.step()

        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1)).to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        step(model, optimizer)
        state = torch.load(saved({"model": model.state_dict(), "optimizer": optimizer.state_dict()}))
        twin = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1)).to(device)
        twin.load_state_dict(state["model"])
        twin_optimizer = torch.optim.Adam(twin.parameters(), lr=0.1)
        twin_optimizer.load_state_dict(state["optimizer"])
        for _ in range(3):
            step(model, optimizer)
            step(twin, twin_optimizer)
        for mine, other in zip(model.state_dict().values(), twin.state_dict().values()):
            self.assertEqual(mine, other, rtol=0, atol=0)
            self.assertEqual(other.device, torch.device(device))

    def test_parameters_flags_and_attributes_come_back(self, device):
        parameter = torch.nn.Parameter(torch.ones(2, device=device))
        frozen = torch.nn.Parameter(torch.ones(2, device=device), requires_grad=False)
        back = torch.load(saved(OrderedDict(a=parameter, b=frozen, c=torch.ones(1, device=device, requires_grad=True))))
        self.assertIsInstance(back["a"], torch.nn.Parameter)
        self.assertEqual([t.requires_grad for t in back.values()], [True, False, True])
        twin = copy.deepcopy(parameter)
        parameter.sum().backward()
        self.assertIsNone(twin.grad)
        with self.assertRaisesRegex(RuntimeError, "Only Tensors created explicitly by the user"):
            copy.deepcopy(parameter * 2)

    @dtypes(*NUMPY_DTYPES)
    def test_numpy_there_and_back(self, device, dtype):
        array = numbers((3, 4), dtype)
        for form in (array, array.T, array[::2], array[1:1]):
            self.assertEqual(torch.as_tensor(form, device=device), form.copy())
            self.assertEqual(torch.from_numpy(form).to(device).cpu().numpy(), form.copy())
            self.assertEqual(torch.tensor(form.tolist(), dtype=dtype, device=device).reshape(form.shape), form.copy())
        x = torch.tensor(array, device=device)
        self.assertEqual(x.tolist(), array.tolist())
        array.fill(0)
        self.assertEqual(host(x).any(), numbers((3, 4), dtype).any())

    @onlyAccelerator
    def test_memory_of_the_device_is_not_given_to_numpy(self, device):
        x = torch.ones(3, device=device)
        with self.assertRaisesRegex(TypeError, "can't convert .* device type tensor to numpy"):
            x.numpy()
        with self.assertRaisesRegex(TypeError, "can't convert .* device type tensor to numpy"):
            numpy.asarray(x)
        self.assertEqual(x.numpy(force=True).tolist(), [1, 1, 1])

    @dtypes(torch.float32, torch.int64, torch.bool, torch.complex64, torch.bfloat16, torch.uint8)
    def test_dlpack_shares_memory(self, device, dtype):
        x = torch.tensor(numbers((3, 4), dtype if dtype != torch.bfloat16 else torch.float32), device=device).to(dtype)
        y = torch.from_dlpack(torch.utils.dlpack.to_dlpack(x.t()))
        self.assertEqual((y.device, y.dtype, y.stride(), y.data_ptr()), (x.device, dtype, x.t().stride(), x.data_ptr()))
        y.fill_(1)
        self.assertEqual(host(x).sum(), 12)
        del x
        self.assertEqual(host(y).sum(), 12)

    @onlyAccelerator
    @deviceCountAtLeast(2)
    def test_tensors_return_to_their_own_device(self, devices):
        things = [torch.full((2,), float(index), device=device) for index, device in enumerate(devices)]
        back = torch.load(saved(things))
        for mine, other in zip(back, things):
            self.assertEqual(mine.device, other.device)
            self.assertEqual(mine, other)
        moved = torch.load(saved(things), map_location={devices[0]: devices[1]})
        self.assertEqual([str(t.device) for t in moved], [devices[1]] * 2 + devices[2:])
        moved = torch.load(saved(things), map_location=lambda storage, location: storage)
        self.assertEqual({t.device.type for t in moved}, {"cpu"})
        self.assertEqual([str(t.device) for t in copy.deepcopy(things)], devices)

    @onlyAccelerator
    def test_a_device_that_is_not_there_is_an_error(self, device):
        buffer = saved(torch.ones(2, device=device))
        kind = torch.device(device).type
        data = buffer.getvalue().replace(f"{kind}:{torch.device(device).index}".encode(), f"{kind}:7".encode())
        with self.assertRaisesRegex((RuntimeError, AssertionError), "(?i)device"):
            torch.load(io.BytesIO(data))
        with self.assertRaisesRegex((RuntimeError, AssertionError), "(?i)device"):
            torch.load(saved(torch.ones(2)), map_location=f"{kind}:7")

    def test_sparse_tensors_come_back(self, device):
        dense = torch.tensor([[0.0, 2.0], [3.0, 0.0]], device=device)
        for sparse in (dense.to_sparse(), dense.to_sparse_csr()):
            back = torch.load(saved(sparse))
            self.assertEqual((back.layout, back.device), (sparse.layout, sparse.device))
            self.assertEqual(back.to_dense(), dense)

    def test_generators_and_storages_come_back(self, device):
        generator = torch.Generator(device).manual_seed(5)
        torch.rand(3, device=device, generator=generator)
        state = torch.load(saved(generator.get_state()))
        expected = torch.rand(4, device=device, generator=generator)
        self.assertEqual(torch.rand(4, device=device, generator=torch.Generator(device).set_state(state)), expected)
        storage = torch.arange(4, dtype=torch.uint8, device=device).untyped_storage()
        self.assertEqual(list(copy.deepcopy(storage).cpu()), [0, 1, 2, 3])


instantiate_device_type_tests(TestSerialization, globals())

if __name__ == "__main__":
    run_tests()
