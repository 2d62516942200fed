"""Tensors from nothing, from sequences, from numpy and from random numbers: values, dtypes, devices. Reference: numpy."""

import math

import numpy
import torch
from reference import EVERY_DTYPE, NUMPY_DTYPES, host, numbers
from torch.testing import make_tensor
from torch.testing._internal.common_device_type import dtypes, instantiate_device_type_tests, onlyAccelerator
from torch.testing._internal.common_utils import TestCase, noncontiguous_like, parametrize, run_tests

RANDOM = {
    "rand": (lambda n, **k: torch.rand(n, **k), 0.5, 1 / 12),
    "randn": (lambda n, **k: torch.randn(n, **k), 0, 1),
    "uniform_": (lambda n, **k: fresh(n, k).uniform_(-3, 5, **only_generator(k)), 1, 64 / 12),
    "normal_": (lambda n, **k: fresh(n, k).normal_(2, 3, **only_generator(k)), 2, 9),
    "exponential_": (lambda n, **k: fresh(n, k).exponential_(2, **only_generator(k)), 0.5, 0.25),
    "bernoulli": (lambda n, **k: torch.bernoulli(torch.full((n,), 0.3, device=k["device"]), **only_generator(k)), 0.3, 0.21),
    "randint": (lambda n, **k: torch.randint(-2, 5, (n,), **k).float(), 1, 4),
    "poisson": (lambda n, **k: torch.poisson(torch.full((n,), 4.0, device=k["device"]), **only_generator(k)), 4, 4),
    "geometric_": (lambda n, **k: fresh(n, k).geometric_(0.5, **only_generator(k)), 2, 2),
    "log_normal_": (lambda n, **k: fresh(n, k).log_normal_(0, 0.5, **only_generator(k)), math.exp(0.125), (math.exp(0.25) - 1) * math.exp(0.25)),
    "multinomial": (lambda n, **k: torch.multinomial(torch.tensor([1.0, 2, 1], device=k["device"]), n, True, **only_generator(k)).float(), 1, 0.5),
    "normal": (lambda n, **k: torch.normal(torch.full((n,), 1.0, device=k["device"]), 2.0, **only_generator(k)), 1, 4),
    "dropout": (lambda n, **k: torch.nn.functional.dropout(torch.ones(n, device=k["device"]), 0.2), 1, 0.25),
}


def fresh(size, keywords):
    return torch.empty(size, device=keywords["device"])


def only_generator(keywords):
    return {"generator": keywords["generator"]} if "generator" in keywords else {}


