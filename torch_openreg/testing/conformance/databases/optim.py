"""`optim_db`: every optimizer in every implementation, some steps on the device against the same steps on the CPU.

A check builds the same parameters and gradients on both sides, steps, and compares parameters after every step, the
state, and what the steps returned. Where the CPU has no such implementation (foreach by default, capturable), the CPU
takes the plain loop: it is the definition of the others. See Note [Optimizer state].
"""

import copy
import io
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.optim.optimizer import _get_capturable_supported_devices
from torch.testing._internal.common_optimizers import OptimizerErrorEnum, optim_db

from .. import samples as sampling
from ..calls import CPU, CpuCannot

# Note [Optimizer state]
# Scalars of the state (step counts, products of momenta) live on the CPU or on the parameter's device, as the flags of
# the group say; all else lives with its parameter. Capturable optimizers keep as tensors what others keep as numbers.
# So 0-dim state is compared by value, the rest of the state as results are: device, dtype, shape, strides, values.

PREFIX = "optim."
STEPS = 3
SHAPES = ((4, 5), (7,), (2, 3, 2), (), (0, 3))
# Muon takes matrices only, Adafactor divides by the number of elements, LBFGS needs views of its gradients.
OWN_SHAPES = {"Muon": ((4, 5), (6, 3), (5, 5)), "Adafactor": ((4, 5), (7,), (2, 3, 2), (1,)), "LBFGS": ((4, 5), (7,), ())}
ALL_DTYPES = ("float32", "float64", "bfloat16", "float16", "complex64", "complex128")
OTHER_DTYPE = {torch.float32: torch.float64, torch.float64: torch.float32,
               torch.complex64: torch.complex128, torch.complex128: torch.complex64}  # fmt: skip
# The CPU's fused SGD leaves the momentum of 16-bit parameters undefined from the second step on (torch 2.13).
UNDEFINED_ON_CPU = {("SGD", "fused"): ("bfloat16", "float16")}
FEW_BITS = {torch.float16: (2**-7, 2**-7), torch.bfloat16: (2**-4, 2**-4)}
# Newton-Schulz iterations run in bfloat16, so two correct ones are some of its units apart, times the learning rate.
WIDER = {"Muon": {torch.float32: (2e-2, 2e-4), torch.float64: (2e-2, 2e-4)}}
# A capturable step computes bias corrections in the dtype of its step tensor, the CPU's loop in double precision.
CAPTURABLE = {torch.float32: (2e-5, 2e-5), torch.float64: (2e-5, 2e-5),
              torch.complex64: (2e-5, 2e-5), torch.complex128: (2e-5, 2e-5)}  # fmt: skip


@dataclass(frozen=True)
class Configuration:
    """One sample: what the constructor gets, and how the steps differ from plain ones."""

    what: str
    kwargs: dict[str, Any]
    reference: dict[str, Any] | None = None  # the CPU's kwargs where they differ
    on_device: bool = False  # tensors among the kwargs live on the parameter's device, else on the CPU
    scaled: bool = False  # grad_scale and found_inf are set, as GradScaler does
    schedulers: tuple = ()
    error: Any = None  # an ErrorOptimizerInput
    shapes: tuple = SHAPES
    transposed: bool = True  # a further parameter whose memory is transposed
    dtype: torch.dtype = torch.float32
    seed: int = 0
    device: torch.device = CPU

    def on(self, device: torch.device) -> "Configuration":
        return replace(self, device=device)

    def summary(self) -> str:
        return f"{self.what}: {', '.join(f'{key}={value}' for key, value in self.kwargs.items())}"

    def arguments(self, side) -> dict:
        """The constructor's keyword arguments on this side, copies of this call's own."""
        chosen = self.reference if side.is_reference and self.reference is not None else self.kwargs
        return sampling.copy_value(chosen, self.device if self.on_device else CPU)

    def parameters(self) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        found = [self.values(shape, generator) for shape in self.shapes]
        if self.transposed:
            found.append(self.values((3, 4), generator).t())
        return [sampling.copy_value(value, self.device).requires_grad_() for value in found]

    def values(self, shape, generator) -> torch.Tensor:
        """Random values on the CPU, the same for every device."""
        wide = torch.complex128 if self.dtype.is_complex else torch.float64
        return torch.randn(shape, dtype=wide, generator=generator).to(self.dtype)

    def like(self, parameters, seed: int) -> list[torch.Tensor]:
        """Random tensors like the parameters, on their devices."""
        generator = torch.Generator().manual_seed(self.seed * 31 + seed)
        return [sampling.copy_value(self.values(p.shape, generator), p.device).to(p.dtype) for p in parameters]

    def set_gradients(self, parameters, step: int, sparse: bool) -> None:
        """New gradients. In the second step the second parameter has none."""
        for parameter, gradient in zip(parameters, self.like(parameters, step)):
            parameter.grad = gradient
        if step == 1:
            parameters[1].grad = None
        if sparse:
            sparsify(parameters)

    def closure(self, parameters, optimizer, sparse: bool):
        """A loss as step() takes it: a quadratic with its minimum away from the start."""
        targets = self.like(parameters, 7)

        def loss():
            optimizer.zero_grad()
            value = sum((parameter - target).abs().square().sum() for parameter, target in zip(parameters, targets))
            value.backward()
            if sparse:
                sparsify(parameters)
            return value

        return loss


