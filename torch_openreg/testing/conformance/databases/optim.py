"""`optim_db`: every optimizer in every implementation, some steps on the device against the same steps on the CPU.

A check builds the same parameters and gradients on both sides, steps, and compares parameters after every step, the
state, and what the step returned. Where the CPU has no such implementation (foreach by default, capturable), the CPU
takes the plain loop: it is the definition of the others. See Note [Optimizer state].
"""

import copy
import io
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.optim.optimizer import _get_capturable_supported_devices
from torch.testing._internal.common_optimizers import OptimizerErrorEnum, optim_db

from .. import samples as sampling
from ..compare import Mismatch, Rules, compare
from ..reference import cpu_answers, cpu_cannot, outcome_of, same_outcome

# Note [Optimizer state]
# Scalars of the state (step counts, products of momenta) live on the CPU or on the parameter's device, as the flags of
# the group say; all else lives with its parameter. Capturable optimizers keep as tensors what others keep as numbers.
# So 0-dim state is compared by value, the rest of the state as results are: device, dtype, shape, strides, values.

PREFIX = "optim."
STEPS = 3
LOOP = {"foreach": False, "fused": False, "differentiable": False}
# Newton-Schulz iterations run in bfloat16, so two correct ones are some of its units apart, times the learning rate.
WIDER = {"Muon": {torch.float32: (2e-2, 2e-4), torch.float64: (2e-2, 2e-4)}}
# A capturable step computes bias corrections in the dtype of its step tensor, the CPU's loop in double precision.
CAPTURABLE = {torch.float32: (2e-5, 2e-5)}


@dataclass
class Case:
    """One configuration: what the constructor gets on each side, and how the steps differ from the plain ones."""

    what: str
    kwargs: dict[str, Any]
    reference: dict[str, Any] | None = None  # the CPU's kwargs where they differ
    lr_on: str = "cpu"  # where a tensor among the kwargs lives: "cpu", or "device" for the parameter's
    scaled: bool = False  # grad_scale and found_inf are set, as GradScaler does
    schedulers: tuple = ()
    error: Any = None  # an ErrorOptimizerInput
    dtype: torch.dtype = torch.float32
    seed: int = 0
    shapes: tuple = field(default=())

    def summary(self) -> str:
        return f"{self.what}: {', '.join(f'{k}={v}' for k, v in self.kwargs.items())}"


def entries() -> dict:
    return {PREFIX + info.name: info for info in optim_db}


def dtypes(info, mode: str) -> list[str]:
    if not RUNNERS[mode].fits(info):
        return []
    names = ["float32", "float64", "bfloat16", "float16"]
    if info.supports_complex and mode not in ("fused", "sparse", "errors"):
        names += ["complex64", "complex128"]
    if mode in ("sparse", "mixed", "errors", "differentiable"):
        names = [name for name in names if name in ("float32", "float64", "complex64", "complex128")]
    return sorted(names)


def tolerances(info, mode: str):
    """The least tolerances by dtype."""
    few_bits = {torch.float16: (2**-7, 2**-7), torch.bfloat16: (2**-4, 2**-4)}
    wider = CAPTURABLE if mode == "capturable" else {}
    return tuple({**few_bits, **wider, **WIDER.get(info.name, {})}.items())


def draw(info, dtype: torch.dtype, mode: str, seed: int) -> list[Case]:
    """The configurations of a row, each with a seed of its own for parameters and gradients."""
    sampling.seed_everything(seed)
    cases = RUNNERS[mode].cases(info, dtype)
    for number, case in enumerate(cases):
        case.dtype, case.seed = dtype, seed + number
        case.shapes = ((4, 5), (6, 3), (5, 5)) if info.name == "Muon" else ((4, 5), (7,), (2, 3, 2), (), (0, 3))
    return cases


# -- configurations --


def _configurations(info, device: str = "cpu") -> list[tuple[str, dict]]:
    return [(c.desc, c.kwargs) for c in info.optim_inputs_func(device=device)]


def _plain(info, kwargs: dict) -> dict:
    """The kwargs with every implementation flag that the optimizer has switched off."""
    return {**kwargs, **{flag: False for flag in info.supported_impls}}


