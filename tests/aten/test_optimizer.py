"""Optimizers in their three forms (loop, foreach, fused), foreach operators, and gradient clipping, against the CPU.

Needs the built extension.
"""

import copy

import pytest
import torch
from parity import assert_like, check, counted

import torch_openreg  # noqa: F401  (registers the device)

OPTIMIZERS = {
    "SGD": lambda p, **o: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01, **o),
    "Adam": lambda p, **o: torch.optim.Adam(p, lr=0.1, amsgrad=True, **o),
    "AdamW": lambda p, **o: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1, **o),
    "Adagrad": lambda p, **o: torch.optim.Adagrad(p, lr=0.1, **o),
    "Adadelta": lambda p, **o: torch.optim.Adadelta(p, lr=0.5, **o),
    "Adamax": lambda p, **o: torch.optim.Adamax(p, lr=0.1, **o),
    "NAdam": lambda p, **o: torch.optim.NAdam(p, lr=0.1, **o),
    "RAdam": lambda p, **o: torch.optim.RAdam(p, lr=0.1, **o),
    "RMSprop": lambda p, **o: torch.optim.RMSprop(p, lr=0.05, momentum=0.5, centered=True, **o),
    "Rprop": lambda p, **o: torch.optim.Rprop(p, lr=0.05, **o),
    "ASGD": lambda p, **o: torch.optim.ASGD(p, lr=0.1, **o),
    "Adafactor": lambda p, **o: torch.optim.Adafactor(p, lr=0.1, **o),
}
FUSED = ["SGD", "Adam", "AdamW", "Adagrad"]


