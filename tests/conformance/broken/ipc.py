"""Wrong sharing: a tensor that arrives as a copy."""

from multiprocessing.reduction import ForkingPickler

import torch

from . import variant


@variant({"check.ipc.a_tensor_is_shared_with_another_process": "what the other process writes is not seen here: the tensor was copied"})
def tensors_are_sent_as_copies():
    "A tensor goes to another process through host memory."
    ForkingPickler.register(torch.Tensor, lambda tensor: (_rebuild, (tensor.tolist(), tensor.stride(), str(tensor.device))))


def _rebuild(values, strides, device):
    plain = torch.tensor(values)
    return torch.empty_strided(plain.shape, strides, device=device).copy_(plain)
