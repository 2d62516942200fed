"""A small device with real gaps, in Python and numpy: what a vendor's first months look like to the kit.

Tensors are a subclass without storage whose values are a numpy array; views share it. It has one device and some ninety kernels,
float32, float16, integers and bool. It has no float64, bfloat16 and complex numbers, no streams, no generators, no autocast, no
files; what is missing raises NotImplementedError. `gapchip.toml` beside it says so, row by row.
"""

import numpy
import torch
from torch.utils import backend_registration

NAME = "gapchip"
TYPES = {
    torch.float32: numpy.float32, torch.float16: numpy.float16, torch.int64: numpy.int64, torch.int32: numpy.int32, torch.int16: numpy.int16,
    torch.int8: numpy.int8, torch.uint8: numpy.uint8, torch.bool: numpy.bool_,
}  # fmt: skip
BACK = {numpy.dtype(value): key for key, value in TYPES.items()}


class Module:
    """torch.gapchip: what torch asks of a device's module."""

    random = numpy.random.default_rng(0)

    def is_available(self):
        return True

    def is_initialized(self):
        return True

    def device_count(self):
        return 1

    def current_device(self):
        return 0

    def _is_in_bad_fork(self):
        return False

    def synchronize(self, device=None):
        pass  # every kernel has finished when its call returns

    def manual_seed_all(self, seed):
        self.random = numpy.random.default_rng(seed % 2**63)

    def manual_seed(self, seed):
        self.manual_seed_all(seed)


chip = Module()
backend_registration._setup_privateuseone_for_python_backend(NAME, chip)


def numpy_type(dtype):
    if dtype not in TYPES:
        raise NotImplementedError(f"{NAME} has no {str(dtype).removeprefix('torch.')}")
    return TYPES[dtype]