class TestTensorCreation(TestCase):
    @parametrize("arguments", [(7,), (2, 9), (1, 8, 3), (5, 0, -2), (0,), (3, 3), (0, 1, 0.25), (-1.5, 1.5, 0.5), (1000000007, 1000000011)], name_fn=lambda a: "_".join(str(x).replace("-", "minus").replace(".", "p") for x in a))
    @dtypes(torch.float32, torch.float64, torch.int64, torch.int32, torch.float16)
    def test_arange(self, device, dtype, arguments):
        name = str(dtype).removeprefix("torch.")
        if dtype != torch.int64 and arguments[0] > 10**6 or not dtype.is_floating_point and isinstance(arguments[-1], float):
            return self.assertEqual(torch.arange(*arguments, device=device).dtype, torch.int64 if isinstance(arguments[-1], int) else torch.float32)
        self.assertEqual(torch.arange(*arguments, dtype=dtype, device=device), numpy.arange(*arguments).astype(name))

    @parametrize("steps", [0, 1, 2, 7, 100])
    @dtypes(torch.float32, torch.float64, torch.int64, torch.complex64)
    def test_linspace_and_logspace(self, device, dtype, steps):
        name = str(dtype).removeprefix("torch.")
        if dtype == torch.int64:
            self.assertEqual(torch.linspace(0, 10 * max(steps - 1, 0), steps, dtype=dtype, device=device), 10 * numpy.arange(steps))
            return
        start, end = (-2, 3) if not dtype.is_complex else (-2 + 1j, 3 - 1j)
        self.assertEqual(torch.linspace(start, end, steps, dtype=dtype, device=device), numpy.linspace(start, end, steps).astype(name))
        if not dtype.is_complex:
            self.assertEqual(torch.logspace(-1, 1, steps, dtype=dtype, device=device), numpy.logspace(-1, 1, steps).astype(name))
        ends = (torch.tensor(start, dtype=dtype, device=device), torch.tensor(end, dtype=dtype, device=device))
        self.assertEqual(torch.linspace(*ends, steps, dtype=dtype, device=device), numpy.linspace(start, end, steps).astype(name))

    @dtypes(*NUMPY_DTYPES)
    def test_constant_tensors(self, device, dtype):
        name = str(dtype).removeprefix("torch.")
        for shape in ((), (0,), (3,), (2, 0, 3), (2, 3, 4)):
            self.assertEqual(torch.zeros(shape, dtype=dtype, device=device), numpy.zeros(shape, name))
            self.assertEqual(torch.ones(shape, dtype=dtype, device=device), numpy.ones(shape, name))
            self.assertEqual(torch.full(shape, 1, dtype=dtype, device=device), numpy.full(shape, 1, name))
        for rows, columns in ((3, 3), (2, 5), (5, 2), (0, 3)):
            self.assertEqual(torch.eye(rows, columns, dtype=dtype, device=device), numpy.eye(rows, columns, dtype=name))

    @dtypes(*EVERY_DTYPE)
    def test_the_like_family_follows_its_model(self, device, dtype):
        model = torch.zeros(4, 6, dtype=torch.uint8, device=device).to(dtype)[:, ::2].t()
        for made in (torch.empty_like(model), torch.zeros_like(model), torch.ones_like(model), torch.full_like(model, 1)):
            self.assertEqual((made.dtype, made.device, made.shape, made.stride()), (dtype, model.device, model.shape, (1, 3)))
        self.assertEqual(torch.ones_like(model, dtype=torch.float32).sum().item(), 12)
        self.assertEqual(torch.zeros_like(model, device="cpu").device.type, "cpu")
        self.assertEqual((model.new_zeros(2).dtype, model.new_ones(2).device), (dtype, model.device))
        self.assertEqual(model.new_empty_strided((2, 3), (3, 1)).stride(), (3, 1))

    def test_from_python_values(self, device):
        for value, dtype in ((1, torch.int64), (1.5, torch.float32), (True, torch.bool), (1j, torch.complex64), ([1, 2.5], torch.float32), ([], torch.float32), ([[1], [True]], torch.int64)):
            made = torch.tensor(value, device=device)
            self.assertEqual((made.dtype, made.device), (dtype, torch.device(device)))
            self.assertEqual(made.tolist(), value)
        x = torch.tensor([1.0, 2.0], device=device)
        self.assertEqual(torch.tensor([x[0], 3, x[1]], device=device).tolist(), [1, 3, 2])
        self.assertEqual(torch.stack([x[0] * 2, x[1]]).tolist(), [2, 2])
        self.assertEqual(torch.as_tensor(x).data_ptr(), x.data_ptr())
        self.assertEqual(torch.asarray(x, copy=True, device=device).tolist(), [1, 2])
        with self.assertWarnsRegex(UserWarning, "To copy construct from a tensor"):
            self.assertEqual(torch.tensor(x).device, x.device)
        with self.assertRaisesRegex((ValueError, TypeError, RuntimeError), "."):
            torch.tensor([[1, 2], [3]], device=device)
        self.assertEqual(torch.tensor(2**63 - 1, device=device).item(), 2**63 - 1)

    @parametrize("name", ["hann_window", "hamming_window", "blackman_window", "bartlett_window", "kaiser_window"])
    def test_windows(self, device, name):
        numpy_name = {"hann_window": "hanning", "kaiser_window": "kaiser"}.get(name, name.removesuffix("_window"))
        arguments = (12.0,) if name == "kaiser_window" else ()
        got = getattr(torch, name)(20, False, device=device, dtype=torch.float64)
        self.assertEqual(got, getattr(numpy, numpy_name)(20, *arguments), atol=1e-7, rtol=1e-6)

    def test_indices_of_triangles_and_ranges(self, device):
        for offset in (-1, 0, 2):
            self.assertEqual(torch.tril_indices(4, 5, offset, device=device), numpy.stack(numpy.tril_indices(4, offset, 5)))
            self.assertEqual(torch.triu_indices(4, 5, offset, device=device), numpy.stack(numpy.triu_indices(4, offset, 5)))
        self.assertEqual(torch.vander(torch.tensor([1, 2, 3], device=device)), numpy.vander([1, 2, 3]))
        self.assertEqual(torch.combinations(torch.tensor([1, 2, 3], device=device)).tolist(), [[1, 2], [1, 3], [2, 3]])

    # ---- Random numbers ---------------------------------------------------------------

    @parametrize("name", sorted(RANDOM))
    def test_random_numbers_have_their_mean_and_variance(self, device, name):
        draw, mean, variance = RANDOM[name]
        torch.manual_seed(3)
        sample = host(draw(40000, device=device)).astype("float64")
        self.assertLess(abs(sample.mean() - mean), 5 * math.sqrt(variance / 40000))
        self.assertLess(abs(sample.var() - variance), 0.1 * variance)

    @parametrize("name", sorted(RANDOM))
    def test_a_seed_fixes_random_numbers_and_calls_move_on(self, device, name):
        draw = RANDOM[name][0]
        torch.manual_seed(3)
        first, second = draw(500, device=device), draw(500, device=device)
        torch.manual_seed(3)
        self.assertEqual(draw(500, device=device), first, rtol=0, atol=0)
        self.assertEqual(draw(500, device=device), second, rtol=0, atol=0)
        self.assertNotEqual(first, second)
        if name != "dropout":
            generators = [torch.Generator(device).manual_seed(5) for _ in range(2)]
            one, two = (draw(500, device=device, generator=generator) for generator in generators)
            self.assertEqual(one, two, rtol=0, atol=0)
            self.assertNotEqual(one, draw(500, device=device, generator=generators[0]))

    @onlyAccelerator
    def test_random_numbers_of_the_device_and_of_the_host_are_apart(self, device):
        torch.manual_seed(1)
        expected = torch.rand(3)
        torch.manual_seed(1)
        torch.rand(100, device=device)
        self.assertEqual(torch.rand(3), expected, rtol=0, atol=0)
        with self.assertRaisesRegex(RuntimeError, "(?i)generator"):
            torch.rand(3, device=device, generator=torch.Generator().manual_seed(1))

    def test_a_generator_can_be_kept_and_set_back(self, device):
        generator = torch.Generator(device).manual_seed(2)
        torch.rand(10, device=device, generator=generator)
        state = generator.get_state()
        first = torch.randn(10, device=device, generator=generator)
        generator.set_state(state)
        self.assertEqual(torch.randn(10, device=device, generator=generator), first, rtol=0, atol=0)
        self.assertEqual(generator.initial_seed(), 2)
        with torch.random.fork_rng(devices=[] if self.device_type == "cpu" else [device], device_type=self.device_type if self.device_type != "cpu" else "cuda"):
            torch.manual_seed(9)
            torch.rand(4, device=device)

    @parametrize("size", [0, 1, 2, 1000])
    def test_permutations(self, device, size):
        torch.manual_seed(0)
        first, second = torch.randperm(size, device=device), torch.randperm(size, device=device)
        self.assertEqual(sorted(first.tolist()), list(range(size)))
        if size > 2:
            self.assertNotEqual(first, second)
        values, places = torch.multinomial(torch.ones(10, device=device), 10), torch.arange(10)
        self.assertEqual(values.sort()[0], places)

    @parametrize("bounds", [(0, 1), (0, 2), (-5, 5), (0, 256), (-(2**40), 2**40)], name_fn=lambda b: f"{b[0]}_to_{b[1]}".replace("-", "minus"))
    def test_integers_stay_in_their_bounds_and_reach_them(self, device, bounds):
        low, high = bounds
        sample = host(torch.randint(low, high, (5000,), device=device))
        self.assertTrue((sample >= low).all() and (sample < high).all())
        if high - low <= 256:
            self.assertEqual((sample.min(), sample.max()), (low, high - 1))
        with self.assertRaisesRegex(RuntimeError, "from.*to|expects"):
            torch.randint(3, 3, (2,), device=device)

    @dtypes(*[dtype for dtype in EVERY_DTYPE if dtype not in (torch.uint16, torch.uint32, torch.uint64)])
    def test_helpers_of_torch_testing(self, device, dtype):
        x = make_tensor((3, 4), dtype=dtype, device=device)
        self.assertEqual((x.device, x.dtype), (torch.device(device), dtype))
        if dtype not in (torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz):
            strided = noncontiguous_like(x)
            self.assertFalse(strided.is_contiguous())
            self.assertEqual(strided, x)
            self.assertEqual(host(strided.contiguous().to(torch.complex64)), host(x.to(torch.complex64)))
        apart = make_tensor((3, 4), dtype=dtype, device=device, noncontiguous=True)
        self.assertFalse(apart.is_contiguous())

    def test_numbers_of_numpy(self, device):
        x = torch.tensor(numbers((3,), torch.float32), device=device)
        for scalar in (numpy.float64(2), numpy.float32(2), numpy.int64(2)):
            self.assertEqual((x * scalar).device, x.device)
            self.assertEqual(x * scalar, numbers((3,), torch.float32) * numpy.float32(2))
        self.assertEqual(torch.full((2,), numpy.float32(1.5), device=device).tolist(), [1.5, 1.5])


instantiate_device_type_tests(TestTensorCreation, globals())

if __name__ == "__main__":
    run_tests()
