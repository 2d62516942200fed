"""Traps that real backends fell into, one test each: where scalars live, which device a call lands on, what printing needs,
and that nothing is dropped without a word.

Values are compared with the CPU's. Needs the built extension.
"""

import re

import pytest
import torch
from parity import check, check_gradients

import torch_openreg  # noqa: F401  (registers the device)

DTYPES = [
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex32, torch.complex64, torch.complex128,
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64,
    torch.float8_e4m3fn, torch.float8_e5m2,
]


# ---- Scalars beside tensors ---------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.int64, torch.int32, torch.uint8], ids=str)
def test_a_number_on_the_left_keeps_the_result_on_the_device(dtype, device):
    x = torch.tensor([1, 2, 3, 7]).to(dtype)
    for function in (
        lambda x: 1 - x,
        lambda x: 2.5 - x,
        lambda x: torch.rsub(x, 1),
        lambda x: torch.rsub(x, 3, alpha=2),
        lambda x: 1 // x,
        lambda x: 7 // x,
        lambda x: 7 % x,
        lambda x: 2**x,
        lambda x: 1 / x,
        lambda x: 3 < x,
        lambda x: torch.remainder(9, x),
        lambda x: torch.where(x > 1, x, 0),
        lambda x: torch.where(x > 1, 1.5, x),
    ):
        check(function, x, device=device)


@pytest.mark.parametrize("scalar", [torch.tensor(2.5), torch.tensor(2), torch.tensor(True), torch.tensor(2.5, dtype=torch.float64)], ids=str)
def test_a_cpu_scalar_beside_a_device_tensor_keeps_the_result_on_the_device(scalar, device):
    x = torch.tensor([[1.0, 2.0], [4.0, 8.0]])
    for function in (
        lambda x: scalar - x if scalar.dtype != torch.bool else scalar + x,
        lambda x: x * scalar,
        lambda x: torch.div(scalar, x),
        lambda x: torch.pow(scalar, x) if scalar.dtype != torch.bool else x,
        lambda x: x.add(scalar),
        lambda x: torch.where(x > 2, scalar, x),
        lambda x: torch.maximum(x, x.new_tensor(3)),
        lambda x: x.clone().mul_(scalar),
        lambda x: x.masked_fill(x > 2, scalar),
        lambda x: x.clone().fill_(scalar),
    ):
        check(function, x, device=device)


def test_wrapped_numbers_do_not_change_the_dtype(device):
    for dtype in (torch.float16, torch.bfloat16, torch.int8, torch.int32, torch.complex64):
        x = torch.tensor([1, 2, 3]).to(dtype)
        for function in (lambda x: x + 2, lambda x: x * 2.5, lambda x: x + True, lambda x: torch.mul(x, 3), lambda x: x[0] + 2, lambda x: x + 1j):
            check(function, x, device=device)
    scalar = torch.tensor(2.0, dtype=torch.float64)
    check(lambda x: x + scalar.item(), torch.tensor([1], dtype=torch.int16), device=device)
    check(lambda x, y: x + y, torch.ones(3, dtype=torch.float16), torch.tensor(2.0, dtype=torch.float64), device=device)


def test_a_number_from_a_tensor_is_a_number(device):
    x = torch.tensor([3.5, -2.0], device=device)
    assert float(x[0]) == 3.5 and int(x[1]) == -2 and bool(x[0]) and x[0].item() == 3.5
    assert complex(torch.tensor(1 + 2j, device=device)) == 1 + 2j
    assert [10, 20, 30][torch.tensor(1, device=device)] == 20
    assert x.tolist() == [3.5, -2.0] and list(x) == [3.5, -2.0] and 3.5 in x
    assert f"{x[0]:.2f}" == "3.50"


# ---- Which device a call lands on ---------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda device: torch.arange(5, device=device),
        lambda device: torch.arange(2, 9, device=device),
        lambda device: torch.arange(1, 2, 0.25, device=device),
        lambda device: torch.arange(5, 0, -2, dtype=torch.float16, device=device),
        lambda device: torch.arange(3.5, dtype=torch.int32, device=device),
        lambda device: torch.linspace(0, 1, 7, device=device),
        lambda device: torch.logspace(0, 2, 5, device=device),
        lambda device: torch.eye(3, 4, device=device),
        lambda device: torch.full((2, 3), 2.5, device=device),
        lambda device: torch.full((2,), 1 + 2j, device=device),
        lambda device: torch.tril_indices(3, 3, device=device),
        lambda device: torch.triu_indices(3, 4, 1, device=device),
        lambda device: torch.hann_window(8, device=device),
        lambda device: torch.tensor([[1, 2], [3, 4]], device=device),
        lambda device: torch.as_tensor([1.0, 2.0], device=device),
        lambda device: torch.scalar_tensor(3, device=device),
        lambda device: torch.zeros(2, 0, device=device),
        lambda device: torch.ones(3, dtype=torch.bool, device=device),
        lambda device: torch.vander(torch.arange(3, device=device)),
        lambda device: torch.cartesian_prod(torch.arange(2, device=device), torch.arange(3, device=device)),
        lambda device: torch.combinations(torch.arange(4, device=device)),
    ],
)
def test_a_factory_fills_its_result_on_the_named_device(make, device):
    check(make, "DEVICE", device=device)


