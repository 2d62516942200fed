"""DLPack both ways, numpy's refusals, and what torch.from_dlpack does with the fix that it needs.

Needs the built extension.
"""

import numpy
import pytest
import torch

import torch_openreg  # noqa: F401  (registers the device)
from torch_openreg import core_fixes

EXT_DEVICE = 12  # kDLExtDev
DTYPES = [torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int8, torch.int16, torch.int32, torch.int64,
          torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex32, torch.complex64, torch.complex128,
          torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu]  # fmt: skip


@pytest.fixture
def fixed():
    yield core_fixes.apply("dlpack-device")
    core_fixes.revert()


def sample(dtype, device):
    return torch.arange(12, dtype=torch.uint8).to(device).view(torch.uint8).repeat(dtype.itemsize).remainder_(2).view(dtype)


def same(a, b):
    return (a.dtype, a.shape, a.stride(), a.device, a.data_ptr()) == (b.dtype, b.shape, b.stride(), b.device, b.data_ptr())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_capsules_carry_every_dtype_without_a_copy(dtype, device):
    x = sample(dtype, device).view(3, 4).t()[1:]
    for capsule in (torch.utils.dlpack.to_dlpack(x), x.__dlpack__(), x.__dlpack__(max_version=(1, 0))):
        assert same(torch.from_dlpack(capsule), x)


def test_the_import_shares_memory_and_keeps_it_alive(device):
    before = torch.openreg.memory_allocated(device)
    x = torch.arange(6.0, device=device)
    y = torch.utils.dlpack.from_dlpack(torch.utils.dlpack.to_dlpack(x))
    y.mul_(2)
    assert x.tolist() == [0, 2, 4, 6, 8, 10]
    del x
    assert torch.openreg.memory_allocated(device) > before and y.sum().item() == 30
    del y
    assert torch.openreg.memory_allocated(device) == before


def test_a_capsule_that_nobody_takes_frees_its_memory_and_one_serves_once(device):
    before = torch.openreg.memory_allocated(device)
    capsule = torch.utils.dlpack.to_dlpack(torch.ones(1000, device=device))
    del capsule
    assert torch.openreg.memory_allocated(device) == before
    capsule = torch.ones(3, device=device).__dlpack__()
    torch.from_dlpack(capsule)
    with pytest.raises(RuntimeError, match="(?i)capsule"):
        torch.from_dlpack(capsule)


def test_the_exporter_copies_and_moves_when_asked(device):
    x = torch.arange(4.0, device=device)
    twin = torch.from_dlpack(x.__dlpack__(copy=True))
    assert twin.data_ptr() != x.data_ptr() and twin.device == device and twin.tolist() == [0, 1, 2, 3]
    assert torch.from_dlpack(x.__dlpack__(copy=False)).data_ptr() == x.data_ptr()
    assert torch.from_dlpack(x.__dlpack__(dl_device=(EXT_DEVICE, device.index))).data_ptr() == x.data_ptr()
    host = torch.from_dlpack(x.__dlpack__(dl_device=(1, 0), copy=True))
    assert host.device.type == "cpu" and host.tolist() == [0, 1, 2, 3]


def test_what_cannot_be_exported_is_refused(device):
    x = torch.ones(3, device=device)
    with pytest.raises(BufferError, match="require gradient"):
        x.clone().requires_grad_().__dlpack__()
    with pytest.raises(BufferError, match="conjugate"):
        torch.ones(2, dtype=torch.complex64, device=device).conj().__dlpack__()
    with pytest.raises(BufferError, match="layout"):
        x.to_sparse().__dlpack__()
    with pytest.raises(TypeError, match="stream"):
        x.__dlpack__(stream="1")


def test_from_dlpack_takes_a_tensor_with_the_fix(fixed, device):
    x = torch.arange(6.0, device=device)
    assert x.__dlpack_device__() == (EXT_DEVICE, device.index)
    y = torch.from_dlpack(x)
    assert same(x, y)
    assert torch.from_dlpack(x, copy=True).data_ptr() != x.data_ptr()
    other = torch.device("openreg", 1 - device.index)
    for target in ("cpu", other, device):
        moved = torch.from_dlpack(x, device=target)
        assert moved.device == torch.device(target) and moved.tolist() == x.tolist()
    with pytest.raises(ValueError, match="without copying"):
        torch.from_dlpack(x, device="cpu", copy=False)
    assert torch.asarray(x, device=device).data_ptr() == x.data_ptr()


def test_subclasses_and_functions_that_override_see_the_fixed_method_too(fixed, device):
    class Named(torch.Tensor):
        pass

    assert torch.ones(2, device=device).as_subclass(Named).__dlpack_device__() == (EXT_DEVICE, device.index)


@pytest.mark.parametrize("stream, waits", [("side.stream_id", True), ("None", True), ("-1", False)])
def test_the_consumers_stream_waits_for_the_exporters_with_the_fix(python, stream, waits):
    python(f"""
    import torch, torch_openreg
    from torch_openreg import core_fixes
    assert "dlpack-stream" in core_fixes.apply("dlpack-stream")
    for device in (torch.device("openreg", 1), torch.device("openreg", 0)):
        exporting, side = torch.openreg.Stream(device), torch.openreg.Stream(device)
        consumer = side if {stream!r} != "None" else torch.openreg.default_stream(device)
        x = torch.zeros(8, device=device)
        torch.openreg.synchronize(device)
        with torch.openreg.stream(exporting):
            x.fill_(1)
            y = torch.from_dlpack(x.__dlpack__(stream={stream}))
        with torch.openreg.stream(consumer):
            assert y.sum().item() == (8 if {waits} else 0)
        torch.openreg.synchronize(device)
    """, env={"OPENREG_SCHEDULE": "lazy"})


def test_a_stream_that_the_device_does_not_have_is_refused_with_the_fix(device):
    core_fixes.apply("dlpack-stream")
    try:
        x = torch.ones(3, device=device)
        with pytest.raises(ValueError, match="0x3039 is not a live stream"):
            x.__dlpack__(stream=12345)
        with pytest.raises(TypeError, match="stream"):
            x.__dlpack__(stream="1")
        assert torch.from_dlpack(torch.ones(2).__dlpack__(stream=None)).tolist() == [1, 1]
        with pytest.raises(AssertionError, match="cpu"):
            torch.ones(2).__dlpack__(stream=7)
    finally:
        core_fixes.revert()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_numpy_refuses_device_memory(device):
    x = torch.ones(2, device=device)
    for take in (lambda: x.numpy(), lambda: x.__array__(), lambda: numpy.asarray(x), lambda: numpy.array(x), lambda: numpy.add(x, 1)):
        with pytest.raises(TypeError, match=f"can't convert {device} device type tensor to numpy. Use Tensor.cpu\\(\\)"):
            take()
    with pytest.raises(RuntimeError, match="device"):
        numpy.from_dlpack(Exporter(x))
    with pytest.raises(AttributeError, match="cuda"):
        x.__cuda_array_interface__
    with pytest.raises(TypeError):
        memoryview(x)
    assert numpy.asarray(x.cpu()).tolist() == [1, 1] and x.numpy(force=True).tolist() == [1, 1]
    assert torch.as_tensor(numpy.arange(3), device=device).tolist() == [0, 1, 2]


class Exporter:
    """A tensor as numpy's protocol sees one of a library that has no gap."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __dlpack__(self, **kwargs):
        return self.tensor.__dlpack__()

    def __dlpack_device__(self):
        return EXT_DEVICE, self.tensor.device.index