def _implementation(info, flag: str | None) -> list[Case]:
    found = []
    for what, kwargs in _configurations(info):
        plain = _plain(info, kwargs)
        found.append(Case(what, plain if flag is None else {**plain, flag: True}))
    return found


def _default_cases(info, dtype) -> list[Case]:
    return [Case(what, kwargs, reference=_plain(info, kwargs)) for what, kwargs in _configurations(info)]


def _forloop_cases(info, dtype) -> list[Case]:
    return _implementation(info, None)


def _foreach_cases(info, dtype) -> list[Case]:
    return _implementation(info, "foreach")


def _fused_cases(info, dtype) -> list[Case]:
    plain = _implementation(info, "fused")
    scaled = [Case(case.what + ", scaled gradients", case.kwargs, scaled=True) for case in plain]
    return plain + scaled


def _differentiable_cases(info, dtype) -> list[Case]:
    return _implementation(info, "differentiable")


def _capturable_cases(info, dtype) -> list[Case]:
    found = []
    for what, kwargs in _configurations(info, "cuda"):
        if not kwargs.get("capturable"):
            continue
        for foreach in (False, True):
            here = {**_plain(info, kwargs), "foreach": foreach}
            there = {**_plain(info, kwargs), "capturable": False}
            found.append(Case(f"{what}, foreach={foreach}", here, there))
            if any(isinstance(value, torch.Tensor) for value in kwargs.values()):
                found.append(Case(f"{what}, on the device, foreach={foreach}", here, there, lr_on="device"))
    return found


def _tensor_lr_cases(info, dtype) -> list[Case]:
    found = []
    for flag in (None, *info.supported_impls):
        for lr in (torch.tensor(0.01), torch.tensor([0.01])):
            for place in ("cpu", "device"):
                kwargs = {**_plain(info, {}), "lr": lr, **({flag: True} if flag else {})}
                found.append(Case(f"{flag or 'loop'}, lr of shape {tuple(lr.shape)} on {place}", kwargs, lr_on=place))
    return found


def _scheduler_cases(info, dtype) -> list[Case]:
    return [Case(f"scheduler list {number}", {"lr": 0.02}, _plain(info, {"lr": 0.02}), schedulers=tuple(makers))
            for number, makers in enumerate(info.scheduler_inputs)]  # fmt: skip


def _group_cases(info, dtype) -> list[Case]:
    return [Case("groups", {}, _plain(info, {})), *_scheduler_cases(info, dtype)]


def _state_cases(info, dtype) -> list[Case]:
    found = []
    for flag in (None, *(f for f in info.supported_impls if f != "differentiable")):
        found += _implementation(info, flag)[:3]
    return found


def _sparse_cases(info, dtype) -> list[Case]:
    configurations = _configurations(info)
    if not info.only_supports_sparse_grads:
        kwargs = info.metadata_for_sparse[0]
        configurations = [("sparse", kwargs), ("sparse, default lr", {}), ("sparse, maximize", {"maximize": True})]
    found = [Case(what, kwargs, _plain(info, kwargs)) for what, kwargs in configurations]
    if "foreach" in info.supported_impls:
        found.append(Case("foreach", {"foreach": True}))
    return found


def _error_cases(info, dtype) -> list[Case]:
    return [Case(e.optimizer_error_input.desc, e.optimizer_error_input.kwargs, error=e)
            for e in info.optim_error_inputs_func(device="cpu", dtype=dtype)]  # fmt: skip


# -- one side --


def _generator(case: Case) -> torch.Generator:
    return torch.Generator().manual_seed(case.seed)


def _values(shape, dtype, generator) -> torch.Tensor:
    wide = torch.complex128 if dtype.is_complex else torch.float64
    return torch.randn(shape, dtype=wide, generator=generator).to(dtype)


def _parameters(case: Case, device) -> list[torch.Tensor]:
    """Leaves with the case's shapes, and one whose memory is transposed."""
    generator = _generator(case)
    found = [_values(shape, case.dtype, generator) for shape in case.shapes]
    found.append(_values((3, 4), case.dtype, generator).t())
    return [sampling.copy_value(value, device).requires_grad_() for value in found]