def train(make, place, dtype=torch.float32, steps=5):
    """The parameters after some steps on a fixed problem."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).to(dtype)
    x, y = torch.randn(8, 3, dtype=dtype), torch.randn(8, 1, dtype=dtype)
    model, x, y = model.to(place), x.to(place), y.to(place)
    optimizer = make(model.parameters())
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
    return [p.detach() for p in model.parameters()]


@pytest.mark.parametrize("form", ["loop", "foreach"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_takes_the_cpus_steps(name, form, device):
    make = lambda p: OPTIMIZERS[name](p, foreach=form == "foreach")  # noqa: E731
    want = train(make, "cpu", torch.float64)
    assert_like(train(make, device, torch.float64), want, device, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", FUSED)
def test_a_fused_optimizer_takes_the_cpus_steps(name, device):
    make = lambda p: OPTIMIZERS[name](p, fused=True)  # noqa: E731
    try:
        want = train(make, "cpu")
    except RuntimeError as error:
        pytest.skip(f"this torch has no fused {name} on the CPU: {error}")
    assert_like(train(make, device), want, device, rtol=1e-5, atol=1e-6)


def test_closures_and_schedules(device):
    def run(place):
        torch.manual_seed(0)
        w = torch.nn.Parameter(torch.randn(4, dtype=torch.float64).to(place))
        optimizer = torch.optim.LBFGS([w], lr=0.5, max_iter=5, line_search_fn="strong_wolfe")

        def closure():
            optimizer.zero_grad()
            loss = (w.pow(4) - w).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        sgd = torch.optim.SGD([w], lr=0.1)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, 5)
        for _ in range(3):
            closure()
            sgd.step()
            schedule.step()
        return w.detach()

    torch.testing.assert_close(run(device).cpu(), run("cpu"))


def test_a_capturable_optimizer_keeps_its_step_on_the_device(device):
    w = torch.nn.Parameter(torch.ones(3, device=device))
    optimizer = torch.optim.Adam([w], lr=torch.tensor(0.1, device=device), capturable=True, foreach=True)
    w.grad = torch.ones(3, device=device)
    optimizer.step()
    assert optimizer.state[w]["step"].device == device and optimizer.state[w]["step"].item() == 1
    torch.testing.assert_close(w.detach().cpu(), torch.full((3,), 0.9), rtol=1e-5, atol=1e-5)


def test_the_state_travels(device):
    w = torch.nn.Parameter(torch.ones(3, device=device))
    optimizer = torch.optim.AdamW([w], lr=0.1)
    w.grad = torch.ones(3, device=device)
    optimizer.step()
    twin_w = torch.nn.Parameter(w.detach().cpu().clone())
    twin = torch.optim.AdamW([twin_w], lr=0.1)
    twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert twin.state[twin_w]["exp_avg"].device.type == "cpu"
    for parameter, opt in ((w, optimizer), (twin_w, twin)):
        parameter.grad = torch.full_like(parameter, 2.0)
        opt.step()
    torch.testing.assert_close(w.detach().cpu(), twin_w.detach())


def test_parameters_replaced_by_to_are_not_those_of_an_earlier_optimizer(device):
    model = torch.nn.Linear(2, 1)
    before = list(model.parameters())
    model.to(device)
    assert all(a is not b for a, b in zip(before, model.parameters()))
    torch.__future__.set_overwrite_module_params_on_conversion(False)


FOREACH = {
    "add": lambda a, b: torch._foreach_add(a, b),
    "add number": lambda a, b: torch._foreach_add(a, 2.5),
    "add numbers": lambda a, b: torch._foreach_add(a, [1.0, 2.0, 3.0]),
    "add tensor": lambda a, b: torch._foreach_add(a, torch.tensor(2.0)),
    "mul": lambda a, b: torch._foreach_mul(a, b),
    "div number": lambda a, b: torch._foreach_div(a, 3.0),
    "sub alpha": lambda a, b: torch._foreach_sub(a, b, alpha=2),
    "sqrt": lambda a, b: torch._foreach_sqrt(torch._foreach_abs(a)),
    "lerp": lambda a, b: torch._foreach_lerp(a, b, 0.3),
    "addcmul": lambda a, b: torch._foreach_addcmul(a, b, b, 0.5),
    "addcdiv": lambda a, b: torch._foreach_addcdiv(a, b, torch._foreach_add(torch._foreach_abs(b), 1.0), 0.5),
    "norm": lambda a, b: torch._foreach_norm(a),
    "norm inf": lambda a, b: torch._foreach_norm(a, float("inf")),
    "pow": lambda a, b: torch._foreach_pow(torch._foreach_abs(a), 1.5),
    "maximum": lambda a, b: torch._foreach_maximum(a, b),
    "clamp": lambda a, b: torch._foreach_clamp_min(a, 0.1),
    "neg": lambda a, b: torch._foreach_neg(a),
    "exp": lambda a, b: torch._foreach_exp(a),
    "sign": lambda a, b: torch._foreach_sign(a),
    "reciprocal": lambda a, b: torch._foreach_reciprocal(a),
    "add in place": lambda a, b: (torch._foreach_add_(a, b), a)[1],
    "mul in place": lambda a, b: (torch._foreach_mul_(a, 2), a)[1],
    "addcdiv in place": lambda a, b: (torch._foreach_addcdiv_(a, b, [t.abs() + 1 for t in b], -0.1), a)[1],
    "lerp in place": lambda a, b: (torch._foreach_lerp_(a, b, 0.1), a)[1],
    "zero": lambda a, b: (torch._foreach_zero_(a), a)[1],
    "copy": lambda a, b: (torch._foreach_copy_(a, b), a)[1],
    "clipped": lambda a, b: torch.nn.utils.clip_grads_with_norm_(a, 1.0, torch.tensor(4.0, device=a[0].device)),
}


@pytest.mark.parametrize("name", FOREACH)
def test_foreach_operators(name, device):
    for shapes in (((3,), (2, 4), ()), ((5, 5), (0,), (1,))):
        a, b = ([torch.randn(shape) for shape in shapes] for _ in range(2))
        for _ in range(2):
            check(lambda a, b: FOREACH[name](list(a), list(b)), a, b, device=device)


def test_foreach_lists_may_be_strided_and_of_several_dtypes(device):
    a = [torch.randn(4, 3).t(), torch.randn(6, dtype=torch.float64)[::2], torch.arange(4)]
    check(lambda a: torch._foreach_add(a, 1), a, device=device)
    check(lambda a: torch._foreach_mul(a, a), a, device=device)
    with pytest.raises(RuntimeError):
        torch._foreach_add([torch.ones(2, device=device)], [torch.ones(2, device=device)] * 2)


@pytest.mark.parametrize("foreach", [True, False])
def test_clipping(foreach, device):
    def clip(x):
        parameters = [torch.nn.Parameter(x), torch.nn.Parameter(x * 2)]
        for parameter in parameters:
            parameter.grad = parameter.detach() * 3
        total = torch.nn.utils.clip_grad_norm_(parameters, 1.0, foreach=foreach)
        torch.nn.utils.clip_grad_value_(parameters, 0.2, foreach=foreach)
        return total, [p.grad for p in parameters]

    check(clip, torch.randn(5), device=device)


def test_foreach_calls_on_the_engine_are_one_call(device):
    a = [torch.ones(3, dtype=torch.half, device=device) for _ in range(10)]
    torch._foreach_add_(a, 1.0)
    with counted() as ways:
        torch._foreach_add_(a, 1.0)
        assert ways("aten::_foreach_add_.Scalar") == {"engine": 1} and len(torch.openreg.op_stats()) == 1
    assert a[9].tolist() == [3, 3, 3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Adam", {}),
        ("Adam", {"weight_decay": 0.1, "amsgrad": True}),
        ("AdamW", {"weight_decay": 0.1}),
        ("AdamW", {"maximize": True, "amsgrad": True}),
        ("SGD", {}),
        ("SGD", {"weight_decay": 0.1, "maximize": True}),
        ("SGD", {"momentum": 0.9, "dampening": 0.2}),
        ("SGD", {"momentum": 0.9, "nesterov": True}),
    ],
    ids=str,
)
def test_fused_optimizers_have_a_kernel_with_the_values_of_the_cpu(name, options, dtype):
    generator = torch.Generator().manual_seed(0)
    sizes = [(7, 5), (11,), (), (0,)]
    start = [torch.randn(size, generator=generator, dtype=dtype) for size in sizes]
    gradients = [[torch.randn(size, generator=generator, dtype=dtype) for size in sizes] for _ in range(4)]
    outcomes = []
    for device in ("cpu", "openreg"):
        parameters = [tensor.clone().to(device).requires_grad_() for tensor in start]
        optimizer = getattr(torch.optim, name)(parameters, lr=0.05, fused=True, **options)
        torch.openreg.reset_op_stats()
        for step in gradients:
            for parameter, gradient in zip(parameters, step):
                parameter.grad = gradient.to(device)
            optimizer.step()
        outcomes.append([parameter.detach().cpu() for parameter in parameters])
    counts = torch.openreg.op_stats()[f"aten::_fused_{name.lower()}_"]
    assert (counts["native"], counts["engine"]) == (4, 0)
    for mine, expected in zip(*reversed(outcomes)):
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-6)


def test_a_fused_step_on_a_strided_parameter_takes_the_engine():
    outcomes = []
    for device in ("cpu", "openreg"):
        parameter = torch.arange(8.0, device=device)[::2].requires_grad_()
        optimizer = torch.optim.SGD([parameter], lr=0.5, fused=True)
        parameter.grad = torch.ones(8, device=device)[::2]
        torch.openreg.reset_op_stats()
        optimizer.step()
        outcomes.append(parameter.detach().cpu())
    assert torch.equal(*outcomes)
    assert torch.openreg.op_stats()["aten::_fused_sgd_"]["engine"] == 1


@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize("name", ["_fused_adam_", "_fused_adamw_", "_fused_sgd_"])
def test_a_fused_step_on_infinite_numbers_and_nan_is_the_cpus(name, decay):
    """Each list has 16 elements, one of which is infinite or NaN in one of the operands: the others, and the places of NaN, are the CPU's."""
    inf, nan = float("inf"), float("nan")

    def operand(first):
        values = torch.linspace(0.5, 2, 16)
        values[first : first + 3] = torch.tensor([inf, -inf if first < 6 else inf, nan])
        return values

    def run(device, option):
        parameter, grad, average, square, largest = ([operand(3 * i).to(device)] for i in range(5))
        if name == "_fused_sgd_":
            momentum, nesterov, first_step = option
            torch._fused_sgd_(parameter, grad, average if momentum else [], weight_decay=decay, momentum=momentum, lr=0.1, dampening=0.0,
                              nesterov=nesterov, maximize=False, is_first_step=first_step)
        else:
            step = [torch.tensor(3.0, device=device)]
            getattr(torch, name)(parameter, grad, average, square, largest if option else [], step, lr=0.1, beta1=0.9, beta2=0.99,
                                 weight_decay=decay, eps=1e-8, amsgrad=option, maximize=False)
        return [tensor.cpu() for tensor in parameter + average + square + largest]

    options = [(0.0, False, False), (0.9, False, False), (0.9, False, True), (0.9, True, True)] if name == "_fused_sgd_" else [False, True]
    for option in options:
        for got, want in zip(run("openreg", option), run("cpu", option)):
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6, equal_nan=True, msg=f"{option}: {got} instead of {want}")