def sparsify(parameters) -> None:
    """Makes gradients sparse COO tensors with every other row missing. 0-dim and empty parameters get none."""
    for parameter in parameters:
        if parameter.dim() == 0 or parameter.numel() == 0:
            parameter.grad = None
        elif parameter.grad is not None:
            dense = parameter.grad.clone()
            dense[::2] = 0
            parameter.grad = dense.to_sparse(1)


# -- the database --


def entries() -> dict:
    return {PREFIX + info.name: info for info in optim_db}


def dtypes(info, mode: str) -> list[str]:
    check = CHECKS[mode]
    if not check.fits(info):
        return []
    undefined = UNDEFINED_ON_CPU.get((info.name, mode), ())
    names = (name for name in check.dtypes if name not in undefined)
    return sorted(name for name in names if info.supports_complex or not name.startswith("complex"))


def tolerances(info, mode: str):
    wider = CAPTURABLE if mode == "capturable" else {}
    return tuple({**FEW_BITS, **wider, **WIDER.get(info.name, {})}.items())


def draw(info, dtype: torch.dtype, mode: str, seed: int) -> list[Configuration]:
    sampling.seed_everything(seed)
    own = OWN_SHAPES.get(info.name, SHAPES)
    return [
        replace(found, dtype=dtype, seed=seed + number, shapes=own, transposed=info.name != "LBFGS")
        for number, found in enumerate(CHECKS[mode].configurations(info, dtype))
    ]


# -- configurations --


def _given(info, device: str = "cpu") -> list[tuple[str, dict]]:
    """The entry's own, which for "cuda" include the capturable ones."""
    return [(found.desc, found.kwargs) for found in info.optim_inputs_func(device=device)]


def _plain(info, kwargs: dict) -> dict:
    """The kwargs with every implementation flag that the optimizer has switched off."""
    return {**kwargs, **{flag: False for flag in info.supported_impls}}


def _implementation(info, flag: str | None) -> list[Configuration]:
    on = {} if flag is None else {flag: True}
    return [Configuration(what, {**_plain(info, kwargs), **on}) for what, kwargs in _given(info)]


def _default(info, dtype) -> list[Configuration]:
    return [Configuration(what, kwargs, _plain(info, kwargs)) for what, kwargs in _given(info)]


def _forloop(info, dtype) -> list[Configuration]:
    return _implementation(info, None)


def _foreach(info, dtype) -> list[Configuration]:
    return _implementation(info, "foreach")


def _fused(info, dtype) -> list[Configuration]:
    plain = _implementation(info, "fused")
    return plain + [replace(found, what=f"{found.what}, scaled gradients", scaled=True) for found in plain]


def _differentiable(info, dtype) -> list[Configuration]:
    return _implementation(info, "differentiable")


def _capturable(info, dtype) -> list[Configuration]:
    found = []
    for what, kwargs in _given(info, "cuda"):
        if not kwargs.get("capturable"):
            continue
        plain = {**_plain(info, kwargs), "capturable": False}
        for foreach in (False, True):
            here = {**_plain(info, kwargs), "foreach": foreach}
            found.append(Configuration(f"{what}, foreach={foreach}", here, plain))
            if any(isinstance(value, torch.Tensor) for value in kwargs.values()):
                found.append(Configuration(f"{what}, on the device, foreach={foreach}", here, plain, on_device=True))
    return found


def _tensor_lr(info, dtype) -> list[Configuration]:
    found = []
    for flag in (None, *info.supported_impls):
        if flag == "fused" and dtype.is_complex:
            continue
        for lr in (torch.tensor(0.01), torch.tensor([0.01])):
            kwargs = {**_plain(info, {}), "lr": lr, **({flag: True} if flag else {})}
            for on_device in (False, True):
                what = f"{flag or 'loop'}, lr of shape {tuple(lr.shape)} on the {'device' if on_device else 'CPU'}"
                found.append(Configuration(what, kwargs, on_device=on_device))
    return found


