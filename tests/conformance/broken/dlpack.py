"""Wrong DLPack: capsules of something else, of memory that nobody keeps or nobody gives back."""

import torch

from . import variant

PLAIN = torch.Tensor.__dlpack__


def exports(change):
    """Capsules are made of change(tensor)."""
    torch.Tensor.__dlpack__ = lambda self, **options: PLAIN(change(self), **options)


@variant({
    "check.dlpack.a_capsule_names_its_device": "the capsule says device kind 1, index 0; expected 12, 0",
    "check.dlpack.memory_is_shared": "the tensor from the capsule is on cpu, expected openreg:0",
})  # fmt: skip
def capsules_of_the_cpu():
    "A capsule holds a copy in host memory."
    exports(lambda tensor: tensor.cpu())


@variant({
    "check.dlpack.a_capsule_says_what_the_tensor_is": "the capsule of a transposed view has shape and strides ([3, 3], [3, 1]), expected ([3, 3], [1, 4])",
    "check.dlpack.memory_is_shared": "the tensor from the capsule has shape (3, 2) and strides (2, 1)",
})  # fmt: skip
def capsules_are_dense():
    "A capsule is always dense."
    exports(lambda tensor: tensor.contiguous())


@variant({"check.dlpack.memory_is_shared": "a write into the tensor from the capsule does not reach the original"})
def capsules_are_copies():
    "A capsule holds a copy on the device."
    exports(lambda tensor: tensor.clone())


@variant({"check.dlpack.a_capsule_keeps_its_memory": "the memory behind a capsule was given to another tensor"})
def capsules_keep_nothing():
    "A capsule holds an address and not the memory."

    def alias(tensor):
        storage = torch._C._construct_storage_from_data_pointer(tensor.data_ptr(), tensor.device, tensor.nbytes)
        return torch.empty(0, device=tensor.device).set_(storage)

    exports(alias)


@variant({"check.dlpack.a_capsule_that_nobody_reads_is_freed": "three dropped capsules keep"})
def capsules_live_forever():
    "What was exported once is never freed."
    kept = []
    exports(lambda tensor: kept.append(tensor) or tensor)
    return kept


@variant({
    "check.dlpack.a_consumer_may_name_its_stream": "__dlpack__ of stream='fast' raised nothing",
    "check.dlpack.a_copy_for_the_cpu_is_made": "the capsule for the CPU says device kind 12, expected 1",
})  # fmt: skip
def wishes_of_the_consumer_are_ignored():
    "__dlpack__ ignores its arguments."
    torch.Tensor.__dlpack__ = lambda self, **options: PLAIN(self)