def _kwargs(case: Case, device, reference: bool) -> dict:
    chosen = case.reference if reference and case.reference is not None else case.kwargs
    place = device if case.lr_on == "device" else torch.device("cpu")
    return sampling.copy_value(chosen, place)


def _set_gradients(case: Case, parameters, step: int) -> None:
    """Gradients that depend on the case, the step and the position. In the second step one parameter has none."""
    generator = torch.Generator().manual_seed(case.seed * 31 + step)
    for place, parameter in enumerate(parameters):
        gradient = _values(parameter.shape, case.dtype, generator)
        if step == 1 and place == 1:
            parameter.grad = None
        else:
            parameter.grad = sampling.copy_value(gradient, parameter.device)


def _snapshot(tensors) -> list[torch.Tensor]:
    return [tensor.detach().clone() for tensor in tensors]


def _state(optimizer, parameters) -> list:
    return [_readable(optimizer.state.get(parameter, {})) for parameter in parameters]


def _readable(value):
    """State as compare() takes it: 0-dim tensors and numbers as float, see Note [Optimizer state]."""
    if isinstance(value, torch.Tensor):
        return float(value) if value.dim() == 0 and not value.is_complex() else value.detach()
    if isinstance(value, dict):
        return {key: _readable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_readable(item) for item in value]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    return value


def _steps(info, case, device, reference, count=STEPS, optimizer=None, parameters=None, first=0):
    """Steps on one side; returns (optimizer, parameters, what compare() compares)."""
    if optimizer is None:
        parameters = _parameters(case, device)
        optimizer = info.optim_cls(parameters, **_kwargs(case, device, reference))
    trace = []
    for step in range(first, first + count):
        closure = _loss_of(case, parameters, optimizer)
        if info.step_requires_closure:
            trace.append(_readable(optimizer.step(closure)))
        else:
            _set_gradients(case, parameters, step)
            if info.only_supports_sparse_grads:
                _sparsify(parameters)
            if case.scaled:
                optimizer.grad_scale = torch.tensor(4.0, device=device)
                optimizer.found_inf = torch.tensor(float(step == 1), device=device)
            trace.append(optimizer.step())
        trace.append(_snapshot(parameters))
    return optimizer, parameters, [trace, _state(optimizer, parameters)]


def _sparsify(parameters) -> None:
    """Gradients as sparse COO tensors, one row of two missing. 0-dim and empty parameters get none."""
    for parameter in parameters:
        if parameter.dim() == 0 or parameter.numel() == 0:
            parameter.grad = None
        elif parameter.grad is not None:
            dense = parameter.grad.clone()
            dense[::2] = 0
            parameter.grad = dense.to_sparse(1)


def _loss_of(case, parameters, optimizer):
    """A closure as optimizers take it: a quadratic with its minimum away from the start."""
    generator = torch.Generator().manual_seed(case.seed + 7)
    targets = [sampling.copy_value(_values(p.shape, case.dtype, generator), p.device) for p in parameters]

    def closure():
        optimizer.zero_grad()
        loss = sum((parameter - target).abs().square().sum() for parameter, target in zip(parameters, targets))
        loss.backward()
        return loss

    return closure


# -- checks --


def _both(info, case, under_test, floors, stage, side) -> None:
    """Runs side(device, is the reference) on the CPU and on the device, and compares."""
    expected, _ = cpu_answers(lambda _: side(torch.device("cpu"), True), under_test)
    stage("step")
    actual = side(under_test.device, False)
    stage("copy back")
    compare(expected, actual, Rules(under_test.device, floors=floors))
    stage("synchronize")
    under_test.synchronize()


def _step_check(info, case, under_test, floors, seed, stage) -> None:
    _both(info, case, under_test, floors, stage, lambda device, ref: _steps(info, case, device, ref)[2])


def _capturable_check(info, case, under_test, floors, seed, stage) -> None:
    if under_test.device.type not in _get_capturable_supported_devices():
        with cpu_cannot(under_test):
            raise RuntimeError(f"torch.optim has no capturable optimizers for {under_test.device.type!r}")
    _step_check(info, case, under_test, floors, seed, stage)