def test_the_sanitizer_sees_what_a_fused_step_reads():
    torch.openreg.synchronize()
    zeros, empty = (lambda: torch.zeros(16, device="openreg")), (lambda: torch.empty(16, device="openreg"))
    step = [torch.ones((), device="openreg")]

    def adam(*operands):
        torch._fused_adam_(*([tensor] for tensor in operands), [], step, lr=0.1, beta1=0.9, beta2=0.99, weight_decay=0.0, eps=1e-8,
                           amsgrad=False, maximize=False)

    def sgd(parameter, grad, buffer, first_step):
        torch._fused_sgd_([parameter], [grad], [buffer], weight_decay=0.0, momentum=0.9, lr=0.1, dampening=0.0, nesterov=False, maximize=False,
                          is_first_step=first_step)

    def kinds(function, *operands):
        with torch.openreg.sanitizer.collect("init") as report:
            function(*(make() if callable(make) else make for make in operands))
        return report.kinds

    assert kinds(adam, zeros, zeros, zeros, zeros) == [] == kinds(sgd, zeros, zeros, zeros, False)
    assert kinds(sgd, zeros, zeros, empty, True) == []  # the first step writes the momentum
    of_columns = lambda: torch.zeros(16, 2, device="openreg")[:, 0]  # noqa: E731  # not for the fused kernel
    assert kinds(sgd, of_columns, zeros, empty, True) == []
    assert kinds(sgd, of_columns, zeros, empty, False) == ["init"]
    for place in range(4):
        assert kinds(adam, *(empty if i == place else zeros for i in range(4))) == ["init"], place
    for place in range(3):
        assert kinds(sgd, *(empty if i == place else zeros for i in range(3)), False) == ["init"], place
