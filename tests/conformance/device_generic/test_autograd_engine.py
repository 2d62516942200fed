"""The autograd engine on a device: its threads, hooks, anomaly mode, checkpoints, second derivatives, reentrant backward,
several devices and streams, and the errors that it owes. Expected gradients are written down or computed by hand.
"""

import threading
import warnings
import weakref

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing._internal.common_device_type import deviceCountAtLeast, dtypes, instantiate_device_type_tests, onlyAccelerator
from torch.testing._internal.common_utils import TestCase, parametrize, run_tests
from torch.utils.checkpoint import checkpoint, checkpoint_sequential


class Cube(torch.autograd.Function):
    """x**3 with a backward that may be differentiated again; records where each call ran."""

    seen: list = []

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x * x

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        Cube.seen.append((threading.get_ident(), gradient.device))
        return 3 * x * x * gradient


def attention(query, key, value):
    """The backend that can be differentiated twice."""
    with sdpa_kernel(SDPBackend.MATH):
        return torch.nn.functional.scaled_dot_product_attention(query, key, value)


class TestAutogradEngine(TestCase):
    def leaf(self, device, *values, dtype=torch.float64):
        return torch.tensor(values, dtype=dtype, device=device, requires_grad=True)

    # ---- Gradients arrive, once and complete ------------------------------------

    def test_gradients_add_up_over_paths_and_calls(self, device):
        x = self.leaf(device, 2.0, 3.0)
        for factor in (1, 2, 3):
            (x * x * factor).sum().backward()
            self.assertEqual(x.grad.tolist(), [4 * sum(range(factor + 1)), 6 * sum(range(factor + 1))])
        y = x * 2
        (gradient,) = torch.autograd.grad(y.sum() + (y * y).sum() + x.prod(), x)
        self.assertEqual(gradient.tolist(), [2 + 8 * 2 + 3, 2 + 8 * 3 + 2])

    def test_a_wide_and_a_deep_graph(self, device):
        x = self.leaf(device, 1.0)
        y = x
        for _ in range(5000):
            y = y + x * 0.001
        y.backward()
        self.assertEqual(x.grad.item(), 6.0)
        x.grad = None
        torch.stack([x * i for i in range(500)]).sum().backward()
        self.assertEqual(x.grad.item(), 499 * 250)

    def test_what_takes_no_part_has_no_gradient(self, device):
        x, y = self.leaf(device, 1.0), self.leaf(device, 1.0)
        z = x * 2 + y.detach() * 3
        self.assertEqual([g if g is None else g.item() for g in torch.autograd.grad(z, (x, y), allow_unused=True, retain_graph=True)], [2, None])
        self.assertEqual(torch.autograd.grad(z, (x, y), materialize_grads=True, retain_graph=True)[1].item(), 0)
        with self.assertRaisesRegex(RuntimeError, "not have been used in the graph"):
            torch.autograd.grad(z, (x, y))
        with torch.no_grad():
            self.assertFalse((x * 2).requires_grad)
        with torch.inference_mode():
            inference = x * 2
        with self.assertRaisesRegex(RuntimeError, "Inference tensors"):
            (inference * x).sum()
        self.assertFalse((torch.ones(2, device=device) > 0).requires_grad)

    @parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.complex64])
    def test_gradients_have_the_dtype_and_device_of_their_tensor(self, device, dtype):
        x = torch.ones(3, dtype=dtype, device=device, requires_grad=True)
        host_scalar = torch.tensor(2.0, requires_grad=True)
        (x.to(torch.complex64) * host_scalar).sum().abs().backward()
        self.assertEqual((x.grad.dtype, x.grad.device), (dtype, x.device))
        self.assertEqual((host_scalar.grad.device.type, host_scalar.grad.item()), ("cpu", 3.0))
        self.assertEqual(x.grad.to(torch.complex64).real.tolist(), [2.0] * 3)

    def test_broadcast_operands_get_summed_gradients(self, device):
        a, b, c = (torch.ones(shape, dtype=torch.float64, device=device, requires_grad=True) for shape in ((3, 1), (1, 4), ()))
        (a * b * c).sum().backward()
        self.assertEqual((a.grad.tolist(), b.grad.tolist(), c.grad.item()), ([[4.0]] * 3, [[3.0] * 4], 12.0))

    def test_a_graph_is_freed_after_use_unless_kept(self, device):
        x = self.leaf(device, 2.0)
        y = x.exp() * x
        y.backward(retain_graph=True)
        y.backward()
        with self.assertRaisesRegex(RuntimeError, "backward through the graph a second time"):
            y.backward()
        with self.assertRaisesRegex(RuntimeError, "grad can be implicitly created only for scalar outputs"):
            (torch.ones(2, device=device, requires_grad=True) * 2).backward()
        with self.assertRaisesRegex(RuntimeError, "does not require grad"):
            torch.ones((), device=device).backward()

    # ---- Derivatives of derivatives ---------------------------------------------

    def test_double_and_triple_backward(self, device):
        x = self.leaf(device, 2.0)
        value, orders = x**4, []
        for _ in range(4):
            (value,) = torch.autograd.grad(value, x, create_graph=True)
            orders.append(value.item())
        self.assertEqual(orders, [32, 48, 48, 24])
        y = self.leaf(device, 3.0)
        (first,) = torch.autograd.grad(Cube.apply(y), y, create_graph=True)
        first.backward()
        self.assertEqual(y.grad.item(), 18)

    @parametrize("name", ["conv", "norm", "attention", "index", "softmax", "pool", "matmul", "gelu"])
    def test_second_derivatives_agree_with_differences(self, device, name):
        torch.manual_seed(0)
        x = torch.randn(1, 2, 4, 4, dtype=torch.float64).to(device).requires_grad_()
        weight = torch.randn(2, 2, 2, 2, dtype=torch.float64).to(device).requires_grad_()
        f = torch.nn.functional
        functions = {
            "conv": lambda x, w: f.conv2d(x, w), "norm": lambda x, w: f.layer_norm(x, (4,)) * w.sum(), "softmax": lambda x, w: x.softmax(-1) * w.mean(),
            "attention": lambda x, w: attention(x, x * w.sum(), x), "index": lambda x, w: x[..., [0, 0, 2]] ** 2 * w[0, 0, 0, 0],
            "pool": lambda x, w: f.avg_pool2d(x * x, 2) * w.sum(), "matmul": lambda x, w: x @ x.mT @ x * w.prod(), "gelu": lambda x, w: f.gelu(x) * w.sum(),
        }  # fmt: skip
        self.assertTrue(torch.autograd.gradcheck(functions[name], (x, weight), fast_mode=True))
        self.assertTrue(torch.autograd.gradgradcheck(functions[name], (x, weight), fast_mode=True))

    def test_jacobians_and_hessians(self, device):
        x = torch.tensor([1.0, 2.0], dtype=torch.float64, device=device)
        function = lambda x: (x**3).sum() + x.prod()  # noqa: E731
        expected = [[6.0, 1.0], [1.0, 12.0]]
        self.assertEqual(torch.autograd.functional.hessian(function, x).tolist(), expected)
        self.assertEqual(torch.func.hessian(function)(x).tolist(), expected)
        self.assertEqual(torch.func.jacrev(lambda x: x * x)(x).tolist(), [[2.0, 0.0], [0.0, 4.0]])
        self.assertEqual(torch.func.jacfwd(lambda x: x * x)(x).tolist(), [[2.0, 0.0], [0.0, 4.0]])
        value, tangent = torch.func.jvp(torch.sin, (x,), (torch.ones_like(x),))
        self.assertEqual(tangent, x.cos())
        per_sample = torch.func.vmap(torch.func.grad(lambda row: (row**2).sum()))(torch.stack([x, x + 1]))
        self.assertEqual(per_sample.tolist(), [[2.0, 4.0], [4.0, 6.0]])
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
            self.assertEqual(torch.autograd.forward_ad.unpack_dual(dual * dual).tangent.tolist(), [2.0, 4.0])

    # ---- Hooks ------------------------------------------------------------------

    def test_hooks_see_and_change_gradients(self, device):
        x = self.leaf(device, 1.0, 2.0)
        y = x * 2
        z = y * y
        y.retain_grad()
        seen = []
        handle = y.register_hook(lambda gradient: seen.append(gradient.clone()) or gradient * 10)
        z.grad_fn.register_prehook(lambda gradients: seen.append("before"))
        z.grad_fn.register_hook(lambda inputs, outputs: seen.append("after"))
        x.register_post_accumulate_grad_hook(lambda leaf: seen.append(leaf.grad.tolist()))
        z.sum().backward(retain_graph=True)
        self.assertEqual(seen[0], "before")
        self.assertEqual(seen[1], "after")
        self.assertEqual(seen[2].tolist(), [4.0, 8.0])
        self.assertEqual(seen[3], [80.0, 160.0])
        self.assertEqual(y.grad.tolist(), [40.0, 80.0])
        handle.remove()
        x.grad = None
        z.sum().backward()
        self.assertEqual(x.grad.tolist(), [8.0, 16.0])

    def test_module_hooks(self, device):
        model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Tanh()).to(device)
        calls = []
        model[0].register_forward_pre_hook(lambda module, args: (args[0] + 1,))
        model[0].register_forward_hook(lambda module, args, output: calls.append(args[0].tolist()))
        model[1].register_full_backward_hook(lambda module, inputs, outputs: calls.append(outputs[0].device))
        model(torch.zeros(1, 2, device=device)).sum().backward()
        self.assertEqual(calls, [[[1.0, 1.0]], torch.device(device)])

    def test_an_exception_in_a_hook_reaches_the_caller_and_the_engine_goes_on(self, device):
        x = self.leaf(device, 1.0)
        y = x * 2
        handle = y.register_hook(lambda gradient: {}["missing"])
        for _ in range(3):
            with self.assertRaisesRegex(KeyError, "missing"):
                y.backward(retain_graph=True)
        handle.remove()
        y.backward()
        self.assertEqual(x.grad.item(), 2)

    def test_saved_tensors_may_live_elsewhere(self, device):
        x = self.leaf(device, 1.0, 2.0)
        packed = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: packed.append(t.device.type) or t.cpu(), lambda t: t.to(device)):
            y = (x.exp() * x).sum()
        y.backward()
        self.assertEqual(x.grad, (x.exp() * (1 + x)).detach())
        self.assertTrue(packed and set(packed) == {torch.device(device).type})
        x.grad = None
        with torch.autograd.graph.save_on_cpu():
            (x.exp() * x).sum().backward()
        self.assertEqual(x.grad, (x.exp() * (1 + x)).detach())

    def test_saved_tensors_are_released_after_backward(self, device):
        x = torch.ones(1000, device=device, requires_grad=True)
        middle = x * 2
        gone = weakref.ref(middle)
        loss = (middle * middle).sum()
        del middle
        loss.backward()
        del loss
        self.assertIsNone(gone())

    # ---- Anomaly mode and version counters ----------------------------------------

    def test_anomaly_mode_names_the_forward_call(self, device):
        x = self.leaf(device, -1.0)
        with warnings.catch_warnings(record=True) as caught, torch.autograd.detect_anomaly(check_nan=True):
            warnings.simplefilter("always")
            with self.assertRaisesRegex(RuntimeError, "'SqrtBackward0' returned nan values"):
                x.sqrt().backward()
        self.assertTrue(any("x.sqrt().backward()" in str(warning.message) for warning in caught))
        with torch.autograd.set_detect_anomaly(True, check_nan=False):
            x.sqrt().backward()
        self.assertTrue(x.grad.isnan().item())

    def test_a_changed_saved_tensor_is_an_error(self, device):
        x = self.leaf(device, 1.0, 2.0)
        for change in (lambda t: t.add_(1), lambda t: t[0].fill_(3), lambda t: t.copy_(x.detach()), lambda t: torch.add(t.detach(), 1, out=t.detach())):
            y = x * 1
            z = y.exp() * y
            change(y.detach() if y.requires_grad else y)
            with self.assertRaisesRegex(RuntimeError, "modified by an inplace operation"):
                z.sum().backward()
        with self.assertRaisesRegex(RuntimeError, "leaf Variable that requires grad"):
            x.add_(1)
        with self.assertRaisesRegex(RuntimeError, "view of a leaf Variable"):
            x[0].mul_(2)

    def test_in_place_operators_are_part_of_the_graph(self, device):
        x = self.leaf(device, 1.0, 2.0, 3.0)
        y = x.clone()
        y[1:].mul_(10)
        y.masked_fill_(y > 25, 0)
        y.add_(x)
        y.sum().backward()
        self.assertEqual(x.grad.tolist(), [2.0, 11.0, 1.0])

    # ---- Checkpoints ------------------------------------------------------------

    @parametrize("use_reentrant", [True, False])
    def test_a_checkpoint_computes_again_with_the_same_random_numbers(self, device, use_reentrant):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 8)).to(device)
        x = torch.randn(4, 8).to(device).requires_grad_()
        runs, results = [], []
        for use in (False, True):
            torch.manual_seed(1)
            forward = lambda x: runs.append(use) or model(x)  # noqa: E731, B023
            y = checkpoint(forward, x, use_reentrant=use_reentrant) if use else forward(x)
            after = torch.rand(2, device=device)
            results.append([y.detach(), *torch.autograd.grad(y.pow(2).sum(), [x])] if not (use and use_reentrant) else [y.detach(), self.backward_of(y, x)])
            results[-1].append(after)
        for plain, again in zip(*results):
            self.assertEqual(again, plain, rtol=0, atol=0)
        self.assertEqual(runs, [False, True, True])

    def backward_of(self, y, x):
        x.grad = None
        y.pow(2).sum().backward()
        return x.grad

    @parametrize("use_reentrant", [True, False])
    def test_checkpoints_inside_checkpoints(self, device, use_reentrant):
        x = self.leaf(device, 0.5)
        inner = lambda x: checkpoint(torch.sin, x, use_reentrant=use_reentrant) * x  # noqa: E731
        checkpoint(inner, x, use_reentrant=use_reentrant).backward()
        self.assertEqual(x.grad, (x.cos() * x + x.sin()).detach())
        layers = torch.nn.Sequential(*[torch.nn.Tanh() for _ in range(5)])
        plain = torch.autograd.grad(layers(x).sum(), x)[0]
        x.grad = None
        checkpoint_sequential(layers, 2, x, use_reentrant=use_reentrant).sum().backward()
        self.assertEqual(x.grad, plain)

    # ---- Threads, reentrant backward, streams and devices --------------------------

    def test_a_backward_inside_a_backward(self, device):
        class Inner(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                ctx.save_for_backward(x)
                return x.clone()

            @staticmethod
            def backward(ctx, gradient):
                with torch.enable_grad():
                    y = ctx.saved_tensors[0].detach().requires_grad_()
                    (y**2).sum().backward()
                return gradient * y.grad

        x = self.leaf(device, 3.0)
        y = x
        Inner.apply(y).backward()
        self.assertEqual(x.grad.item(), 6)

    def test_deep_reentrance_does_not_run_out_of_threads(self, device):
        class Deeper(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x, depth):
                ctx.depth = depth
                return x.clone()

            @staticmethod
            def backward(ctx, gradient):
                if ctx.depth == 0:
                    return gradient + 1, None
                with torch.enable_grad():
                    y = torch.zeros_like(gradient, requires_grad=True)
                    Deeper.apply(y, ctx.depth - 1).sum().backward()
                return gradient * 0 + y.grad + 1, None

        x = self.leaf(device, 0.0)
        Deeper.apply(x, 90).sum().backward()
        self.assertEqual(x.grad.item(), 92)

    def test_backward_from_several_threads_at_once(self, device):
        shared = self.leaf(device, 1.0)
        failures, gradients = [], [None] * 8

        def work(index):
            try:
                x = self.leaf(device, float(index))
                for _ in range(5):
                    (x * x * shared).backward()
                gradients[index] = x.grad.item()
            except Exception as error:  # noqa: BLE001
                failures.append(error)

        threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        self.assertEqual(gradients, [2.0 * index * 5 for index in range(8)])
        self.assertEqual(shared.grad.item(), 5.0 * sum(index * index for index in range(8)))

    def test_grad_mode_belongs_to_the_thread(self, device):
        x, found = self.leaf(device, 1.0), []
        with torch.no_grad():
            thread = threading.Thread(target=lambda: found.append((x * 2).requires_grad))
            thread.start()
            thread.join()
            found.append((x * 2).requires_grad)
        self.assertEqual(found, [True, False])

    @onlyAccelerator
    def test_backward_runs_on_the_thread_of_the_device(self, device):
        Cube.seen.clear()
        x = self.leaf(device, 2.0)
        Cube.apply(x).backward()
        Cube.apply(x).backward()
        (first, where), (second, _) = Cube.seen
        self.assertEqual(where, torch.device(device))
        self.assertEqual(first, second)
        self.assertNotEqual(first, threading.get_ident())
        self.assertEqual(x.grad.item(), 24)

    @onlyAccelerator
    def test_backward_runs_on_the_stream_of_the_forward_call(self, device):
        side = torch.Stream(device)
        streams = []

        class Recorder(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                streams.append(torch.accelerator.current_stream(x.device))
                return x * 2

            @staticmethod
            def backward(ctx, gradient):
                streams.append(torch.accelerator.current_stream(gradient.device))
                return gradient * 2

        x = torch.ones(1000, device=device, requires_grad=True)
        side.wait_stream(torch.accelerator.current_stream(device))
        with side:
            y = Recorder.apply(x).sum()
        torch.accelerator.current_stream(device).wait_stream(side)
        y.backward()
        self.assertEqual(x.grad.sum().item(), 2000)
        self.assertEqual(streams, [side, side])

    @onlyAccelerator
    def test_gradients_can_be_read_without_waiting_after_side_streams(self, device):
        for _ in range(10):
            x = torch.full((5000,), 3.0, device=device, requires_grad=True)
            parts = []
            for index in range(3):
                stream = torch.Stream(device)
                stream.wait_stream(torch.accelerator.current_stream(device))
                with stream:
                    parts.append((x.pow(2) * (index + 1)).sum())
                torch.accelerator.current_stream(device).wait_stream(stream)
            (parts[0] + parts[1] + parts[2]).backward()
            self.assertEqual(x.grad, torch.full((5000,), 36.0))

    @onlyAccelerator
    @deviceCountAtLeast(2)
    def test_one_graph_over_several_devices(self, devices):
        first, second = devices[:2]
        x, y = self.leaf(first, 2.0), self.leaf(second, 3.0)
        current = torch.accelerator.current_device_index()
        z = (x.to(second) * y).to(first) * x + (y.cpu() * 2).to(first)
        z.backward()
        self.assertEqual((x.grad.item(), y.grad.item()), (12.0, 6.0))
        self.assertEqual((str(x.grad.device), str(y.grad.device)), (first, second))
        self.assertEqual(torch.accelerator.current_device_index(), current)

    @onlyAccelerator
    @deviceCountAtLeast(2)
    def test_every_device_has_its_thread_and_is_current_in_it(self, devices):
        places = []

        class Place(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x.clone()

            @staticmethod
            def backward(ctx, gradient):
                places.append((threading.get_ident(), gradient.device.index, torch.accelerator.current_device_index()))
                return gradient

        leaves = [self.leaf(device, 1.0) for device in devices[:2]]
        sum(Place.apply(leaf).cpu() for leaf in leaves).backward()
        self.assertEqual([index for _, index, _ in places], [index for _, _, index in places])
        self.assertEqual(len({thread for thread, _, _ in places}), 2)

    @onlyAccelerator
    @deviceCountAtLeast(2)
    def test_a_gradient_of_another_device_is_refused(self, devices):
        x = self.leaf(devices[0], 1.0)
        with self.assertRaisesRegex(RuntimeError, "(?i)device"):
            x.grad = torch.ones(1, dtype=torch.float64, device=devices[1])
        with self.assertRaisesRegex(RuntimeError, "(?i)device"):
            (x * 2).backward(torch.ones(1, dtype=torch.float64, device=devices[1]))
        with self.assertRaisesRegex(RuntimeError, "(?i)device"):
            (x * 2).backward(torch.ones(1, dtype=torch.float64))

    @dtypes(torch.float32)
    def test_accumulation_keeps_the_layout_of_the_tensor(self, device, dtype):
        x = torch.rand(2, 3, 4, 5, dtype=dtype, device=device).to(memory_format=torch.channels_last).requires_grad_()
        (x * torch.rand(2, 3, 4, 5, device=device)).sum().backward()
        self.assertEqual(x.grad.stride(), x.stride())
        pointer = x.grad.data_ptr()
        x.sum().backward()
        self.assertEqual(x.grad.data_ptr(), pointer)


instantiate_device_type_tests(TestAutogradEngine, globals())

if __name__ == "__main__":
    run_tests()
