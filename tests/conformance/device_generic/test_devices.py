"""What a program does with several devices: copies between them, operands that do not fit together, streams, and where results live."""

import numpy
import torch
from reference import EVERY_DTYPE, host, numbers, reals
from torch.testing._internal.common_device_type import deviceCountAtLeast, dtypes, instantiate_device_type_tests, onlyAccelerator
from torch.testing._internal.common_utils import TestCase, device_sleep, parametrize, run_tests

MISFITS = {
    "add": lambda x, y: x + y,
    "add_": lambda x, y: x.add_(y),
    "out": lambda x, y: torch.add(x, x, out=y),
    "matmul": lambda x, y: x @ y,
    "linear": lambda x, y: torch.nn.functional.linear(x, y),
    "cat": lambda x, y: torch.cat([x, y]),
    "stack": lambda x, y: torch.stack([x, y]),
    "where": lambda x, y: torch.where(x > 0, x, y),
    "gather": lambda x, y: x.gather(0, y.long()),
    "index_select": lambda x, y: x.index_select(0, y.long()[0]),
    "index_add": lambda x, y: x.index_add_(0, y.long()[0], x),
    "masked_fill": lambda x, y: x.masked_fill(y > 0, 1),
    "cross_entropy": lambda x, y: torch.nn.functional.cross_entropy(x, y.long()[0]),
    "bmm": lambda x, y: torch.bmm(x[None], y[None]),
    "lerp": lambda x, y: torch.lerp(x, y, 0.5),
    "addmm": lambda x, y: torch.addmm(x, y, x),
    "conv": lambda x, y: torch.nn.functional.conv1d(x[None], y[None]),
    "layer_norm": lambda x, y: torch.nn.functional.layer_norm(x, (3,), y[0]),
    "foreach": lambda x, y: torch._foreach_add_([x], [y]),
    "set": lambda x, y: x.set_(y),
}