def _groups(info, dtype) -> list[Configuration]:
    rate = {"lr": 0.02}
    scheduled = [Configuration(f"schedulers {number}", rate, _plain(info, rate), schedulers=tuple(makers))
                 for number, makers in enumerate(info.scheduler_inputs)]  # fmt: skip
    return [Configuration("groups", {}, _plain(info, {})), *scheduled]


def _each_implementation(info, dtype) -> list[Configuration]:
    """The first configurations of every implementation that can be stepped and stored."""
    found = _implementation(info, None)[:3]
    for flag in info.supported_impls:
        if flag == "foreach" or (flag == "fused" and not dtype.is_complex and "cpu" in info.supports_fused_on):
            found += _implementation(info, flag)[:3]
    return found


def _sparse(info, dtype) -> list[Configuration]:
    given = _given(info)
    if not info.only_supports_sparse_grads:
        given = [("as the entry says", info.metadata_for_sparse[0]), ("default", {}), ("maximize", {"maximize": True})]
    found = [Configuration(what, kwargs, _plain(info, kwargs)) for what, kwargs in given]
    if "foreach" in info.supported_impls:
        found.append(Configuration("foreach", {"foreach": True}))
    return found


def _errors(info, dtype) -> list[Configuration]:
    given = info.optim_error_inputs_func(device="cpu", dtype=dtype)
    return [Configuration(e.optimizer_error_input.desc, e.optimizer_error_input.kwargs, error=e) for e in given]


# -- what both sides do --


def take_steps(info, given, optimizer, parameters, steps) -> dict:
    """Steps with new gradients, or with a closure where the optimizer insists on one."""
    returned, seen = [], []
    for step in steps:
        if info.step_requires_closure:
            returned.append(optimizer.step(given.closure(parameters, optimizer, False)).detach())
        else:
            given.set_gradients(parameters, step, info.only_supports_sparse_grads)
            if given.scaled:
                optimizer.grad_scale = torch.tensor(4.0, device=given.device)
                optimizer.found_inf = torch.tensor(float(step == 1), device=given.device)
            returned.append(optimizer.step())
        seen.append(snapshot(parameters))
    return {"parameters": seen, "state": state_of(optimizer, parameters), "step()": returned}


def snapshot(tensors) -> list[torch.Tensor]:
    return [tensor.detach().clone() for tensor in tensors]


def state_of(optimizer, parameters) -> list:
    return [readable(optimizer.state.get(parameter, {})) for parameter in parameters]