def test_a_factory_with_out_writes_it(device):
    out = torch.full((5,), -1.0, device=device)
    torch.arange(5, out=out)
    assert out.tolist() == [0, 1, 2, 3, 4]
    out = torch.empty(3, device=device)
    torch.linspace(0, 1, 3, out=out)
    assert out.tolist() == [0, 0.5, 1]


@pytest.mark.parametrize("name", ["openreg:7", "openreg:2"])
def test_a_device_that_does_not_exist_is_an_error_everywhere(name):
    x = torch.ones(2, device="openreg")
    for call in (
        lambda: torch.empty(2, device=name),
        lambda: torch.zeros(2, device=name),
        lambda: torch.arange(3, device=name),
        lambda: torch.randn(3, device=name),
        lambda: torch.tensor([1], device=name),
        lambda: x.to(name),
        lambda: x.new_empty(2, device=name),
        lambda: torch.ones(2).to(name),
        lambda: torch.empty_strided((2,), (1,), device=name),
        lambda: torch.Stream(device=name),
        lambda: torch.openreg.set_device(name),
        lambda: torch.openreg.device(name).__enter__(),
        lambda: torch.openreg.synchronize(name),
        lambda: torch.openreg.memory_allocated(name),
    ):
        with pytest.raises((RuntimeError, AssertionError, ValueError), match=r"(?i)openreg:?\s?\d|device"):
            call()
    assert torch.openreg.current_device() == 0


def test_results_stay_on_the_device_of_their_operands_whichever_is_current(device):
    with torch.openreg.device(1 - device.index):
        x = torch.ones(3, device=device)
        for result in (x + 1, x.sum(), x.topk(2)[0], torch.stack([x, x]), x.nonzero(), torch.randn_like(x), x.new_zeros(2), x.sort()[1]):
            assert result.device == device
        assert torch.openreg.current_device() == 1 - device.index


def test_the_current_device_is_restored_after_an_exception(device):
    with pytest.raises(RuntimeError):
        torch.ones(2, 3, device=device) @ torch.ones(2, 3, device=device)
    assert torch.openreg.current_device() == 0
    with pytest.raises(ZeroDivisionError), torch.openreg.device(device):
        1 / 0
    assert torch.openreg.current_device() == 0


# ---- Gradients ----------------------------------------------------------------


def test_gradients_are_not_dropped(device):
    x = torch.randn(3, 4, requires_grad=True)
    w = torch.randn(4, 2, requires_grad=True)
    b = torch.randn(2, requires_grad=True)
    check_gradients(lambda x, w, b: torch.relu(x @ w + b).sum(), x, w, b, device=device)
    check_gradients(lambda x: (1 - x).pow(2).mean(), x, device=device)
    check_gradients(lambda x: x[x > 0], x, device=device)
    check_gradients(lambda x: x[[0, 2]], x, device=device)
    check_gradients(lambda x: torch.cat([x, x.exp()]), x, device=device)
    check_gradients(lambda x: x.to(torch.float64), x, device=device)
    check_gradients(lambda x: torch.nn.functional.layer_norm(x, (4,)), x, device=device)


def test_gradients_cross_devices_and_the_host(device):
    x = torch.randn(4, requires_grad=True)
    y = x.to(device)
    z = y.to(torch.device("openreg", 1 - device.index)) * 2
    (z.cpu() * 3).sum().backward()
    assert x.grad.device.type == "cpu" and x.grad.tolist() == [6.0] * 4


def test_double_backward_and_hooks(device):
    x = torch.tensor([1.0, 2.0], device=device, requires_grad=True)
    (gradient,) = torch.autograd.grad((x**3).sum(), x, create_graph=True)
    gradient.sum().backward()
    assert x.grad.tolist() == [6.0, 12.0]
    seen = []
    y = torch.ones(2, device=device, requires_grad=True)
    y.register_hook(lambda grad: seen.append(grad.device))
    (y * 2).sum().backward()
    assert seen == [device]


def test_functional_transforms_reach_the_device(device):
    x = torch.randn(5, 3)
    check(lambda x: torch.func.grad(lambda v: (v**2).sum())(x), x, device=device)
    check(lambda x: torch.func.vmap(torch.dot)(x, x), x, device=device)
    check(lambda x: torch.func.jacrev(torch.sin)(x[0]), x, device=device)
    check(lambda x: torch.func.jvp(torch.sin, (x,), (x,)), x, device=device)


# ---- Printing, splitting, streams -----------------------------------------------


def text(tensor):
    """What a tensor prints as, without the device and line ends."""
    return re.sub(r",\s*device='openreg:\d'", "", repr(tensor)).split()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_prints_as_on_the_cpu(dtype, device):
    values = torch.tensor([[0, 1, 2], [3, 100, 7]])
    x = values.to(torch.float32).to(dtype) if dtype in (torch.complex32, torch.float8_e4m3fn, torch.float8_e5m2) else values.to(dtype)
    for view in (lambda t: t, lambda t: t.t(), lambda t: t[:, 1:], lambda t: t[0, 0], lambda t: t[:0]):
        assert f"device='{device}'" in repr(view(x.to(device)))
        assert text(view(x.to(device))) == text(view(x))


