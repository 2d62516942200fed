"""Autograd (L4): gradients, the threads and streams of a backward, hooks, checkpoints, what must be refused."""

import threading

import torch
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from . import check


def _leaf(probe, shape=(3, 4), seed=0):
    """A seeded leaf on the device that requires a gradient, and the same on the CPU."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values.clone().to(probe.device).requires_grad_(), values.requires_grad_()


def _close(found, wanted) -> bool:
    return torch.allclose(found.detach().cpu(), wanted.detach(), rtol=1e-3, atol=1e-4)


@check
def gradients_are_those_of_the_cpu(probe):
    "A small network's loss has the gradients that the CPU computes."

    def gradients(x, weight):
        loss = (torch.tanh(x @ weight) * x.sum(1, keepdim=True)).pow(2).mean()
        return torch.autograd.grad(loss, (x, weight))

    (x, x_cpu), (weight, weight_cpu) = _leaf(probe, (5, 4)), _leaf(probe, (4, 3), 1)
    pairs = zip(("input", "weight"), gradients(x, weight), gradients(x_cpu, weight_cpu))
    for name, found, wanted in pairs:
        probe.expect(found.device == x.device, f"the gradient of the {name} is on {found.device}, expected {x.device}")
        probe.expect(_close(found, wanted), f"the gradient of the {name} differs from the CPU's: {found.cpu().flatten()[:3].cpu().tolist()}, "
                                            f"expected {wanted.flatten()[:3].cpu().tolist()}")


@check
def backward_runs_on_a_thread_of_the_forwards_device(probe):
    "The engine runs a device's backward on a thread of that device, with that device current."
    probe.needs_accelerator()
    for index in range(min(torch.accelerator.device_count(), 2)):
        x = torch.ones(3, device=torch.device(probe.type, index), requires_grad=True)
        y = x * 2
        seen = []
        y.register_hook(lambda gradient, seen=seen: seen.append((threading.get_ident(), torch.accelerator.current_device_index())))
        y.backward(torch.ones(3, device=x.device))
        probe.expect(seen and seen[0][0] != threading.get_ident(), f"the backward of device {index} ran on the calling thread")
        probe.expect(seen[0][1] == index, f"device {seen[0][1]} was current in the backward of device {index}")


@check
def backward_uses_the_streams_of_the_forward(probe):
    "A function's backward runs with the stream current that was current at its forward."
    stream, seen = probe.stream(), []
    x = torch.ones(3, device=probe.device, requires_grad=True)
    stream.wait_stream(torch.accelerator.current_stream(probe.device))
    with stream:
        y = x * 2
    y.register_hook(lambda gradient: seen.append(torch.accelerator.current_stream(probe.device)))
    y.backward(torch.ones(3, device=probe.device))
    stream.synchronize()
    probe.expect(seen == [stream], f"the backward of a function that ran on {stream} ran on {seen[0] if seen else 'nothing'}")


@check
def gradients_are_ready_on_the_callers_stream(probe):
    "When backward returns, the caller's current stream waits for what the backward queued on other streams."
    stream = probe.stream()
    x = torch.ones(200_000, device=probe.device, requires_grad=True)
    stream.wait_stream(torch.accelerator.current_stream(probe.device))
    with stream:
        y = x
        for _ in range(20):
            y = y * 1.5
        loss = y.sum()
    torch.accelerator.current_stream(probe.device).wait_stream(stream)
    loss.backward()
    found = x.grad.clone().cpu()
    probe.expect(bool((found == 1.5**20).all()), f"the gradient read after backward was {found[0].item():g}, expected {1.5**20:g}")


@check
def gradients_arrive_where_their_leaves_are(probe):
    "A gradient that flows through a copy between devices arrives on the leaf's device."
    host = torch.arange(3.0, requires_grad=True)
    here = torch.ones(3, device=probe.device, requires_grad=True)
    (host.to(probe.device) * here * 2).sum().backward()
    for name, leaf, wanted in (("CPU", host, [2, 2, 2]), ("device", here, [0, 2, 4])):
        probe.expect(leaf.grad.device == leaf.device, f"the gradient of the leaf on the {name} is on {leaf.grad.device}")
        probe.expect(leaf.grad.cpu().tolist() == wanted, f"the gradient of the leaf on the {name} is {leaf.grad.cpu().tolist()}, expected {wanted}")


@check
def hooks_see_and_change_gradients(probe):
    "Hooks of tensors, of accumulated gradients and of modules run once each, and what they return is used."
    calls = []
    x = torch.ones(3, device=probe.device, requires_grad=True)
    x.register_hook(lambda gradient: calls.append("tensor") or gradient * 10)
    x.register_post_accumulate_grad_hook(lambda tensor: calls.append(f"accumulated {tensor.grad[0].item():g}"))
    module = torch.nn.Linear(3, 1, bias=False).to(probe.device)
    module.register_full_backward_hook(lambda module, inputs, outputs: calls.append("module") or (inputs[0] * 0 + 2,))
    module(x[None]).sum().backward()
    wanted = ["module", "tensor", "accumulated 20"]
    probe.expect(calls == wanted, f"the hooks that ran were {calls}, expected {wanted}")


@check
def anomaly_mode_names_the_function(probe):
    "Under detect_anomaly a backward that makes a NaN raises RuntimeError with the function's name."
    x = torch.full((2,), -1.0, device=probe.device, requires_grad=True)
    with torch.autograd.detect_anomaly(check_nan=True):
        y = torch.sqrt(x)
        error = probe.expect_raises(y.sum().backward, "a NaN in a backward went unnoticed in anomaly mode", RuntimeError)
    probe.expect("SqrtBackward0" in str(error), f"the error does not name SqrtBackward0: {str(error)[:200]}")


@check
def a_checkpoint_repeats_the_random_numbers(probe):
    "torch.utils.checkpoint draws the same random numbers again when it recomputes, and leaves the generator where it was."
    probe.requires("get_rng_state", "set_rng_state")
    x = torch.ones(2000, device=probe.device, requires_grad=True)
    for reentrant in (False, True):
        x.grad = None
        torch.manual_seed(1)
        y = checkpoint(lambda value: torch.nn.functional.dropout(value, 0.5), x, use_reentrant=reentrant, preserve_rng_state=True)
        torch.rand(5, device=probe.device)
        after = torch.rand(5, device=probe.device)
        y.sum().backward()
        behind = torch.rand(5, device=probe.device)
        probe.expect(torch.equal(x.grad.cpu(), y.detach().cpu()), f"the recomputed dropout has another mask (use_reentrant={reentrant})")
        probe.expect(not torch.equal(behind.cpu(), after.cpu()), "the recomputation set the generator back for the numbers that follow")


@check
def a_gradient_has_a_gradient(probe):
    "create_graph=True gives gradients that can be differentiated, twice."
    (x, x_cpu), found = _leaf(probe, (4,)), []
    for leaf in (x, x_cpu):
        (first,) = torch.autograd.grad((leaf.exp() * leaf.pow(3)).sum(), leaf, create_graph=True)
        probe.expect(first.requires_grad, "a gradient made with create_graph=True does not require a gradient")
        (second,) = torch.autograd.grad(first.sum(), leaf, create_graph=True)
        found.append(torch.autograd.grad(second.sum(), leaf)[0])
    probe.expect(_close(*found), f"the third derivative is {found[0].cpu().tolist()}, the CPU's {found[1].cpu().tolist()}")


@check
def a_graph_runs_once_unless_it_is_retained(probe):
    "A second backward through a freed graph raises RuntimeError; with retain_graph=True it adds the same gradient again."
    x = torch.ones(3, device=probe.device, requires_grad=True)
    loss = x.exp().sum()
    loss.backward(retain_graph=True)
    once = x.grad.cpu().clone()
    loss.backward()
    probe.expect(torch.equal(x.grad.cpu(), 2 * once), "the second backward did not add the first one's gradient")
    error = probe.expect_raises(loss.backward, "a third backward through a freed graph raised nothing", RuntimeError)
    probe.expect("second time" in str(error), f"the error does not speak of a second time: {str(error)[:200]}")


@check
def a_function_of_the_user_works(probe):
    "A torch.autograd.Function gets the device's tensors, saved ones too, and its gradients are used."
    seen = []

    class Scaled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, factor):
            ctx.save_for_backward(x)
            ctx.factor = factor
            return x * factor, (x > 0)

        @staticmethod
        def backward(ctx, gradient, unused):
            (x,) = ctx.saved_tensors
            seen.extend((x.device, gradient.device, ctx.needs_input_grad))
            if x.device != gradient.device:
                return gradient, None
            return gradient * ctx.factor + x * 0 + 1, None

    x = torch.ones(3, device=probe.device, requires_grad=True)
    y, positive = Scaled.apply(x, 5.0)
    y.sum().backward()
    probe.expect(not positive.requires_grad and bool(positive.all()), "the second output is wrong or requires a gradient")
    probe.expect(seen == [x.device, x.device, (True, False)], f"the backward saw {seen}, expected tensors on {x.device}")
    probe.expect(x.grad.cpu().tolist() == [6, 6, 6], f"the gradient is {x.grad.cpu().tolist()}, expected what the function returns, 6")


@check
def gradients_accumulate_in_place(probe):
    "A second backward adds to .grad in the same memory, in the parameter's own strides."
    parameter = torch.ones(3, 2, device=probe.device).t().requires_grad_()
    (parameter * 2).sum().backward()
    first, strides = parameter.grad, parameter.grad.stride()
    (parameter * 3).sum().backward()
    probe.expect(parameter.grad is first, "the second backward replaced .grad by another tensor")
    probe.expect(strides == parameter.stride(), f".grad has the strides {strides}, the parameter {parameter.stride()}")
    probe.expect(parameter.grad.flatten().cpu().tolist() == [5.0] * 6, f"2 + 3 accumulated to {parameter.grad.flatten().cpu().tolist()}")


@check
def saved_tensors_are_protected(probe):
    "Writing into a tensor that a backward needs makes that backward raise RuntimeError."
    for name, write in (("mul_", lambda y: y.mul_(2)), ("copy_", lambda y: y.copy_(torch.zeros(3))), ("[0] =", lambda y: y.__setitem__(0, 1.0))):
        x = torch.ones(3, device=probe.device, requires_grad=True)
        y = x.exp()
        result = y.sum()
        write(y.detach())
        try:
            result.backward()
        except RuntimeError as error:
            probe.expect("inplace operation" in str(error), f"after {name}: another error: {str(error)[:200]}")
            continue
        probe.expect(False, f"after {name} on a saved tensor the backward raised nothing and gave {x.grad.cpu().tolist()}")


@check
def an_error_in_a_backward_reaches_the_caller(probe):
    "What a backward raises arrives at the call of backward with its type and text, and the next backward works."

    class Failing(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            raise KeyError("the gradient is not to be had")

    x = torch.ones(3, device=probe.device, requires_grad=True)
    try:
        Failing.apply(x).backward(torch.ones(3, device=probe.device))
        raised = None
    except NotImplementedError:
        raise
    except Exception as error:
        raised = error
    same = isinstance(raised, KeyError) and "not to be had" in str(raised)
    probe.expect(same, f"the caller of backward got {raised!r}, expected the KeyError of the function")
    x.grad = None
    (x * 2).backward(torch.ones(3, device=probe.device))
    probe.expect(x.grad.cpu().tolist() == [2, 2, 2], "the backward after a failed one gives a wrong gradient")


@check
def threads_differentiate_at_the_same_time(probe):
    "Backwards of several threads do not disturb each other."
    results, factors = {}, (2.0, 3.0, 5.0)

    def train(factor):
        try:
            x = torch.ones(50, device=probe.device, requires_grad=True)
            for _ in range(4):
                (x * factor).sum().backward()
            results[factor] = x.grad.cpu()
        except Exception as error:
            results[factor] = error

    threads = [threading.Thread(target=train, args=(factor,)) for factor in factors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for factor in factors:
        if isinstance(results[factor], Exception):
            raise results[factor]
        wanted = 4 * factor
        probe.expect(bool((results[factor] == wanted).all()), f"a thread found the gradient {results[factor][0].item():g}, expected {wanted:g}")


@check
def modes_without_gradients_are_honoured(probe):
    "Results of no_grad and inference_mode require no gradient; inference tensors cannot be saved for a backward."
    x = torch.ones(3, device=probe.device, requires_grad=True)
    with torch.no_grad():
        probe.expect(not (x * 2).requires_grad, "a result of no_grad requires a gradient")
    with torch.inference_mode():
        inference = torch.ones(3, device=probe.device) * 2
    probe.expect(inference.is_inference(), "a tensor made in inference_mode is no inference tensor")
    try:
        (x * inference).sum().backward()
    except RuntimeError as error:
        probe.expect("nference" in str(error), f"another error for an inference tensor that is saved: {str(error)[:200]}")
        return
    probe.expect(False, "an inference tensor was saved for backward without an error")


@check
def tangents_flow_forward(probe):
    "Forward-mode derivatives have the CPU's values and are on the device."
    (x, x_cpu), found = _leaf(probe, (4,)), []
    for leaf in (x, x_cpu):
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(leaf.detach(), torch.ones_like(leaf))
            found.append(forward_ad.unpack_dual((dual.sin() * dual).exp()).tangent)
    probe.expect(found[0] is not None, "a result of dual tensors has no tangent")
    probe.expect(found[0].device == x.device and _close(*found), f"the tangent is {found[0].cpu().tolist()}, the CPU's {found[1].cpu().tolist()}")


@check
def saved_tensors_can_wait_on_the_cpu(probe):
    "torch.autograd.graph.save_on_cpu moves what a backward needs to the CPU and back."
    seen = []
    x, x_cpu = _leaf(probe, (4,))
    with torch.autograd.graph.save_on_cpu():
        loss = (x.exp() * x).sum()
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: seen.append(tensor.device) or tensor, lambda tensor: tensor):
        (x.detach().requires_grad_().exp()).sum().backward()
    loss.backward()
    (x_cpu.exp() * x_cpu).sum().backward()
    probe.expect(seen == [x.device], f"the tensors that were saved are on {seen}, expected one on {x.device}")
    probe.expect(x.grad.device == x.device and _close(x.grad, x_cpu.grad), f"the gradient is {x.grad.cpu().tolist()}, expected {x_cpu.grad.cpu().tolist()}")