def readable(value):
    """State for a comparison: numbers and 0-dim tensors as float, see Note [Optimizer state].

    Those of 16 bits stay tensors: they belong to a 0-dim parameter, and have its tolerance.
    """
    if isinstance(value, torch.Tensor):
        number = value.dim() == 0 and not value.is_complex() and value.dtype not in FEW_BITS
        return float(value) if number else value.detach()
    if isinstance(value, dict):
        return {key: readable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [readable(item) for item in value]
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


# -- checks --


def run_steps(case, errors=False) -> None:
    """Some steps, the whole state afterwards. errors: a configuration that the CPU refuses must be refused."""

    def form(given, side):
        parameters = given.parameters()
        optimizer = case.info.optim_cls(parameters, **given.arguments(side))
        return take_steps(case.info, given, optimizer, parameters, range(STEPS))

    case.agree(form, errors=errors)


def run_tensor_lr(case) -> None:
    run_steps(case, errors=True)


def run_capturable(case) -> None:
    kind = case.under_test.device.type
    if kind not in _get_capturable_supported_devices():
        raise CpuCannot(f"torch.optim has no capturable optimizers for {kind!r}")
    run_steps(case)


def run_differentiable(case) -> None:
    """Gradients of the parameters after a step, with respect to parameters, gradients and state before it."""

    def form(given, side):
        leaves = given.parameters()
        warm = snapshot(leaves)
        first = case.info.optim_cls(warm, **given.arguments(side))
        given.set_gradients(warm, 0, False)
        first.step()
        gradients = [gradient.requires_grad_() for gradient in given.like(leaves, 2)]
        parameters = [leaf.clone() for leaf in leaves]
        second = case.info.optim_cls(parameters, **given.arguments(side))
        inputs = [*leaves, *gradients]
        for old, parameter, gradient in zip(warm, parameters, gradients):
            parameter.grad = gradient
            for key, value in first.state[old].items():
                if isinstance(value, torch.Tensor):
                    value = value.detach().clone()
                    if value.dim() and value.dtype == given.dtype:
                        inputs.append(value.requires_grad_())
                        value = value.clone()
                second.state[parameter][key] = value
        second.step()
        side.stage("backward")
        found = torch.autograd.grad(parameters, inputs, given.like(leaves, 3), allow_unused=True)
        return {"parameters": snapshot(parameters), "gradient": ["none" if g is None else g for g in found]}

    case.agree(form, strides=False, errors=False)


def run_groups(case) -> None:
    """Two groups with options of their own or schedulers, and a group that joins later."""

    def form(given, side):
        parameters = given.parameters()
        first, last = parameters[:2], parameters[-1]
        groups = [{"params": first, "lr": 0.02, "weight_decay": 0.1}, {"params": parameters[2:-1]}]
        if case.info.only_supports_sparse_grads:
            groups[0] = {"params": first, "lr": 0.02, "maximize": True}
        optimizer = case.info.optim_cls(parameters[:-1] if given.schedulers else groups, **given.arguments(side))
        schedulers = [make(optimizer) for make in given.schedulers]
        before = take_steps(case.info, given, optimizer, parameters, range(2))
        for scheduler in schedulers:
            plateau = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
            scheduler.step(*([parameters[0].detach().abs().sum()] if plateau else []))
        optimizer.add_param_group({"params": [last], "lr": 0.05})
        after = take_steps(case.info, given, optimizer, parameters, range(2, 4))
        rates = [float(group["lr"]) for group in optimizer.param_groups]
        return {"before": before, "after": after, "learning rates": rates}

    case.agree(form, errors=False)


def run_state_dict(case) -> None:
    """Two steps, then two more in a fresh optimizer that loads the state of the first.

    The state travels as a dict, through a file, to the CPU, from the CPU, and in a deepcopy.
    """

    def start(given, side):
        parameters = given.parameters()
        optimizer = case.info.optim_cls(parameters, **given.arguments(side))
        take_steps(case.info, given, optimizer, parameters, range(2))
        return optimizer, snapshot(parameters)

    def resume(given, side, parameters, state):
        parameters = [sampling.copy_value(p.cpu(), given.device).requires_grad_() for p in parameters]
        optimizer = case.info.optim_cls(parameters, **given.arguments(side))
        optimizer.load_state_dict(copy.deepcopy(state))  # it may keep the tensors of its argument
        return take_steps(case.info, given, optimizer, parameters, range(2, 4))

    def through_file(state, device):
        buffer = io.BytesIO()
        torch.save(state, buffer)
        buffer.seek(0)
        return torch.load(buffer, map_location=device, weights_only=True)

    def form(given, side):
        optimizer, parameters = start(given, side)
        state = optimizer.state_dict()
        twin = copy.deepcopy(optimizer)
        side.stage("load_state_dict")
        found = {"deepcopy": readable(twin.state_dict()["state"]), "resumed": resume(given, side, parameters, state)}
        side.stage("torch.save and torch.load")
        stored = through_file(state, given.device)
        found |= {"file": readable(stored["state"]), "resumed from a file": resume(given, side, parameters, stored)}
        side.stage("load_state_dict across devices")
        at_home = given.on(CPU)
        elsewhere = resume(at_home, side, parameters, through_file(state, CPU))
        found["resumed on the CPU"] = as_numbers(elsewhere)
        stranger, parameters = start(at_home, side)
        found["resumed from the CPU"] = resume(given, side, parameters, stranger.state_dict())
        return found

    case.agree(form, errors=False)


def as_numbers(value):
    """Tensors that belong on the CPU as their device's name and their values."""
    if isinstance(value, torch.Tensor):
        return [str(value.device), str(value.dtype), value.tolist()]
    if isinstance(value, dict):
        return {key: as_numbers(item) for key, item in value.items()}
    return [as_numbers(item) for item in value] if isinstance(value, (list, tuple)) else value


def run_closure(case) -> None:
    """step(closure) with a loss that runs backward on the device."""

    def form(given, side):
        parameters = given.parameters()
        optimizer = case.info.optim_cls(parameters, **given.arguments(side))
        closure = given.closure(parameters, optimizer, case.info.only_supports_sparse_grads)
        trace = [(optimizer.step(closure).detach(), snapshot(parameters)) for _ in range(STEPS)]
        return {"loss and parameters": trace, "state": state_of(optimizer, parameters)}

    case.agree(form, errors=False)


def run_sparse(case) -> None:
    """Sparse gradients of dense parameters."""

    def form(given, side):
        parameters = [parameter for parameter in given.parameters() if parameter.dim() and parameter.numel()]
        optimizer = case.info.optim_cls(parameters, **given.arguments(side))
        trace = []
        for step in range(STEPS):
            given.set_gradients(parameters, step, True)
            optimizer.step()
            trace.append(snapshot(parameters))
        return {"parameters": trace, "state": state_of(optimizer, parameters)}

    case.agree(form, errors=False)


def run_mixed(case) -> None:
    """One optimizer over parameters of two devices and two dtypes."""

    def form(given, side):
        other = replace(given, dtype=OTHER_DTYPE[given.dtype])
        here = given.parameters() + other.parameters()
        there = given.on(CPU).parameters() + other.on(CPU).parameters()
        parameters = [parameter for pair in zip(here, there) for parameter in pair]
        optimizer = case.info.optim_cls(parameters, **given.arguments(side))
        trace = [take_steps(case.info, given, optimizer, parameters, [step]) for step in range(STEPS)]

        def half(first):
            return [(t["parameters"][0][first::2], t["state"][first::2]) for t in trace]

        return {"on the device": half(0), "on the CPU": as_numbers(half(1))}

    case.agree(form, errors=False)


def run_errors(case) -> None:
    """What PyTorch's entry says must be refused is refused, in the CPU's words; warnings count too."""

    def form(given, side):
        wrong = given.error.optimizer_error_input
        parameters = given.parameters() if wrong.params is None else _moved(wrong.params, given.device)
        optimizer = case.info.optim_cls(parameters, **given.arguments(side))
        if given.error.error_on == OptimizerErrorEnum.STEP_ERROR:
            optimizer.step()
        return {"outcome": "not refused"}

    case.agree(form, warn=True)


def _moved(value, device, seen=None):
    """Parameters of an error input on a device: each tensor once, with its gradient, a Parameter where it was one."""
    seen = {} if seen is None else seen
    if isinstance(value, torch.Tensor):
        if id(value) not in seen:
            twin = sampling.copy_value(value, device)
            if isinstance(value, torch.nn.Parameter):
                twin = torch.nn.Parameter(twin.detach(), value.requires_grad)
            if value.grad is not None:
                twin.grad = sampling.copy_value(value.grad, device)
            seen[id(value)] = twin
        return seen[id(value)]
    if isinstance(value, dict):
        return {key: _moved(item, device, seen) for key, item in value.items()}
    return type(value)(_moved(item, device, seen) for item in value) if isinstance(value, (list, tuple)) else value


@dataclass(frozen=True)
class Check:
    """A mode: its configurations, what runs one, the optimizers it fits, and the dtypes of its parameters."""

    configurations: Any
    run: Any
    fits: Any = lambda info: True
    dtypes: tuple[str, ...] = ALL_DTYPES


REAL = ALL_DTYPES[:4]
WIDE = ("float32", "float64", "complex64", "complex128")
CHECKS = {
    "default": Check(_default, run_steps),
    "forloop": Check(_forloop, run_steps, lambda info: bool(info.supported_impls)),
    "foreach": Check(_foreach, run_steps, lambda info: "foreach" in info.supported_impls),
    "fused": Check(_fused, run_steps, lambda info: "cpu" in info.supports_fused_on, REAL),
    "capturable": Check(_capturable, run_capturable, lambda info: info.has_capturable_arg),
    "differentiable": Check(_differentiable, run_differentiable, lambda info: "differentiable" in info.supported_impls, WIDE),
    "tensor_lr": Check(_tensor_lr, run_tensor_lr, dtypes=WIDE),
    "groups": Check(_groups, run_groups, lambda info: info.supports_param_groups, WIDE),
    "state_dict": Check(_each_implementation, run_state_dict, dtypes=WIDE),
    "closure": Check(_default, run_closure),
    "sparse": Check(_sparse, run_sparse, lambda info: info.supports_sparse or info.only_supports_sparse_grads, WIDE[:2]),
    "mixed": Check(_each_implementation, run_mixed,
                   lambda info: info.supports_multiple_devices and not info.step_requires_closure, WIDE),  # fmt: skip
    "errors": Check(_errors, run_errors, lambda info: info.optim_error_inputs_func is not None, WIDE[:2]),
}
RUNNERS = {mode: check.run for mode, check in CHECKS.items()}