def test_special_values_and_long_tensors_print_as_on_the_cpu(device):
    for x in (torch.tensor([float("nan"), float("inf"), -1e-8, 1e10]), torch.arange(2000.0), torch.randn(40, 40), torch.tensor([1 + 2j, 3j]).conj()):
        assert text(x.to(device)) == text(x)


def test_a_printed_gradient_function_and_parameter(device):
    x = torch.nn.Parameter(torch.ones(2, device=device))
    assert repr(x).startswith("Parameter containing:") and "openreg" in repr(x)
    assert "grad_fn=<MulBackward0>" in repr(x * 2)


def test_tensor_split_with_tensor_indices(device):
    x = torch.arange(20.0).reshape(10, 2)
    for indices in (torch.tensor([2, 5]), torch.tensor(3)):
        check(lambda x: torch.tensor_split(x, indices), x, device=device)
        check(lambda x, i: torch.tensor_split(x, i), x, indices, device=device)
    check_gradients(lambda x: torch.tensor_split(x, torch.tensor([4]))[1] * 2, x.requires_grad_(), device=device)


def test_record_stream_takes_streams_of_the_device(device):
    stream = torch.openreg.Stream(device)
    x = torch.ones(10, device=device)
    stream.wait_stream(torch.openreg.current_stream(device))
    with torch.openreg.stream(stream):
        y = x + 1
    x.record_stream(stream)
    del x
    stream.synchronize()
    assert y.sum().item() == 20


def test_native_handles_are_distinct_and_stable(device):
    first, second = torch.openreg.Stream(device), torch.openreg.Stream(device)
    handles = [first.native_handle, second.native_handle, torch.openreg.default_stream(device).native_handle]
    values = [handle if isinstance(handle, int) else id(handle) for handle in handles]
    assert len(set(values)) == 3 and all(values) and first.native_handle == handles[0]


# ---- What cannot run says so ----------------------------------------------------


def test_a_custom_operator_without_a_kernel_names_itself(device):
    with torch.library._scoped_library("openreg_traps", "FRAGMENT") as library:
        library.define("lonely(Tensor x) -> Tensor")
        with pytest.raises(NotImplementedError, match="openreg_traps::lonely"):
            torch.ops.openreg_traps.lonely(torch.ones(2, device=device))
        library.impl("lonely", lambda x: x + 1, "CPU")
        with pytest.raises(NotImplementedError, match="openreg_traps::lonely"):
            torch.ops.openreg_traps.lonely(torch.ones(2, device=device))
        library.impl("lonely", lambda x: x + 1, "PrivateUse1")
        assert torch.ops.openreg_traps.lonely(torch.ones(2, device=device)).tolist() == [2, 2]


def test_an_operator_that_was_removed_is_not_taken_for_another(device):
    """torch.library gives the memory of what it destroys to what is defined next."""
    x = torch.ones(2, device=device)
    for i in range(8):
        library = torch.library.Library("removed", "FRAGMENT")
        library.define(f"old{i}(Tensor x) -> Tensor")
        with pytest.raises(NotImplementedError, match=f"removed::old{i}'"):
            getattr(torch.ops.removed, f"old{i}")(x)
        library._destroy()
        library = torch.library.Library("aten", "FRAGMENT")
        library.define(f"new{i}(Tensor x, int k) -> (Tensor, Tensor)")
        library.impl(f"new{i}", lambda x, k: (x + k, x - k), "CPU")
        assert [t.tolist() for t in getattr(torch.ops.aten, f"new{i}")(x, i)] == [[1 + i] * 2, [1 - i] * 2]
        library._destroy()


def test_an_operator_of_core_without_a_cpu_kernel_names_itself(device):
    x = torch.ones(4, 4, device=device)
    with pytest.raises(NotImplementedError, match="_cudnn_init_dropout_state|_thnn_fused|miopen|cudnn"):
        torch.ops.aten.cudnn_grid_sampler(x[None, None], x[None, :, :, None].expand(1, 4, 4, 2))


# ---- Memory that is never left as it was --------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.complex64, torch.int64, torch.uint8, torch.bool], ids=str)
def test_deterministic_mode_fills_new_memory(dtype, device):
    torch.use_deterministic_algorithms(True)
    try:
        made = [
            (lambda d: torch.empty(7, dtype=dtype, device=d)),
            (lambda d: torch.empty_strided((2, 3), (3, 1), dtype=dtype, device=d)),
            (lambda d: torch.empty_like(torch.zeros(3, dtype=dtype, device=d))),
            (lambda d: torch.zeros(2, dtype=dtype, device=d).new_empty(5)),
            (lambda d: torch.zeros(2, dtype=dtype, device=d).resize_(6)),
        ]
        for make in made:
            check(make, "DEVICE", device=device, rtol=0, atol=0)
    finally:
        torch.use_deterministic_algorithms(False)
