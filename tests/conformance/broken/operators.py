"""Wrong operators: one kernel each that is wrong in a way of its own, caught by a row of an operator database in the mode that looks there.

Kernels lie at the device's dispatch key; those at autograd's key stand for a device that brings its own derivatives.
"""

import warnings

import torch

from . import variant
from .autograd import AUTOGRAD, below_autograd
from .replacement import replaced

NOT_CLOSE = "Tensor-likes are not close"


def into(operator, x, *args):
    """operator's result in new memory, through its out= variant, which a replaced kernel does not reach."""
    return operator(x, *args, out=torch.empty_like(x))


@variant({
    "nn.functional.scaled_dot_product_attention:float32:forward": NOT_CLOSE,
    "model.llama.aten.scaled_dot_product_attention.default:float32:call": "strides",
})  # fmt: skip
def attention_forgets_the_causal_mask():
    "Attention ignores is_causal."

    def attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, *, scale=None, enable_gqa=False):
        return torch.ops.aten._scaled_dot_product_attention_math(q, k, v, attn_mask, dropout_p, False, scale=scale, enable_gqa=enable_gqa)[0]

    return replaced("scaled_dot_product_attention", attention, AUTOGRAD)


@variant({"diagonal:float32:layouts": "strides", "diagonal:float32:forward": "strides"})
def a_stride_off_by_one():
    "The stride of a diagonal is one too small."

    def diagonal(x, offset=0, dim1=0, dim2=1):
        right = torch.empty_strided(x.shape, x.stride(), device="meta").diagonal(offset, dim1, dim2)
        strides = (*right.stride()[:-1], max(right.stride()[-1] - 1, 0))
        return x.as_strided(right.shape, strides, x.storage_offset() + right.storage_offset())

    return replaced("diagonal", diagonal)


@variant({"cosh:float32:forward": "device cpu, expected openreg:0"})
def a_silent_result_on_the_cpu():
    "cosh computes on the CPU and leaves its result there."
    return replaced("cosh", lambda x: x.cpu().cosh())


@variant({"kthvalue:float32:errors": "call: no error, the CPU raises RuntimeError: kthvalue(): selected number k out of range for dimension"})
def ranges_are_not_checked():
    "kthvalue takes any k and goes to the nearest that there is."

    def kthvalue(x, k, dim=-1, keepdim=False):
        values, places = x.sort(dim)
        place = min(max(k - 1, 0), x.shape[dim] - 1)
        found = values.narrow(dim, place, 1), places.narrow(dim, place, 1)
        return found if keepdim else tuple(part.squeeze(dim) for part in found)

    return replaced("kthvalue", kthvalue)


@variant({"dot:float32:errors": "call: raises ValueError: the chip does not like these; the CPU raises RuntimeError"})
def an_error_of_another_type():
    "dot raises ValueError for vectors that do not fit."

    def dot(a, b):
        if a.shape != b.shape or a.dtype != b.dtype or a.dim() != 1:
            raise ValueError("the chip does not like these")
        return (a * b).sum()

    return replaced("dot", dot)


@variant({"transpose:float32:layouts": "memory of output[0]: str its own"})
def a_view_is_a_copy():
    "transpose copies."

    def transpose(x, a, b):
        order = list(range(x.dim()))
        if order:
            order[a], order[b] = order[b], order[a]
        return x.permute(order).clone(memory_format=torch.preserve_format)

    return replaced("transpose.int", transpose)


@variant({"mul:float32:scalars": "first operand a number: output: dtype torch.float64, expected torch.float32"})
def numbers_promote():
    "A number counts as a tensor of float64 in the promotion of dtypes."
    double = lambda a, b: torch.full((1,), b, dtype=torch.float64, device=a.device)  # noqa: E731

    def mul(a, b):
        a, b = (b, a) if isinstance(a, float) else (a, b)
        b = double(a, b) if isinstance(b, float) else b
        shape, dtype = torch.broadcast_shapes(a.shape, getattr(b, "shape", ())), torch.result_type(a, b)
        return torch.mul(a, b, out=torch.empty(shape, dtype=dtype, device=a.device))

    return replaced("mul.Tensor", mul)


@variant({"exp:float32:out": "wrong size: does not warn, the CPU warns UserWarning: An output with one or more elements was resized"})
def out_grows_without_a_word():
    "exp resizes out= without a warning."

    def exp_out(x, *, out):
        sized = out if out.shape == x.shape else out.resize_(0).resize_(x.shape)
        return sized.copy_(x.cpu().exp())

    return replaced("exp.out", exp_out)


def dense(x):
    """What a kernel sees that reads x from its first element on as if it were dense."""
    return x if x.is_contiguous() else x.as_strided(x.shape, torch.empty(x.shape, device="meta").stride(), x.storage_offset())


@variant({"sinh:float32:inplace": f"strided input: input: {NOT_CLOSE}"})
def strides_are_not_written():
    "sinh_ writes its tensor as if it were dense."

    def sinh_(x):
        torch.sinh(dense(x), out=dense(x))
        return x

    return replaced("sinh_", sinh_)


@variant({"sin:float32:layouts": f"strided inputs: output: {NOT_CLOSE}"})
def strides_are_not_read():
    "sin reads its input as if it were dense."
    return replaced("sin", lambda x: into(torch.sin, dense(x)))


