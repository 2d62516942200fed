"""What the device-generic tests share: a tensor's values as numpy sees them, and seeded inputs.

References are numpy or loops in Python, never another torch device, so that the same file tests the CPU too.
"""

import numpy
import torch

INTEGERS = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)
FLOATS = (torch.float32, torch.float64)
COMPLEX = (torch.complex64, torch.complex128)
NUMPY_DTYPES = (*INTEGERS, *FLOATS, *COMPLEX, torch.float16, torch.bool)
EVERY_DTYPE = (
    *NUMPY_DTYPES, torch.bfloat16, torch.complex32, torch.uint16, torch.uint32, torch.uint64,
    torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz,
)


def host(tensor):
    """A copy of the tensor's values as numpy array; float32 for bfloat16, which numpy does not have."""
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy().copy()


def numbers(shape, dtype=torch.float64, seed=0):
    """Small whole numbers as numpy array, exact in every dtype; both signs where the dtype has them."""
    low = 0 if dtype in (torch.uint8, torch.bool) else -4
    values = numpy.random.default_rng(seed).integers(low, 5, shape)
    if dtype == torch.bool:
        return values > 2
    name = str(dtype).removeprefix("torch.")
    if dtype.is_complex:
        return (values + 1j * numpy.flip(values)).astype(name)
    return values.astype(name)


def reals(shape, seed=0, dtype="float64"):
    """Normally distributed numbers as numpy array."""
    return numpy.random.default_rng(seed).standard_normal(shape).astype(dtype)


def synchronize(device):
    """Waits for a device; an error that depends on values is raised here at the latest."""
    torch.get_device_module(device).synchronize()