class Tensor(torch.Tensor):
    """A tensor of the chip. values: the numpy array that it is."""

    @staticmethod
    def __new__(cls, values, requires_grad=False):
        strides = tuple(stride // values.itemsize for stride in values.strides)
        self = torch.Tensor._make_wrapper_subclass(
            cls, values.shape, strides=strides, dtype=BACK[values.dtype], device=torch.device(NAME, 0), requires_grad=requires_grad
        )
        self.values = values
        return self

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        name = f"{function.overloadpacket.__name__}.{function._overloadname}"
        kernel = KERNELS.get(name)
        if kernel is None:
            raise NotImplementedError(f"{NAME} has no kernel for aten::{name.removesuffix('.default')}")
        with numpy.errstate(all="ignore"):
            return kernel(*args, **(kwargs or {}))

    def __repr__(self, **options):
        return f"{NAME}({self.values})"


def wrap(values, dtype=None):
    array = numpy.asarray(values)
    return Tensor(array.astype(numpy_type(dtype), copy=False) if dtype else array)


def read(value):
    """The numpy array or number of an argument; a 0-dim tensor of the CPU counts as a number."""
    if isinstance(value, Tensor):
        return value.values
    if isinstance(value, torch.Tensor):
        if value.dim():
            raise RuntimeError(f"Expected all tensors to be on the same device, but found at least two devices, {NAME}:0 and {value.device}!")
        return value.item()
    return value


def same(value):
    """What torch's rules of promotion see of an argument."""
    return torch.empty((1,) * value.dim(), dtype=value.dtype, device="meta") if isinstance(value, torch.Tensor) else value


def floating(dtype):
    return dtype if dtype.is_floating_point else torch.get_default_dtype()


# -- kinds of kernels --


def unary(function, float_result=False):
    def kernel(x):
        return wrap(function(x.values), floating(x.dtype) if float_result else x.dtype)

    return kernel


def binary(function, result=None):
    """result(dtype): the result's dtype, by default the promoted one, in which the operands are computed."""

    def kernel(a, b, *, alpha=1):
        dtype = torch.result_type(same(a), same(b))
        computed = result(dtype) if result and result(dtype) != torch.bool else dtype
        left, right = (numpy.asarray(read(value)).astype(numpy_type(computed)) for value in (a, b))
        if alpha != 1:
            right = right * numpy.asarray(alpha).astype(right.dtype)
        return wrap(function(left, right), result(dtype) if result else dtype)

    return kernel


def reduction(function, result):
    def kernel(x, dim=None, keepdim=False, *, dtype=None):
        wanted = dtype or result(x.dtype)
        axes = tuple(dim) if isinstance(dim, (list, tuple)) and len(dim) else dim if isinstance(dim, int) else None
        return wrap(function(x.values.astype(numpy_type(wanted)), axis=axes, keepdims=keepdim), wanted)

    return kernel


def in_place(kernel):
    def changed(x, *args, **kwargs):
        values = kernel(x, *args, **kwargs).values
        if numpy.broadcast_shapes(values.shape, x.values.shape) != x.values.shape:
            raise RuntimeError(f"output with shape {list(x.shape)} doesn't match the broadcast shape {list(values.shape)}")
        x.values[...] = values
        return x

    return changed


def filled(number):
    def kernel(x, *value, dtype=None, layout=None, device=None, pin_memory=None, memory_format=None):
        return wrap(numpy.full(x.shape, value[0] if value else number), dtype or x.dtype)

    return kernel


def whole(dtype):
    return dtype if dtype.is_floating_point else torch.int64


def truth(dtype):
    return torch.bool


# -- kernels that are none of these --


def to_copy(x, *, dtype=None, layout=None, device=None, pin_memory=None, non_blocking=False, memory_format=None):
    dtype, values = dtype or x.dtype, x.values
    if device is not None and device.type != NAME:
        return torch.from_numpy(numpy.array(values, copy=True)).to(dtype)
    return wrap(numpy.array(values, dtype=numpy_type(dtype), copy=True))


def copy_(x, source, non_blocking=False):
    if isinstance(x, Tensor):
        values = source.values if isinstance(source, Tensor) else source.detach().resolve_conj().resolve_neg().numpy()
        x.values[...] = values
    else:
        x.copy_(torch.from_numpy(numpy.ascontiguousarray(source.values)))
    return x


def fill_(x, value=0):
    x.values[...] = value
    return x


def slice_(x, dim=0, start=None, end=None, step=1):
    return wrap(x.values[(slice(None),) * (dim % x.dim()) + (slice(start, end, step),)])


def select(x, dim, index):
    if not -x.shape[dim] <= index < x.shape[dim]:
        raise IndexError(f"select(): index {index} out of range for tensor of size {list(x.shape)} at dimension {dim}")
    return wrap(x.values[(slice(None),) * (dim % x.dim()) + (index,)])


def view(x, size):
    array = x.values.view()
    try:
        array.shape = tuple(size)
    except AttributeError:
        raise RuntimeError("view size is not compatible with input tensor's size and stride") from None
    return wrap(array)


def expand(x, size, implicit=False):
    lead = len(size) - x.dim()
    return wrap(numpy.broadcast_to(x.values, [x.shape[i - lead] if n == -1 else n for i, n in enumerate(size)]))


def softmax(x, dim, half_to_float):
    powers = numpy.exp(x.values - x.values.max(axis=dim, keepdims=True))
    return wrap(powers / powers.sum(axis=dim, keepdims=True), x.dtype)


def addmm(bias, a, b, *, beta=1, alpha=1):
    return wrap(beta * bias.values + alpha * (a.values @ b.values), a.dtype)


def where(condition, a, b):
    return wrap(numpy.where(condition.values, read(a), read(b)), torch.result_type(same(a), same(b)))


def drawn(draw):
    def kernel(x, *numbers, generator=None):
        if generator is not None:
            raise NotImplementedError(f"{NAME} has no generators")
        x.values[...] = draw(chip.random, x.shape, *numbers)
        return x

    return kernel


KERNELS = {
    "add.Tensor": binary(lambda a, b: a | b if a.dtype == bool else a + b), "mul.Tensor": binary(numpy.multiply),
    "sub.Tensor": binary(numpy.subtract), "div.Tensor": binary(numpy.divide, floating),
    "maximum.default": binary(numpy.maximum), "minimum.default": binary(numpy.minimum),
    "pow.Tensor_Scalar": binary(numpy.power), "atan2.default": binary(numpy.arctan2, floating),
    "logical_and.default": binary(numpy.logical_and, truth), "logical_or.default": binary(numpy.logical_or, truth),
    "neg.default": unary(numpy.negative), "abs.default": unary(numpy.abs), "sign.default": unary(numpy.sign), "floor.default": unary(numpy.floor),
    "ceil.default": unary(numpy.ceil), "relu.default": unary(lambda x: numpy.maximum(x, 0)),
    "logical_not.default": lambda x: wrap(numpy.logical_not(x.values)), "isnan.default": lambda x: wrap(numpy.isnan(x.values)),
    "sum.default": reduction(numpy.sum, whole), "sum.dim_IntList": reduction(numpy.sum, whole),
    "mean.default": reduction(numpy.mean, floating), "mean.dim": reduction(numpy.mean, floating),
    "amax.default": reduction(numpy.max, lambda dtype: dtype), "amin.default": reduction(numpy.min, lambda dtype: dtype),
    "any.default": reduction(numpy.any, truth), "all.default": reduction(numpy.all, truth), "any.dim": reduction(numpy.any, truth),
    "mm.default": lambda a, b: wrap(a.values @ b.values), "bmm.default": lambda a, b: wrap(a.values @ b.values),
    "dot.default": lambda a, b: wrap(a.values @ b.values), "addmm.default": addmm, "where.self": where, "_softmax.default": softmax,
    "cat.default": lambda tensors, dim=0: wrap(numpy.concatenate([tensor.values for tensor in tensors], dim)),
    "threshold_backward.default": lambda gradient, x, threshold: wrap(gradient.values * (x.values > threshold), gradient.dtype),
    "tanh_backward.default": lambda gradient, y: wrap(gradient.values * (1 - y.values**2), gradient.dtype),
    "sigmoid_backward.default": lambda gradient, y: wrap(gradient.values * y.values * (1 - y.values), gradient.dtype),
    "detach.default": lambda x: wrap(x.values), "alias.default": lambda x: wrap(x.values), "view.default": view,
    "_unsafe_view.default": view, "t.default": lambda x: wrap(x.values.T), "permute.default": lambda x, dims: wrap(x.values.transpose(dims)),
    "transpose.int": lambda x, a, b: wrap(x.values.swapaxes(a, b) if x.dim() else x.values), "slice.Tensor": slice_, "select.int": select,
    "unsqueeze.default": lambda x, dim: wrap(numpy.expand_dims(x.values, dim)), "expand.default": expand,
    "clone.default": lambda x, memory_format=None: wrap(x.values.copy(order="K")), "_to_copy.default": to_copy, "copy_.default": copy_,
    "_local_scalar_dense.default": lambda x: x.values.item(), "equal.default": lambda a, b: numpy.array_equal(a.values, b.values),
    "zeros_like.default": filled(0), "ones_like.default": filled(1), "full_like.default": filled(0), "empty_like.default": filled(0),
    "new_zeros.default": lambda x, size, **options: empty(size, dtype=options.get("dtype") or x.dtype),
    "fill_.Scalar": fill_, "zero_.default": fill_,
    "uniform_.default": drawn(lambda random, shape, low=0.0, high=1.0: random.uniform(low, high, shape)),
    "normal_.default": drawn(lambda random, shape, mean=0.0, deviation=1.0: random.normal(mean, deviation, shape)),
    "bernoulli_.float": drawn(lambda random, shape, p=0.5: random.random(shape) < p),
}  # fmt: skip
for name in ("exp", "log", "sqrt", "sin", "cos", "tanh"):
    KERNELS[f"{name}.default"] = unary(getattr(numpy, name), float_result=True)
KERNELS["rsqrt.default"] = unary(lambda x: 1 / numpy.sqrt(x), float_result=True)
KERNELS["reciprocal.default"] = unary(lambda x: 1 / x, float_result=True)
KERNELS["sigmoid.default"] = unary(lambda x: 1 / (1 + numpy.exp(-x)), float_result=True)
for name, function in (("eq", "equal"), ("ne", "not_equal"), ("lt", "less"), ("le", "less_equal"), ("gt", "greater"), ("ge", "greater_equal")):
    KERNELS[f"{name}.Tensor"] = KERNELS[f"{name}.Scalar"] = binary(getattr(numpy, function), truth)
for name in ("add_.Tensor", "sub_.Tensor", "mul_.Tensor", "div_.Tensor", "neg_.default", "exp_.default", "relu_.default"):
    KERNELS[name] = in_place(KERNELS[name.replace("_.", ".")])


def empty(size, *, dtype=None, layout=None, device=None, pin_memory=None, memory_format=None):
    return Tensor(numpy.zeros(tuple(size), numpy_type(dtype or torch.get_default_dtype())))


def empty_strided(size, stride, *, dtype=None, layout=None, device=None, pin_memory=None):
    kind = numpy.dtype(numpy_type(dtype or torch.get_default_dtype()))
    reach = sum((n - 1) * step for n, step in zip(size, stride)) + 1 if all(size) else 0
    steps = [step * kind.itemsize for step in stride]
    return Tensor(numpy.lib.stride_tricks.as_strided(numpy.zeros(reach, kind), tuple(size), steps))


library = torch.library.Library("aten", "IMPL")
library.impl("empty.memory_format", empty, "PrivateUse1")
library.impl("empty_strided", empty_strided, "PrivateUse1")