@variant({"nansum:float32:forward": "but got nan"})
def nan_is_a_number():
    "nansum lets a NaN through."
    return replaced("nansum", lambda x, dim=None, keepdim=False, *, dtype=None: torch.sum(x, dim, keepdim, dtype=dtype))


@variant({"div.floor_rounding:int64:forward": "not equal"})
def division_rounds_to_zero():
    "Floor division of integers rounds towards zero."

    def div(a, b, *, rounding_mode):
        result = torch.true_divide(a, b)
        return (result.trunc() if rounding_mode else result).to(torch.result_type(a, b) if rounding_mode else result.dtype)

    return replaced("div.Tensor_mode", div)


@variant({"conj:complex64:views": "bits of output[0]: str conj=False neg=False, expected str conj=True neg=True"})
def conjugates_are_computed():
    "conj computes where it should set a bit."
    return replaced("_conj", lambda x: torch.conj_physical(x))


@variant({"log:float32:views": f"negated inputs: output: {NOT_CLOSE}"})
def the_negative_bit_is_ignored():
    "log reads the memory behind a negative view."
    log = below_autograd(torch.log)
    return replaced("log", lambda x: log(torch._neg_view(x) if x.is_neg() else x), AUTOGRAD)


@variant({"prod:float32:scalars": "inputs of no element: output"})
def nothing_has_the_product_zero():
    "The product of no elements is 0."

    def prod(x, *, dtype=None):
        return x.new_zeros(()) if x.numel() == 0 else x.flatten().cumprod(0, dtype=dtype)[-1]

    return replaced("prod", prod)


@variant({"tanh:float32:layouts": f"output: {NOT_CLOSE}"})
def a_second_call_adds():
    "tanh adds to what it left behind when it is called with the same sizes again."
    seen = set()

    def tanh(x):
        result = into(torch.tanh, x)
        if (x.shape, x.stride()) in seen:
            result.mul_(2)
        seen.add((x.shape, x.stride()))
        return result

    return replaced("tanh", tanh)


@variant({"neg:float32:warnings": "warns UserWarning: the chip is warm; the CPU does not"})
def a_kernel_that_warns():
    "neg warns of the chip's temperature."

    def neg(x):
        warnings.warn("the chip is warm", stacklevel=2)
        return into(torch.neg, x)

    return replaced("neg", neg)


@variant({"sigmoid:float16:forward": NOT_CLOSE})
def narrow_numbers_lose_bits():
    "sigmoid of 16-bit numbers has three bits."

    def sigmoid(x):
        result = into(torch.sigmoid, x) if x.is_floating_point() else torch.sigmoid(x.float())
        return result if x.element_size() > 2 else result.mul(8).round().div(8)

    return replaced("sigmoid", sigmoid)


@variant({"bitwise_not:bool:forward": "not equal"})
def truth_is_a_number():
    "bitwise_not of bool keeps every element true."
    return replaced("bitwise_not", lambda x: torch.ones_like(x) if x.dtype == torch.bool else -x - 1)


@variant({"sigmoid:float32:gradient": "gradient[0]"})
def a_factor_is_missing():
    "The backward of sigmoid forgets a factor."
    return replaced("sigmoid_backward", lambda gradient, output: gradient * output)


@variant({"sqrt:float32:gradgrad": "second gradient[0]"})
def a_wrong_second_derivative():
    "The first derivative of sqrt counts as linear in its input."

    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return below_autograd(torch.sqrt)(x)

        @staticmethod
        def backward(ctx, gradient):
            (x,) = ctx.saved_tensors
            return gradient / (2 * below_autograd(torch.sqrt)(x.detach())) + 0 * x

    return replaced("sqrt", Once.apply, AUTOGRAD)


@variant({"clone:float32:layouts": "strides"})
def clones_are_dense():
    "clone loses the strides of its input."

    def clone(x, *, memory_format=None):
        return torch.empty(x.shape, dtype=x.dtype, device=x.device).copy_(x)

    return replaced("clone", clone)


@variant({"_foreach_add:float32:forward": NOT_CLOSE, "optim.SGD:float32:foreach": NOT_CLOSE})
def lists_ignore_alpha():
    "_foreach_add of two lists ignores alpha."

    def add_(tensors, others, *, alpha=1):
        for tensor, other in zip(tensors, others):
            tensor.add_(other)

    library = replaced("_foreach_add_.List", add_)
    library.impl("_foreach_add.List", lambda tensors, others, *, alpha=1: [a + b for a, b in zip(tensors, others)], "PrivateUse1", allow_override=True)
    return library


@variant({"_foreach_exp:float32:inplace": NOT_CLOSE})
def lists_end_early():
    "_foreach_exp_ leaves out the last tensor of a list."
    return replaced("_foreach_exp_", lambda tensors: [tensor.exp_() for tensor in tensors[:-1]] and None)


@variant({"_fused_adam_:float32:inplace": NOT_CLOSE, "optim.Adam:float32:fused": NOT_CLOSE})
def a_fused_step_does_nothing():
    "The fused Adam changes nothing."
    return replaced("_fused_adam_", lambda *args, **kwargs: None)


@variant({"module.nn.Linear:float32:forward": NOT_CLOSE, "module.nn.Linear:float32:gradient": NOT_CLOSE})
def a_lost_bias():
    "addmm forgets what is to be added."
    return replaced("addmm", lambda bias, a, b, *, beta=1, alpha=1: torch.mm(a, b))
