"""`module_db`: every module of torch.nn, built and run on the device against the CPU.

A sample is a module's constructor arguments with inputs for one call, in train or eval mode. Both sides start from the
same parameters, which the CPU makes. Lazy modules become whole on the CPU first.
"""

import copy
import functools
import io
import pickle
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence
from torch.testing._internal.common_modules import ModuleErrorEnum, module_db
from torch.testing._internal.common_utils import noncontiguous_like

from .. import samples as sampling
from ..calls import CPU, CpuCannot
from ..compare import FEW_BITS, MORE_BITS
from ..modes import gradgrad, gradient

PREFIX = "module."
FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
DIFFERENTIATED = ("gradient", "gradgrad", "noncontiguous", "memory_format")
# Entries list the dtypes of gradcheck; modules run in these as well. What the CPU cannot run drops out sample by sample.
FURTHER_DTYPES = {"float16", "bfloat16"}


@dataclass(frozen=True)
class Built:
    """One sample on one side."""

    info: Any
    constructor: Any  # a FunctionInput
    call: Any  # a FunctionInput, or None
    what: str
    dtype: torch.dtype
    training: bool
    seed: int
    error: Any = None  # an ErrorModuleInput
    device: torch.device = CPU

    def on(self, device: torch.device) -> "Built":
        return replace(self, device=device)

    def summary(self) -> str:
        mode = "train" if self.training else "eval"
        given = f"args={self.constructor.args}, kwargs={self.constructor.kwargs}"
        return f"{self.what or 'default'}, {mode}: {self.info.name}({given})"

    def module(self, **changed) -> torch.nn.Module:
        """The module with its parameters, made on the CPU and moved.

        The parameters come from the sample's seed and leave the generator as it was: only a call that draws is random.
        """
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            args, kwargs = sampling.copy_value((self.constructor.args, self.constructor.kwargs), CPU)
            module = self.info.module_cls(*args, **{**kwargs, **changed}).to(self.dtype)
            if self.info.is_lazy:
                given = self.on(CPU).inputs()
                module(*given[0], **given[1])
        return module.to(self.device).train(self.training)

    def inputs(self) -> tuple[tuple, dict]:
        return copied((self.call.args, self.call.kwargs), self.device)


def copied(value, device):
    """As sampling.copy_value; the batch sizes of a packed sequence stay on the CPU, where they belong."""
    if isinstance(value, PackedSequence):
        data, *order = (None if t is None else sampling.copy_value(t, device) for t in (value.data, *value[2:]))
        return PackedSequence(data, value.batch_sizes.clone(), *order)
    if isinstance(value, (list, tuple)):
        return type(value)(copied(item, device) for item in value)
    if isinstance(value, dict):
        return {name: copied(item, device) for name, item in value.items()}
    return sampling.copy_value(value, device)


def readable(value):
    """Outputs as they are compared: packed sequences and output classes as lists."""
    if isinstance(value, PackedSequence):
        return [value.data, value.batch_sizes.tolist(), value.sorted_indices, value.unsorted_indices]
    if isinstance(value, (list, tuple)):
        return [readable(item) for item in value]
    return value


# -- the database --


@functools.cache
def entries() -> dict:
    return {PREFIX + info.name: info for info in module_db}


def dtypes(info, mode: str) -> list[str]:
    if mode == "errors" and info.module_error_inputs_func is None or mode == "gradgrad" and not info.supports_gradgrad:
        return []
    found = {str(dtype).removeprefix("torch.") for dtype in info.supported_dtypes("cpu")}
    if mode in ("forward", "gradient", "to"):
        found |= FURTHER_DTYPES
    if mode == "errors":
        found &= {"float32", "float64"}
    return sorted(found)


def tolerances(info, mode: str):
    units = 16 if mode in DIFFERENTIATED else 8
    few_bits = {dtype: (units * unit, units * unit) for dtype, unit in FEW_BITS.items()}
    # Second gradients of recurrent modules sum the rounding of every time step, and devices differ in their kernels.
    more_bits = {torch.float32: (1e-4, 1e-4)} if mode == "gradgrad" else {}
    if mode == "gradient":  # of several operators in a row: in small elements terms of the largest element's size cancel out
        more_bits = {dtype: (0.0, 0.0, 16 * unit) for dtype, unit in MORE_BITS.items()}
    return tuple({**few_bits, **more_bits}.items())


def draw(info, dtype: torch.dtype, mode: str, seed: int) -> list[Built]:
    sampling.seed_everything(seed)
    make = info.module_error_inputs_func if mode == "errors" else info.module_inputs_func
    found = []
    for training in (True, False) if info.train_and_eval_differ else (True,):
        made = make(info, device="cpu", dtype=dtype, requires_grad=mode in DIFFERENTIATED, training=training)
        for given in made:
            error = given if mode == "errors" else None
            given = given.module_error_input if error else given
            found.append(Built(info, given.constructor_input, given.forward_input, given.desc, dtype, training, seed, error))
    return found


