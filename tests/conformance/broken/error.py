"""Wrong errors: none, late ones, ones that say nothing, ones that never end."""

import torch

from . import variant
from .replacement import replaced


def when_synchronizing(change):
    """Makes torch.openreg.synchronize call change(error) for each error that it raises, and change(None) where it raises none."""
    synchronize = torch.openreg.synchronize

    def wrong(device=None):
        try:
            synchronize(device)
        except Exception as error:
            change(error)
            raise
        change(None)

    torch.openreg.synchronize = wrong


@variant({"check.error.wrong_sizes_raise_at_the_call": "a matrix product of 2x3 and 2x3 raises nothing"})
def sizes_are_not_checked():
    "A matrix product does not look at the sizes of its operands."
    return replaced("mm", lambda a, b: torch.empty(a.shape[0], b.shape[1], device=a.device))


@variant({"check.error.wrong_sizes_raise_at_the_call": "but only when the device is waited for"})
def sizes_are_checked_late():
    "A matrix product of operands that do not fit raises at the next wait."
    late = []

    def mm(a, b):
        late.append(RuntimeError("the sizes do not fit"))
        return torch.empty(a.shape[0], b.shape[1], device=a.device)

    def raise_late(error):
        if late:
            raise late.pop()

    when_synchronizing(raise_late)
    return replaced("mm", mm)


@variant({"check.error.wrong_sizes_raise_at_the_call": "raises ValueError"})
def errors_have_another_type():
    "A matrix product of operands that do not fit raises ValueError."

    def mm(a, b):
        raise ValueError("the sizes do not fit")

    return replaced("mm", mm)


@variant({"check.error.a_failed_operator_changes_nothing": "a tensor of ones is [0.0, 0.0, 0.0, 0.0] after an operator in place raised"})
def a_failed_operator_has_begun():
    "An addition in place clears the tensor before it looks at the operands."

    def add_(self, other, alpha=1):
        self.zero_()
        raise RuntimeError("the sizes do not fit")

    return replaced("add_.Tensor", add_)


@variant({"check.error.a_bad_index_is_never_silent": "gather with index 9 from 5 elements raises nothing"})
def a_bad_index_reads_the_last_element():
    "An index that is out of range is replaced by the last one."
    return replaced("gather", lambda x, dim, index, sparse_grad=False: torch.take(x, index.clamp(max=x.shape[dim] - 1)))


@variant({"check.error.an_error_says_what_went_wrong": "names neither gather nor the index: error 719"})
def errors_are_numbers():
    "A late error has a number and no words."

    def say_less(error):
        if error is not None:
            raise RuntimeError("error 719")

    when_synchronizing(say_less)


@variant({"check.error.the_device_works_after_an_error": "after the error of a bad index was raised, ones(3) + 1 raises RuntimeError: the context is lost"})
def an_error_is_the_end():
    "After a late error nothing works until the process starts again."

    def lose(error):
        if error is not None:
            torch.ones = lost

    def lost(*args, **kwargs):
        raise RuntimeError("the context is lost")

    when_synchronizing(lose)


@variant({"check.error.an_error_on_one_stream_leaves_the_others": "a stream without a fault raises the error of another one"})
def errors_belong_to_the_device():
    "Waiting for a stream raises the error of another one."
    stream = torch.Stream

    class Wrong(stream):
        def synchronize(self):
            torch.openreg.synchronize(self.device)

    torch.Stream = Wrong


@variant({"check.error.an_unknown_operator_is_named": "an operator without a kernel for the device, 2 * 1 + 1, gives [0.0, 0.0, 0.0] without a word"})
def unknown_operators_give_zeros():
    "An operator without a kernel gives zeros."
    library = torch.library.Library("conformance_kit", "FRAGMENT")
    library.define("twice_plus_one(Tensor x) -> Tensor")
    library.impl("twice_plus_one", torch.zeros_like, "PrivateUse1")
    return library