def _differentiable_check(info, case, under_test, floors, seed, stage) -> None:
    """Gradients of the parameters after a step, with respect to parameters, gradients and state before it."""

    def side(device, reference):
        leaves = _parameters(case, device)
        generator = torch.Generator().manual_seed(case.seed + 3)

        def drawn(like):
            return sampling.copy_value(_values(like.shape, case.dtype, generator), device)

        warm = [leaf.detach().clone() for leaf in leaves]
        first = info.optim_cls(warm, **_kwargs(case, device, reference))
        for parameter in warm:
            parameter.grad = drawn(parameter)
        first.step()
        gradients = [drawn(leaf).requires_grad_() for leaf in leaves]
        cotangents = [drawn(leaf) for leaf in leaves]
        parameters = [leaf.clone() for leaf in leaves]
        second = info.optim_cls(parameters, **_kwargs(case, device, reference))
        inputs = [*leaves, *gradients]
        for old, parameter, gradient in zip(warm, parameters, gradients):
            parameter.grad = gradient
            for key, value in first.state[old].items():
                if isinstance(value, torch.Tensor):
                    value = value.detach().clone()
                    if value.dim() and value.dtype == case.dtype:
                        inputs.append(value.requires_grad_())
                        value = value.clone()
                second.state[parameter][key] = value
        second.step()
        flow = torch.autograd.grad(parameters, inputs, cotangents, allow_unused=True)
        return [_snapshot(parameters), ["none" if item is None else item for item in flow]]

    expected, _ = cpu_answers(lambda _: side(torch.device("cpu"), True), under_test)
    stage("step and backward")
    actual = side(under_test.device, False)
    stage("copy back")
    compare(expected, actual, Rules(under_test.device, strides=False, floors=floors))
    stage("synchronize")
    under_test.synchronize()


def _error_or_steps(info, case, under_test, floors, seed, stage) -> None:
    """As the plain check; where the CPU refuses the configuration, the device must refuse it in the same way."""
    refusal = outcome_of(lambda: _steps(info, case, torch.device("cpu"), True))
    if refusal.error is None:
        return _step_check(info, case, under_test, floors, seed, stage)
    stage("step")
    same_outcome(refusal, outcome_of(lambda: _steps(info, case, under_test.device, False)), under_test)


def _group_check(info, case, under_test, floors, seed, stage) -> None:
    """Two groups with options of their own and a third that joins later, or schedulers."""

    def side(device, reference):
        parameters = _parameters(case, device)
        kwargs = _kwargs(case, device, reference)
        options = {"lr": 0.02} if not info.only_supports_sparse_grads else {"lr": 0.02, "maximize": True}
        groups = [{"params": parameters[:2], **options}, {"params": parameters[2:-1]}]
        optimizer = info.optim_cls(groups if not case.schedulers else parameters[:-1], **kwargs)
        schedulers = [make(optimizer) for make in case.schedulers]
        first = _steps(info, case, device, reference, 2, optimizer, parameters)[2]
        for scheduler in schedulers:
            if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
                scheduler.step(parameters[0].detach().abs().sum())
            else:
                scheduler.step()
        optimizer.add_param_group({"params": [parameters[-1]], "lr": 0.05})
        second = _steps(info, case, device, reference, 2, optimizer, parameters, first=2)[2]
        rates = [[float(group["lr"]) for group in optimizer.param_groups], [s.get_last_lr() for s in schedulers]]
        return [first, second, rates]

    _both(info, case, under_test, floors, stage, side)


