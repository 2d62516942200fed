"""Wrong autograd: derivatives that are wrong or gone, threads and streams of a backward, hooks, what must be refused."""

import threading

import torch

from . import variant
from .libraries import break_guard
from .replacement import replaced

AUTOGRAD = "AutogradPrivateUse1"


def below_autograd(call):
    """The call as a kernel of autograd that leaves autograd out."""

    def kernel(*args, **kwargs):
        with torch._C._AutoDispatchBelowAutograd():
            return call(*args, **kwargs)

    return kernel


@variant({"check.autograd.gradients_are_those_of_the_cpu": "the gradient of the input differs from the CPU's"})
def a_wrong_backward_kernel():
    "The backward kernel of tanh returns what it got."
    return replaced("tanh_backward", lambda gradient, output: gradient.clone())


@variant({"check.autograd.backward_runs_on_a_thread_of_the_forwards_device": "device 0 was current in the backward of device 1"})
def the_current_device_is_always_zero():
    "torch.accelerator.current_device_index() is 0 on every thread."
    torch.accelerator.current_device_index = lambda: 0


@variant({"check.autograd.backward_uses_the_streams_of_the_forward": "the backward of a function that ran on"})
def every_backward_is_on_the_default_stream():
    "getStream answers the default stream, which autograd then takes for the forward's."
    return break_guard("get_stream_is_default")


@variant({"check.autograd.gradients_are_ready_on_the_callers_stream": "the gradient read after backward was"}, OPENREG_SCHEDULE="lazy")
def backward_does_not_order_streams():
    "A stream does not wait for the event that it is told to wait for."
    return break_guard("block_ignored")


@variant({
    "check.autograd.gradients_arrive_where_their_leaves_are": "the gradient of the leaf on the CPU is [0.0, 0.0, 0.0], expected [2, 2, 2]",
})  # fmt: skip
def copies_of_a_backward_are_not_waited_for():
    "A copy to the CPU that a thread other than the main one asks for is not waited for."

    def to_copy(source, *, dtype=None, device=None, **options):
        result = torch.empty(source.shape, dtype=dtype or source.dtype, device=device or source.device)
        return result.zero_() if result.is_cpu and threading.current_thread() is not threading.main_thread() else result.copy_(source)

    return replaced("_to_copy", to_copy)


@variant({"check.autograd.hooks_see_and_change_gradients": "the hooks that ran were ['module', 'tensor'], expected"})
def hooks_of_accumulated_gradients_are_forgotten():
    "register_post_accumulate_grad_hook does nothing."
    torch.Tensor.register_post_accumulate_grad_hook = lambda self, hook: None


@variant({"check.autograd.anomaly_mode_names_the_function": "a NaN in a backward went unnoticed in anomaly mode"})
def no_number_is_nan():
    "isnan is false for every number."
    return replaced("isnan", lambda x: torch.zeros(x.shape, dtype=torch.bool, device=x.device))


class ExpOnce(torch.autograd.Function):
    """An exponential whose gradient counts as a constant, and which keeps its result where autograd cannot free or check it."""

    @staticmethod
    def forward(ctx, x):
        ctx.kept = torch.exp(x)
        return ctx.kept

    @staticmethod
    def backward(ctx, gradient):
        return (gradient * ctx.kept).detach()


@variant({
    "check.autograd.a_gradient_has_a_gradient": "the third derivative is",
    "check.autograd.a_graph_runs_once_unless_it_is_retained": "a third backward through a freed graph raised nothing",
    "exp:float32:gradgrad": "no gradient can be differentiated again",
})  # fmt: skip
def a_derivative_that_ends():
    "The derivative of exp cannot be differentiated, and keeps its tensor beside autograd."
    return replaced("exp", lambda x: ExpOnce.apply(x) if torch.is_grad_enabled() else below_autograd(torch.exp)(x), AUTOGRAD)


@variant({"check.autograd.a_function_of_the_user_works": "the backward saw [device(type='cpu')"})
def saved_tensors_come_back_on_the_cpu():
    "What a backward saved comes back on the CPU."
    torch._C._autograd._push_saved_tensors_default_hooks(lambda tensor: tensor.cpu(), lambda tensor: tensor)


@variant({"check.autograd.gradients_accumulate_in_place": ".grad has the strides (3, 1), the parameter (1, 2)"})
def new_tensors_are_dense():
    "empty_strided ignores the strides."
    return replaced("empty_strided", lambda size, stride, *, dtype=None, device=None, **options: torch.empty(size, dtype=dtype, device=device))


@variant({
    "check.autograd.saved_tensors_are_protected": "after mul_ on a saved tensor the backward raised nothing",
    "mul:float32:inplace": "version: str 0, expected str 1",
})  # fmt: skip
def a_write_without_a_version():
    "mul_ does not count the write in the tensor's version."

    def mul_(x, other):
        torch.ops.aten.mul.out(x.data, other, out=x.data)
        return x

    return replaced("mul_.Tensor", mul_, AUTOGRAD)


@variant({"check.autograd.an_error_in_a_backward_reaches_the_caller": "the caller of backward got RuntimeError('the chip failed')"})
def errors_of_a_backward_lose_their_type():
    "Tensor.backward turns every error into one of its own."
    backward = torch.Tensor.backward

    def wrong(self, *args, **kwargs):
        try:
            backward(self, *args, **kwargs)
        except Exception:
            raise RuntimeError("the chip failed") from None

    torch.Tensor.backward = wrong


@variant({"check.autograd.threads_differentiate_at_the_same_time": "a thread found the gradient"})
def one_number_for_all_threads():
    "The multiplication keeps its number of the first call for all threads."
    kept = []

    def mul(a, b):
        if isinstance(b, float):
            kept.append(b)
            return torch.mul(a, kept[0], out=torch.empty_like(a))
        return torch.mul(a, b, out=torch.empty(torch.broadcast_shapes(a.shape, b.shape), device=a.device))

    return replaced("mul.Tensor", mul)


@variant({"check.autograd.modes_without_gradients_are_honoured": "a result of no_grad requires a gradient"})
def gradients_without_asking():
    "Results of a multiplication always require a gradient."
    mul = below_autograd(torch.mul)
    return replaced("mul.Tensor", lambda a, b: mul(a, b).requires_grad_(), AUTOGRAD)


@variant({
    "check.autograd.tangents_flow_forward": "a result of dual tensors has no tangent",
    "exp:float32:forward_ad": "tangent[0]: str, expected a tensor",
    "exp:float32:gradient": "no output requires a gradient",
    "exp:float32:func": "jvp: tangent: Tensor-likes are not close",
})  # fmt: skip
def a_dropped_gradient():
    "exp falls through autograd, so that its result has neither gradient nor tangent."
    return replaced("exp", lambda x: below_autograd(torch.exp)(x).detach(), AUTOGRAD)


@variant({"check.autograd.saved_tensors_can_wait_on_the_cpu": "the gradient is [0.0"})
def what_comes_back_is_empty():
    "Tensor.to brings zeros to the device in threads other than the main one."
    to = torch.Tensor.to

    def wrong(self, *args, **kwargs):
        result = to(self, *args, **kwargs)
        return torch.zeros_like(result) if self.is_cpu and threading.current_thread() is not threading.main_thread() else result

    torch.Tensor.to = wrong
