"""DLPack (L4): capsules that other libraries read, and tensors made from capsules."""

import ctypes

import torch
from torch.utils.dlpack import from_dlpack

from . import check

# DLDeviceType of the DLPack header; PyTorch writes kDLExtDev for out-of-tree devices.
KINDS = {"cpu": 1, "cuda": 10 if torch.version.hip else 2, "mps": 8, "xpu": 14}
EXTENSION = 12
CODES = {"float32": (2, 32), "float16": (2, 16), "bfloat16": (4, 16), "int64": (0, 64), "int32": (0, 32), "uint8": (1, 8), "bool": (6, 8), "complex64": (5, 64)}


class _Tensor(ctypes.Structure):
    """DLTensor, which a DLManagedTensor begins with."""

    _fields_ = [
        ("data", ctypes.c_void_p), ("kind", ctypes.c_int32), ("index", ctypes.c_int32), ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)), ("offset_bytes", ctypes.c_uint64),
    ]  # fmt: skip


def _read(capsule) -> _Tensor:
    """What a capsule says. Valid while the capsule lives and is not consumed."""
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return _Tensor.from_address(get(capsule, b"dltensor"))


def _capsule(tensor):
    return tensor.__dlpack__()


@check
def a_capsule_names_its_device(probe):
    "A capsule says the device's kind, which is kDLExtDev for an out-of-tree device, and its index."
    capsule = _capsule(torch.ones(2, device=probe.device))
    found, wanted = _read(capsule), (KINDS.get(probe.type, EXTENSION), probe.device.index or 0)
    probe.expect((found.kind, found.index) == wanted, f"the capsule says device kind {found.kind}, index {found.index}; expected {wanted[0]}, {wanted[1]}")


@check
def a_capsule_says_what_the_tensor_is(probe):
    "A capsule has the tensor's address, shape, strides and dtype."
    for name, wanted in CODES.items():
        try:
            x = torch.tensor([[0, 1, 2], [3, 4, 5]], dtype=getattr(torch, name)).to(probe.device)
        except (RuntimeError, TypeError):  # the device has no such dtype, which is for the operators' level to say
            continue
        capsule = _capsule(x)
        found = _read(capsule)
        same = (found.code, found.bits, found.lanes) == (*wanted, 1)
        probe.expect(same, f"the capsule of {name} says code {found.code} of {found.bits} bits, expected {wanted}")
    view = torch.arange(12.0).to(probe.device).view(3, 4).t()[1:]
    capsule = _capsule(view)
    found = _read(capsule)
    sizes = [found.shape[place] for place in range(found.ndim)], [found.strides[place] for place in range(found.ndim)]
    probe.expect(sizes == ([3, 3], [1, 4]), f"the capsule of a transposed view has shape and strides {sizes}, expected ([3, 3], [1, 4])")
    address = (found.data or 0) + found.offset_bytes
    probe.expect(address == view.data_ptr(), f"the capsule's address is {address:#x}, the view's {view.data_ptr():#x}")


@check
def memory_is_shared(probe):
    "A tensor made from a capsule shares the memory of the original, both ways, and lies on its device."
    x = torch.arange(6.0).to(probe.device).view(2, 3)
    y = from_dlpack(_capsule(x.t()))
    probe.expect(y.device == x.device, f"the tensor from the capsule is on {y.device}, expected {x.device}")
    probe.expect((y.shape, y.stride()) == ((3, 2), (1, 3)), f"the tensor from the capsule has shape {tuple(y.shape)} and strides {y.stride()}")
    y.add_(10)
    probe.expect(x.flatten().cpu().tolist() == [10, 11, 12, 13, 14, 15], "a write into the tensor from the capsule does not reach the original")
    x.zero_()
    probe.expect(not bool(y.cpu().any()), "a write into the original does not reach the tensor from the capsule")


@check
def a_capsule_keeps_its_memory(probe):
    "Memory stays while a capsule, or a tensor made from it, needs it, and is given back after that."
    x = torch.full((1000,), 7.0, device=probe.device)
    capsule = _capsule(x)
    del x
    others = [torch.zeros(1000, device=probe.device) for _ in range(4)]
    y = from_dlpack(capsule)
    del capsule
    others += [torch.zeros(1000, device=probe.device) for _ in range(4)]
    probe.expect(bool((y.cpu() == 7).all()), "the memory behind a capsule was given to another tensor")


@check
def a_capsule_that_nobody_reads_is_freed(probe):
    "A capsule that is dropped without being read gives its memory back."
    probe.needs_memory_statistics()
    probe.synchronize()
    before = torch.accelerator.memory_allocated(probe.device)
    for _ in range(3):
        capsule = _capsule(torch.ones(5000, device=probe.device))
        del capsule
    probe.synchronize()
    after = torch.accelerator.memory_allocated(probe.device)
    probe.expect(after == before, f"three dropped capsules keep {after - before} bytes")


@check
def a_consumer_may_name_its_stream(probe):
    "__dlpack__ takes stream=None and -1, and refuses a stream that is no number, and a tensor that requires a gradient."
    x = torch.arange(3.0).to(probe.device)
    for stream in (None, -1):
        y = from_dlpack(x.__dlpack__(stream=stream))
        probe.expect(y.cpu().tolist() == [0, 1, 2], f"the tensor of __dlpack__(stream={stream}) is {y.cpu().tolist()}")
    for what, call, kinds in (
        ("stream='fast'", lambda: x.__dlpack__(stream="fast"), TypeError),
        ("a tensor that requires a gradient", lambda: x.clone().requires_grad_().__dlpack__(), (BufferError, RuntimeError)),
    ):
        try:
            call()
        except kinds:
            continue
        probe.expect(False, f"__dlpack__ of {what} raised nothing")


@check
def a_copy_for_the_cpu_is_made(probe):
    "__dlpack__(dl_device=(1, 0), copy=True) gives a capsule with a copy in host memory."
    x = torch.arange(3.0).to(probe.device)
    capsule = x.__dlpack__(dl_device=(1, 0), copy=True)
    probe.expect(_read(capsule).kind == 1, f"the capsule for the CPU says device kind {_read(capsule).kind}, expected 1")
    y = from_dlpack(capsule)
    x.zero_()
    probe.expect(y.device.type == "cpu" and y.cpu().tolist() == [0, 1, 2], f"the copy for the CPU is {y.cpu().tolist()} on {y.device}")