def _state_dict_check(info, case, under_test, floors, seed, stage) -> None:
    """Steps, goes on in a fresh optimizer from the state of the first, and ends as an uninterrupted run does.

    The state travels as a dict, through a file, from the CPU and back to it, and in a deepcopy.
    """

    def resume(state, device, reference, start):
        parameters = [sampling.copy_value(p, device).requires_grad_() for p in start]
        optimizer = info.optim_cls(parameters, **_kwargs(case, device, reference))
        optimizer.load_state_dict(copy.deepcopy(state))  # it may keep the tensors of its argument
        return _steps(info, case, device, reference, 2, optimizer, parameters, first=2)[2]

    def through_file(state, device):
        buffer = io.BytesIO()
        torch.save(state, buffer)
        buffer.seek(0)
        return torch.load(buffer, map_location=device, weights_only=True)

    cpu = torch.device("cpu")

    def start(device, reference):
        optimizer, parameters, _ = _steps(info, case, device, reference, 2)
        return optimizer, _snapshot(parameters), optimizer.state_dict()

    def on_cpu(_):
        _, parameters, state = start(cpu, True)
        return resume(state, cpu, True, parameters)

    expected, _ = cpu_answers(on_cpu, under_test)
    rules, at_home = Rules(under_test.device, floors=floors), Rules(cpu, floors=floors)
    stage("step")
    optimizer, parameters, state = start(under_test.device, False)
    stage("load_state_dict")
    compare(expected, resume(state, under_test.device, False, parameters), rules, "from state_dict")
    stage("torch.save and torch.load")
    stored = through_file(state, under_test.device)
    compare(_readable(state), _readable(stored), Rules(under_test.device), "file")
    compare(expected, resume(stored, under_test.device, False, parameters), rules, "from a file")
    stage("load_state_dict on the CPU")
    compare(expected, resume(through_file(state, cpu), cpu, True, [p.cpu() for p in parameters]), at_home, "on the CPU")
    stage("load_state_dict from the CPU")
    _, cpu_parameters, cpu_state = start(cpu, True)
    compare(expected, resume(cpu_state, under_test.device, False, cpu_parameters), rules, "from the CPU")
    stage("deepcopy")
    twin = copy.deepcopy(optimizer)
    compare(_readable(state), _readable(twin.state_dict()), Rules(under_test.device), "deepcopy")
    stage("synchronize")
    under_test.synchronize()


def _closure_check(info, case, under_test, floors, seed, stage) -> None:
    """step(closure) with a loss that runs backward on the device."""

    def side(device, reference):
        parameters = _parameters(case, device)
        optimizer = info.optim_cls(parameters, **_kwargs(case, device, reference))
        closure = _loss_of(case, parameters, optimizer)

        def sparse_closure():
            loss = closure()
            _sparsify(parameters)
            return loss

        trace = []
        for _ in range(STEPS):
            loss = optimizer.step(sparse_closure if info.only_supports_sparse_grads else closure)
            trace.append([loss.detach(), _snapshot(parameters)])
        return [trace, _state(optimizer, parameters)]

    _both(info, case, under_test, floors, stage, side)


def _sparse_check(info, case, under_test, floors, seed, stage) -> None:
    """Sparse gradients on dense parameters."""

    def side(device, reference):
        parameters = [p for p in _parameters(case, device) if p.dim() and p.numel()]
        optimizer = info.optim_cls(parameters, **_kwargs(case, device, reference))
        trace = []
        for step in range(STEPS):
            _set_gradients(case, parameters, step)
            _sparsify(parameters)
            optimizer.step()
            trace.append(_snapshot(parameters))
        return [trace, _state(optimizer, parameters)]

    _both(info, case, under_test, floors, stage, side)


def _mixed_check(info, case, under_test, floors, seed, stage) -> None:
    """One optimizer over parameters of two devices and two dtypes."""
    cpu = torch.device("cpu")
    other = {torch.float32: torch.float64, torch.float64: torch.float32,
             torch.complex64: torch.complex128, torch.complex128: torch.complex64}[case.dtype]  # fmt: skip

    def side(device, reference):
        parameters = []
        for dtype in (case.dtype, other):
            twin = Case(case.what, case.kwargs, dtype=dtype, seed=case.seed, shapes=case.shapes)
            parameters += _parameters(twin, device) + _parameters(twin, cpu)
        optimizer = info.optim_cls(parameters, **_kwargs(case, device, reference))
        trace = []
        for step in range(STEPS):
            generator = torch.Generator().manual_seed(case.seed + step)
            for parameter in parameters:
                parameter.grad = sampling.copy_value(_values(parameter.shape, parameter.dtype, generator), parameter.device)
            if info.only_supports_sparse_grads:
                _sparsify(parameters)
            optimizer.step()
            trace.append(_snapshot(parameters))
        return parameters, [trace, _state(optimizer, parameters)]

    (_, expected), _ = cpu_answers(lambda _: side(cpu, True), under_test)
    stage("step")
    parameters, actual = side(under_test.device, False)
    stage("copy back")
    half = len(parameters) // 4
    for place, parameter in enumerate(parameters):
        home = under_test.device if place // half % 2 == 0 else cpu
        rules = Rules(home, floors=floors)
        for step in range(STEPS):
            compare(expected[0][step][place], actual[0][step][place], rules, f"parameter[{place}] after step {step}")
        compare(expected[1][place], actual[1][place], rules, f"state of parameter[{place}]")
    stage("synchronize")
    under_test.synchronize()