# -- checks --


def call(module, inputs) -> dict:
    """Runs the module; what it returns and what it leaves in its buffers."""
    output = readable(module(*inputs[0], **inputs[1]))
    return {"output": output, "buffers": dict(module.named_buffers())}


def leaves_of(module, inputs) -> list[torch.Tensor]:
    given = [tensor for tensor in sampling.tensors(list(inputs)) if tensor.requires_grad]
    return [*{id(t): t for t in (*module.parameters(), *given) if t.requires_grad}.values()]


def floating(value) -> list[torch.Tensor]:
    found = [t for t in sampling.tensors(value) if t.is_floating_point() or t.is_complex()]
    found = [tensor for tensor in found if tensor.requires_grad]
    if not found:
        raise RuntimeError("no output requires a gradient")
    return found


def call_and_backward(case, module, inputs, side) -> dict:
    leaves = leaves_of(module, inputs)
    seen = call(module, inputs)
    outputs = floating(seen["output"])
    side.stage("backward")
    found = gradient.gradients(outputs, leaves, case.seed)
    return {**seen, "gradient": [gradient.missing(item) for item in found]}


def run_forward(case) -> None:
    def form(given, side):
        return call(given.module(), given.inputs())

    case.agree(form, errors=False)


def run_gradient(case) -> None:
    """Gradients of parameters and inputs."""

    def form(given, side):
        return call_and_backward(case, given.module(), given.inputs(), side)

    case.agree(form, strides=False, errors=False)


def run_gradgrad(case) -> None:
    def form(given, side):
        module, inputs = given.module(), given.inputs()
        outputs = floating(call(module, inputs)["output"])
        return {"second gradient": gradgrad.first_and_second(outputs, leaves_of(module, inputs), case.seed, side)[1]}

    case.agree(form, strides=False, errors=False)


def run_noncontiguous(case) -> None:
    """Inputs and parameters with gaps in memory."""

    def form(given, side):
        module, (args, kwargs) = given.module(), given.inputs()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.data = noncontiguous_like(parameter)
        return call_and_backward(case, module, (gapped(args), gapped(kwargs)), side)

    case.agree(form, strides=False, errors=False)


def gapped(value):
    if isinstance(value, PackedSequence):
        return value
    if isinstance(value, torch.Tensor):
        return noncontiguous_like(value.detach()).requires_grad_(value.requires_grad)
    if isinstance(value, (list, tuple)):
        return type(value)(gapped(item) for item in value)
    return {name: gapped(item) for name, item in value.items()} if isinstance(value, dict) else value


def _where(module) -> list[str]:
    """Name, kind, dtype, strides and flags of parameters and buffers."""
    named = [*module.named_parameters(), *module.named_buffers()]
    return [f"{name} {type(t).__name__} {t.dtype} {t.stride()} {t.requires_grad} {t.is_leaf}" for name, t in named]


def _takes(module_cls, argument: str) -> bool:
    """Whether the constructor has the argument; recurrent modules hand theirs on to a base class by **kwargs."""
    inits = [module_cls.__init__] + [torch.nn.RNNBase.__init__] * issubclass(module_cls, torch.nn.RNNBase)
    return any(argument in init.__code__.co_varnames for init in inits)


def run_to(case) -> None:
    """To the device with gradients, to another dtype there, to empty memory, and back."""

    def form(given, side):
        module = given.on(CPU).module()
        for parameter in module.parameters():
            parameter.grad = torch.full_like(parameter, 0.5)
        moved = module.to(given.device)
        gradients = [parameter.grad for parameter in moved.parameters()]
        there = {"parameters": dict(moved.named_parameters()), "gradients": gradients, "described": _where(moved)}
        twin = copy.deepcopy(moved).to(torch.float64 if not given.dtype.is_complex else torch.complex128)
        empty = copy.deepcopy(moved).to_empty(device=given.device)
        shapes = [f"{name} {tuple(tensor.shape)}" for name, tensor in empty.state_dict().items()]
        back = copy.deepcopy(moved).cpu()
        at_home = [f"{name} {t.device} {t.dtype} {t.tolist()}" for name, t in back.state_dict().items()]
        return {**there, "other dtype": dict(twin.state_dict()), "empty": shapes, "back": at_home}

    case.agree(form, errors=False)


def run_factory(case) -> None:
    """Built on the device, by the `device` argument where there is one and by the default device."""
    given = case.sample.constructor
    if any(isinstance(value, torch.nn.Module) for value in (*given.args, *given.kwargs.values())):
        raise CpuCannot("the constructor takes a module, which decides where its parameters live")

    def form(given, side):
        args, kwargs = sampling.copy_value((given.constructor.args, given.constructor.kwargs), given.device)
        with given.device:
            module = given.info.module_cls(*args, **kwargs)
        found = {"by default device": dict(module.state_dict())} if not given.info.is_lazy else {}
        if _takes(given.info.module_cls, "device"):
            module = given.info.module_cls(*args, **{**kwargs, "device": given.device, "dtype": given.dtype})
            found |= {"by argument": dict(module.state_dict())} if not given.info.is_lazy else {}
        return {**found, "described": _where(module) if not given.info.is_lazy else []}

    case.agree(form, errors=False)


