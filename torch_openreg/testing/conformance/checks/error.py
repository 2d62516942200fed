"""Errors (L2): type and time, what they name, and what works afterwards."""

import torch

from ..attempt import attempt
from . import check

NAMESPACE = "conformance_kit"


def out_of_range(device):
    """gather with an index that is too large: an error that depends on values. A good call of the kind goes before."""
    source = torch.arange(5.0, device=device)
    source.gather(0, torch.tensor([1], device=device))
    return source.gather(0, torch.tensor([9], device=device))


@check
def wrong_sizes_raise_at_the_call(probe):
    "An operator whose sizes do not fit raises at the call what the CPU raises, not at the next wait."
    probe.needs(probe.type != "cpu", "the CPU itself")

    def call(device):
        return torch.ones(2, 3, device=device) @ torch.ones(2, 3, device=device)

    expected, found = attempt(lambda: call("cpu")), attempt(lambda: call(probe.device), probe.synchronize)
    probe.expect(found.error is not None, "a matrix product of 2x3 and 2x3 raises nothing")
    if isinstance(found.error, NotImplementedError):
        raise found.error
    said = f"a matrix product of 2x3 and 2x3 raises {type(found.error).__name__}: {str(found.error).splitlines()[0]}"
    probe.expect(not found.late, f"{said}, but only when the device is waited for")
    probe.expect(type(found.error) is type(expected.error), f"{said}; the CPU raises {type(expected.error).__name__}")


@check
def a_failed_operator_changes_nothing(probe):
    "An in-place operator that raises leaves the tensor as it was."
    probe.needs(probe.type != "meta", "meta tensors have no values")
    tensor = torch.ones(4, device=probe.device)
    probe.expect_raises(lambda: tensor.add_(torch.ones(3, device=probe.device)), "adding 3 elements in place to 4 raises nothing", (RuntimeError,))
    probe.expect(tensor.cpu().tolist() == [1, 1, 1, 1], f"a tensor of ones is {tensor.cpu().tolist()} after an operator in place raised")


@check
def a_bad_index_is_never_silent(probe):
    "An index that is out of range raises, at the call or at the next wait."
    probe.needs(probe.type != "meta", "meta tensors have no values")
    found = attempt(lambda: out_of_range(probe.device), probe.synchronize)
    if isinstance(found.error, NotImplementedError):
        raise found.error
    probe.expect(found.error is not None, "gather with index 9 from 5 elements raises nothing, at the call and at the next wait")


@check
def an_error_says_what_went_wrong(probe):
    "The error of a bad index names the operator or the index, also when it comes late."
    probe.needs(probe.type != "meta", "meta tensors have no values")
    found = attempt(lambda: out_of_range(probe.device), probe.synchronize)
    probe.needs(found.error is not None, "there is no error, see a_bad_index_is_never_silent")
    text = str(found.error)
    probe.expect("gather" in text or "index" in text, f"the error of a bad index names neither gather nor the index: {text.splitlines()[0]}")


@check
def the_device_works_after_an_error(probe):
    "An error is raised once, and the device goes on."
    probe.needs(probe.type != "meta", "meta tensors have no values")
    found = attempt(lambda: out_of_range(probe.device), probe.synchronize)
    probe.needs(found.error is not None, "there is no error, see a_bad_index_is_never_silent")
    again = attempt(lambda: (torch.ones(3, device=probe.device) + 1).cpu().tolist(), probe.synchronize)
    said = "" if again.error is None else f"{type(again.error).__name__}: {str(again.error).splitlines()[0]}"
    probe.expect(again.error is None, f"after the error of a bad index was raised, ones(3) + 1 raises {said}")
    probe.expect(again.value == [2, 2, 2], f"after the error of a bad index, ones(3) + 1 is {again.value}")


@check
def an_error_on_one_stream_leaves_the_others(probe):
    "Work on another stream goes on, and is right, while an error waits to be raised on one."
    failing, working = probe.stream(), probe.stream()
    with failing:
        early = attempt(lambda: out_of_range(probe.device))
    with working:
        value = torch.ones(3, device=probe.device) + 1
    other = attempt(working.synchronize)
    attempt(failing.synchronize)
    probe.needs(early.error is None or not isinstance(early.error, NotImplementedError), "the device has no gather")
    said = "" if other.error is None else f"{type(other.error).__name__}: {str(other.error).splitlines()[0]}"
    probe.expect(other.error is None, f"a stream without a fault raises the error of another one: {said}")
    probe.expect(value.cpu().tolist() == [2, 2, 2], f"on a stream beside one with an error, 1 + 1 is {value.cpu().tolist()}")


@check
def an_unknown_operator_is_named(probe):
    "A library's operator with a kernel for the CPU only gives the CPU's result, or raises NotImplementedError that names it."
    probe.needs(probe.type not in ("cpu", "meta"), "it is about devices beside the CPU")
    library = torch.library.Library(NAMESPACE, "FRAGMENT")
    if not hasattr(getattr(torch.ops, NAMESPACE), "twice_plus_one"):
        library.define("twice_plus_one(Tensor x) -> Tensor")
    library.impl("twice_plus_one", lambda x: x * 2 + 1, "CPU")
    operator = getattr(torch.ops, NAMESPACE).twice_plus_one
    found = attempt(lambda: operator(torch.ones(3, device=probe.device)).cpu().tolist())
    del library
    if isinstance(found.error, NotImplementedError):
        probe.expect("twice_plus_one" in str(found.error), f"the error of an operator without a kernel does not name it: {str(found.error).splitlines()[0]}")
        return
    said = "" if found.error is None else f"{type(found.error).__name__}: {str(found.error).splitlines()[0]}"
    probe.expect(found.error is None, f"an operator without a kernel for the device raises no NotImplementedError but {said}")
    probe.expect(found.value == [3, 3, 3], f"an operator without a kernel for the device, 2 * 1 + 1, gives {found.value} without a word")