def _error_check(info, case, under_test, floors, seed, stage) -> None:
    """What PyTorch's entry says must be refused is refused by both, in the same words."""

    def attempt(device):
        given = case.error.optimizer_error_input
        place = device if case.lr_on == "device" else torch.device("cpu")
        parameters = _parameters(case, device) if given.params is None else _move(given.params, device)
        optimizer = info.optim_cls(parameters, **sampling.copy_value(given.kwargs, place))
        if case.error.error_on == OptimizerErrorEnum.STEP_ERROR:
            optimizer.step()

    expected = outcome_of(lambda: attempt(torch.device("cpu")))
    if expected.error is None and not expected.warnings:
        raise Mismatch(f"the CPU does not refuse: {case.what}")
    stage("construct")
    same_outcome(expected, outcome_of(lambda: attempt(under_test.device)), under_test)
    stage("synchronize")
    under_test.synchronize()


def _move(params, device):
    """The parameters of an error input on a device: each tensor once, with its gradient, a Parameter where it was one."""
    moved: dict[int, torch.Tensor] = {}

    def one(tensor):
        if id(tensor) not in moved:
            twin = sampling.copy_value(tensor, device)
            if isinstance(tensor, torch.nn.Parameter):
                twin = torch.nn.Parameter(twin.detach(), tensor.requires_grad)
            if tensor.grad is not None:
                twin.grad = sampling.copy_value(tensor.grad, device)
            moved[id(tensor)] = twin
        return moved[id(tensor)]

    def every(value):
        if isinstance(value, torch.Tensor):
            return one(value)
        if isinstance(value, dict):
            return {key: every(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(every(item) for item in value)
        return value

    return every(params)


class Check:
    """A check: its configurations, the optimizers it fits, and how it runs one configuration."""

    def __init__(self, cases, run, fits=lambda info: True):
        self.cases, self.run, self.fits = cases, run, fits

    def __call__(self, *arguments) -> None:
        self.run(*arguments)


def _needs(flag):
    return lambda info: flag in info.supported_impls


def _steps_alone(info) -> bool:
    return not info.step_requires_closure


RUNNERS = {
    "default": Check(_default_cases, _step_check),
    "forloop": Check(_forloop_cases, _step_check, lambda info: bool(info.supported_impls)),
    "foreach": Check(_foreach_cases, _step_check, _needs("foreach")),
    "fused": Check(_fused_cases, _step_check, lambda info: "cpu" in info.supports_fused_on),
    "capturable": Check(_capturable_cases, _capturable_check, lambda info: info.has_capturable_arg),
    "differentiable": Check(_differentiable_cases, _differentiable_check, _needs("differentiable")),
    "tensor_lr": Check(_tensor_lr_cases, _error_or_steps),
    "groups": Check(_group_cases, _group_check, lambda info: info.supports_param_groups),
    "state_dict": Check(_state_cases, _state_dict_check),
    "closure": Check(_default_cases, _closure_check),
    "sparse": Check(_sparse_cases, _sparse_check, lambda info: info.supports_sparse or info.only_supports_sparse_grads),
    "mixed": Check(_state_cases, _mixed_check, lambda info: info.supports_multiple_devices and _steps_alone(info)),
    "errors": Check(_error_cases, _error_check, lambda info: info.optim_error_inputs_func is not None),
}