def run_state_dict(case) -> None:
    """The state in a file, loaded onto the device, onto the CPU, and from the CPU onto the device; the module runs on."""

    def stored(state) -> io.BytesIO:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        buffer.seek(0)
        return buffer

    def form(given, side):
        first = given.module()
        fresh = replace(given, seed=given.seed + 99)
        side.stage("torch.save")
        buffer = stored(first.state_dict())
        side.stage("torch.load")
        second = fresh.module()
        second.load_state_dict(torch.load(buffer, weights_only=True))
        third = fresh.module()
        third.load_state_dict(torch.load(stored(given.on(CPU).module().state_dict()), weights_only=True))
        buffer.seek(0)
        at_home = torch.load(buffer, map_location="cpu", weights_only=True)
        numbers = [f"{name} {t.device} {t.dtype} {t.tolist()}" for name, t in at_home.items()]
        runs = [call(module, given.inputs()) for module in (second, third)]
        return {"from the device": runs[0], "from the CPU": runs[1], "on the CPU": numbers, "state": dict(second.state_dict())}

    case.agree(form, errors=False)


def run_copy(case) -> None:
    """deepcopy and pickle of a module on the device."""

    def form(given, side):
        module = given.module()
        twin = copy.deepcopy(module)
        side.stage("pickle")
        other = pickle.loads(pickle.dumps(module))
        return {"deepcopy": call(twin, given.inputs()), "pickle": call(other, given.inputs()), "state": dict(other.state_dict())}

    case.agree(form, errors=False)


def run_inplace(case) -> None:
    """With inplace=True: the result, the input afterwards and its version."""
    if not _takes(case.info.module_cls, "inplace"):
        raise CpuCannot(f"{case.info.name} has no argument `inplace`")

    def form(given, side):
        module, (args, kwargs) = given.module(inplace=True), given.inputs()
        first = next(sampling.tensors([args, kwargs]))
        version = first._version
        output = module(*args, **kwargs)
        return {"output": output, "input": first, "version": str(first._version - version), "same": output is first}

    case.agree(form, errors=False)


def run_memory_format(case) -> None:
    """channels_last inputs, modules and both: values, gradients and the strides of results."""
    if not any(t.dim() in FORMATS for t in sampling.tensors([case.sample.call.args, case.sample.call.kwargs])):
        raise CpuCannot("no input has four or five dimensions")

    def last(value):
        if isinstance(value, torch.Tensor) and value.dim() in FORMATS:
            return value.detach().contiguous(memory_format=FORMATS[value.dim()]).requires_grad_(value.requires_grad)
        if isinstance(value, (list, tuple)):
            return type(value)(last(item) for item in value)
        return {name: last(item) for name, item in value.items()} if isinstance(value, dict) else value

    def form_of(convert_module, convert_inputs):
        def form(given, side):
            module, inputs = given.module(), given.inputs()
            if convert_module:
                dims = max(t.dim() for t in sampling.tensors(list(inputs)))
                module = module.to(memory_format=FORMATS[dims])
            if convert_inputs:
                inputs = (last(inputs[0]), last(inputs[1]))
            seen = call_and_backward(case, module, inputs, side)
            return {"output": seen["output"], "buffers": seen["buffers"], "gradient": seen["gradient"]}

        return form

    for module, inputs in ((False, True), (True, False), (True, True)):
        words = " and ".join(word for word, chosen in (("module", module), ("inputs", inputs)) if chosen)
        case.agree(form_of(module, inputs), f"channels_last {words}", errors=False, strides=False)


def run_errors(case) -> None:
    """What the entry says must be refused is refused at the same place, in the CPU's words."""

    def form(given, side):
        wrong = given.error.module_error_input
        args, kwargs = sampling.copy_value((given.constructor.args, given.constructor.kwargs), given.device)
        module = given.info.module_cls(*args, **kwargs)
        if given.error.error_on == ModuleErrorEnum.FORWARD_ERROR:
            module = module.to(given.device, given.dtype)
            side.stage("forward")
            given_args, given_kwargs = copied((wrong.forward_input.args, wrong.forward_input.kwargs), given.device)
            module(*given_args, **given_kwargs)
        return {"outcome": "not refused"}

    case.agree(form)


RUNNERS = {
    "forward": run_forward,
    "gradient": run_gradient,
    "gradgrad": run_gradgrad,
    "noncontiguous": run_noncontiguous,
    "to": run_to,
    "factory": run_factory,
    "state_dict": run_state_dict,
    "copy": run_copy,
    "inplace": run_inplace,
    "memory_format": run_memory_format,
    "errors": run_errors,
}
