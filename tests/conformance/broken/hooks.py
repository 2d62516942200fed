"""Wrong hooks: pinned memory that is none, generators without a device, storages that lose bytes, forks that crash."""

import os

import torch

from . import variant


@variant({"check.hooks.the_accelerator_is_available": "torch.accelerator.is_available() is False"})
def never_available():
    "is_available() is false while the device works."
    torch.openreg.is_available = lambda: False


@variant({"check.hooks.pinned_memory_knows_that_it_is_pinned": "a tensor from pin_memory() says that it is not pinned"})
def pin_memory_is_a_copy():
    "pin_memory() copies into ordinary memory."
    torch.Tensor.pin_memory = lambda self: self.clone()


@variant({"check.hooks.pinned_views_are_pinned": "a view that begins inside of pinned memory says that it is not pinned"})
def only_whole_blocks_are_pinned():
    "is_pinned() knows the first byte of a pinned block only."
    is_pinned = torch.Tensor.is_pinned
    torch.Tensor.is_pinned = lambda self: is_pinned(self) and self.storage_offset() == 0


@variant({"check.hooks.pinned_memory_copies_both_ways": "values from pinned memory come back as [0.0, 0.0, 0.0, 0.0]"})
def copies_into_pinned_memory_move_nothing():
    "A copy from the device into pinned memory moves nothing."
    copy = torch.Tensor.copy_
    torch.Tensor.copy_ = lambda self, source, *rest: self if self.is_pinned() else copy(self, source, *rest)


@variant({"check.hooks.a_generator_belongs_to_its_device": "torch.Generator('openreg:0') is of cpu"})
def generators_are_of_the_cpu():
    "A generator for the device is one of the CPU."
    generator = torch.Generator
    torch.Generator = lambda device="cpu": generator()


@variant({"check.hooks.a_storage_grows_and_keeps_its_bytes": "after its storage grew, a tensor of 0 to 5 reads [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]"})
def a_grown_storage_is_new():
    "A storage that grows gets new memory and does not copy into it."
    resize = torch.UntypedStorage.resize_

    def wrong(self, size):
        resize(self, size)
        return self.fill_(0)

    torch.UntypedStorage.resize_ = wrong


@variant({"check.hooks.a_storage_shrinks_to_nothing_and_comes_back": "a storage resized to 0 has 4000 bytes"})
def storages_never_shrink():
    "A storage resized to fewer bytes stays as it is."
    resize = torch.UntypedStorage.resize_
    torch.UntypedStorage.resize_ = lambda self, size: resize(self, max(size, self.nbytes()))


@variant({"check.hooks.a_forked_child_is_told": "a forked child that uses the device ends by signal 6, instead of raising RuntimeError"})
def forked_children_crash():
    "A forked child that uses the device crashes."

    def crash():
        torch.ones = lambda *args, **kwargs: os.abort()

    os.register_at_fork(after_in_child=crash)