class TestDevices(TestCase):
    @onlyAccelerator
    @parametrize("name", sorted(MISFITS))
    def test_a_tensor_of_the_host_does_not_fit(self, device, name):
        on_device, on_host = torch.ones(3, 3, device=device), torch.ones(3, 3)
        for x, y in ((on_device, on_host), (on_host, on_device)):
            with self.assertRaisesRegex((RuntimeError, ValueError), "(?i)same device|device"):
                MISFITS[name](x, y)
        self.assertEqual((on_device.sum().item(), on_host.sum().item()), (9, 9))

    @onlyAccelerator
    @deviceCountAtLeast(2)
    @parametrize("name", sorted(set(MISFITS) - {"set"}))
    def test_a_tensor_of_another_device_does_not_fit(self, devices, name):
        x, y = (torch.ones(3, 3, device=device) for device in devices[:2])
        for pair in ((x, y), (y, x)):
            with self.assertRaisesRegex((RuntimeError, ValueError), "(?i)same device|device"):
                MISFITS[name](*pair)
        self.assertEqual((x.sum().item(), y.sum().item()), (9, 9))

    @onlyAccelerator
    @deviceCountAtLeast(2)
    @dtypes(*EVERY_DTYPE)
    def test_copies_between_devices(self, devices, dtype):
        pattern = torch.arange(256, dtype=torch.uint8).repeat(4)
        x = (pattern & 1 if dtype == torch.bool else pattern).view(dtype).reshape(4, -1).to(devices[0])
        bits = lambda t: t.cpu().contiguous().flatten().view(torch.uint8).tolist()  # noqa: E731
        y = x.to(devices[1])
        self.assertEqual((str(y.device), y.stride(), bits(y)), (devices[1], x.stride(), bits(x)))
        self.assertEqual(bits(x.t().to(devices[1])), bits(x.t()))
        target = torch.empty(x.shape[1], 4, dtype=dtype, device=devices[1]).t()
        self.assertEqual(bits(target.copy_(x, non_blocking=True)), bits(x))
        self.assertEqual(bits(torch.empty_like(x).copy_(y)), bits(x))

    @onlyAccelerator
    @deviceCountAtLeast(2)
    def test_copies_between_devices_convert_and_broadcast(self, devices):
        array = numbers((3, 4), torch.float32)
        x = torch.tensor(array, device=devices[0])
        self.assertEqual(torch.zeros(2, 3, 4, dtype=torch.int64, device=devices[1]).copy_(x), numpy.broadcast_to(array, (2, 3, 4)).astype("int64"))
        z = torch.tensor(array + 1j, device=devices[0]).conj()
        self.assertEqual(z.to(devices[1]), (array + 1j).conj())
        self.assertEqual(torch.zeros(3, 4, dtype=torch.complex128, device=devices[1]).copy_(z), (array + 1j).conj().astype("complex128"))

    @onlyAccelerator
    @deviceCountAtLeast(2)
    def test_work_is_ordered_across_devices_without_waiting(self, devices):
        first, second = devices[:2]
        for round in range(5):
            x = torch.full((20000,), float(round), device=first)
            device_sleep(torch.device(first).type, 200_000)
            y = x.add(1).to(second, non_blocking=True).mul(2)
            x.fill_(-1)
            z = y.to(first, non_blocking=True).add(x)
            y.zero_()
            self.assertEqual(z.unique().tolist(), [2 * (round + 1) - 1])

    @onlyAccelerator
    def test_a_tensor_without_dimensions_may_be_on_the_host(self, device):
        x = torch.ones(3, device=device)
        two = torch.tensor(2.0)
        for result in (x * two, two * x, x.add(two), torch.where(x > 0, two, x), torch.maximum(x, two.to(device)), x.clone().mul_(two), torch.addcmul(x, x, two)):
            self.assertEqual(result.device, x.device)
        with self.assertRaisesRegex(RuntimeError, "(?i)device"):
            two.mul_(x[0])
        with self.assertRaisesRegex(RuntimeError, "(?i)device"):
            torch.ones(1) + x

    @onlyAccelerator
    @deviceCountAtLeast(2)
    def test_results_live_with_their_operands_whatever_is_current(self, devices):
        index = torch.accelerator.current_device_index()
        for device in devices:
            x = torch.rand(3, 3, device=device)
            results = [x + 1, x @ x, x.sort()[1], x.nonzero(), torch.linalg.svd(x)[1], torch.randn_like(x), x.new_ones(2), torch.nn.functional.dropout(x), x.float().to_sparse(), x.sum()]
            self.assertEqual([str(result.device) for result in results], [device] * len(results))
        self.assertEqual(torch.accelerator.current_device_index(), index)

    @onlyAccelerator
    @deviceCountAtLeast(2)
    def test_the_current_device_is_the_default(self, devices):
        kind, before = torch.device(devices[0]).type, torch.accelerator.current_device_index()
        for device in devices[:2]:
            with torch.device(device):
                self.assertEqual(str(torch.ones(1).device), device)
            torch.accelerator.set_device_index(torch.device(device).index)
            try:
                self.assertEqual(str(torch.ones(1, device=kind).device), device)
                self.assertEqual(str(torch.ones(1).to(kind).device), device)
            finally:
                torch.accelerator.set_device_index(before)
        with self.assertRaises(RuntimeError):
            torch.accelerator.set_device_index(99)

    @onlyAccelerator
    @deviceCountAtLeast(2)
    def test_a_model_moves_with_its_optimizer_state(self, devices):
        torch.manual_seed(0)
        model = torch.nn.Linear(2, 1).to(devices[0])
        before = host(model.weight)
        model.to(devices[1])
        self.assertEqual({str(p.device) for p in model.parameters()}, {devices[1]})
        self.assertEqual(model.weight, before)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
        model(torch.ones(1, 2, device=devices[1])).sum().backward()
        optimizer.step()
        self.assertEqual(model.weight, before - 0.5)

    @onlyAccelerator
    def test_streams_are_ordered_by_events(self, device):
        for round in range(5):
            x = torch.zeros(10000, device=device)
            streams = [torch.Stream(device) for _ in range(3)]
            event = torch.accelerator.current_stream(device).record_event()
            for index, stream in enumerate(streams):
                stream.wait_event(event)
                with stream:
                    device_sleep(torch.device(device).type, 100_000)
                    x.mul_(2).add_(index)
                event = stream.record_event()
            torch.accelerator.current_stream(device).wait_event(event)
            self.assertEqual(x.unique().tolist(), [((0 * 2 + 0) * 2 + 1) * 2 + 2])

    @onlyAccelerator
    def test_memory_used_on_another_stream_is_not_given_away_early(self, device):
        side = torch.Stream(device)
        for _ in range(10):
            x = torch.full((5000,), 5.0, device=device)
            side.wait_stream(torch.accelerator.current_stream(device))
            with side:
                device_sleep(torch.device(device).type, 200_000)
                y = x * 2
            x.record_stream(side)
            del x
            other = torch.full((5000,), -1.0, device=device)
            torch.accelerator.current_stream(device).wait_stream(side)
            self.assertEqual(y.unique().tolist(), [10])
            del other

    @onlyAccelerator
    @parametrize("pin", [False, True])
    def test_the_host_may_change_pageable_memory_after_a_copy(self, device, pin):
        array = reals((100, 100))
        source = torch.tensor(array)
        source = source.pin_memory() if pin else source
        x = source.to(device, non_blocking=True)
        if pin:
            torch.accelerator.synchronize(device)
        source.zero_()
        self.assertEqual(x, array)
        back = torch.empty(100, 100, dtype=torch.float64, pin_memory=pin)
        back.copy_(x, non_blocking=pin)
        torch.accelerator.synchronize(device)
        self.assertEqual(back, array)

    @onlyAccelerator
    def test_memory_is_counted_and_runs_out_cleanly(self, device):
        before = torch.accelerator.memory_allocated(device)
        x = torch.empty(1 << 20, dtype=torch.uint8, device=device)
        self.assertGreaterEqual(torch.accelerator.memory_allocated(device) - before, 1 << 20)  # and what the device adds for itself
        del x
        self.assertEqual(torch.accelerator.memory_allocated(device), before)
        _, total = torch.accelerator.get_memory_info(device)
        with self.assertRaises(torch.OutOfMemoryError):
            torch.empty(2 * total, dtype=torch.uint8, device=device)
        self.assertEqual((torch.ones(3, device=device) + 1).tolist(), [2, 2, 2])
        self.assertEqual(torch.accelerator.memory_allocated(device), before)


instantiate_device_type_tests(TestDevices, globals(), except_for="cpu")

if __name__ == "__main__":
    run_tests()
