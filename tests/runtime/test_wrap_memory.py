"""Device memory of other owners as tensors, from C++ outside the tree: the package's wrap_device_memory, and torch's from_blob. Blocks by address.

Needs the built extension, a C++ compiler and ninja; the build takes about half a minute.
"""

import os
import sys
from pathlib import Path

import pytest
import torch
from torch.utils import cpp_extension

import torch_openreg


@pytest.fixture(scope="session")  # a process that gets tests of this file twice must not register the operators twice
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wrap_memory")
    libraries = torch_openreg.get_lib_dir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
        cpp_extension.load(
            name="wrap_memory",
            sources=[str(Path(__file__).with_name("wrap_memory.cpp"))],
            extra_include_paths=[torch_openreg.get_include()],
            extra_cflags=["-O1", "-g0"],
            extra_ldflags=[f"-L{libraries}", "-ltorch_openreg", f"-Wl,-rpath,{libraries}"],
            build_directory=str(folder),
            is_python_module=False,
        )
    return folder / "wrap_memory.so"


@pytest.mark.parametrize("make", ["wrap", "blob"])
def test_a_pointer_becomes_a_tensor_and_its_owner_hears_of_the_end(library, make, device):
    owner = torch.arange(8.0, device=device)
    before, released = torch.openreg.memory_allocated(device), torch.ops.wrap_memory.released()
    x = getattr(torch.ops.wrap_memory, make)(owner.data_ptr() + 8, 4, owner)
    assert x.device == device and torch.openreg.memory_allocated(device) == before
    x.mul_(10)
    assert owner.tolist() == [0, 1, 20, 30, 40, 50, 6, 7]
    with pytest.raises(RuntimeError, match="not resizable"):
        x.untyped_storage().resize_(1000)
    assert torch.ops.wrap_memory.released() == released
    del x
    for index in (0, 1):
        torch.openreg.synchronize(index)
    assert torch.ops.wrap_memory.released() == released + 1


def test_a_host_pointer_is_refused(library, device):
    with pytest.raises(ValueError, match="not in live device memory"):
        torch.ops.wrap_memory.wrap(torch.ones(4).data_ptr(), 4, torch.empty(0, device=device))


def test_a_block_by_address_is_for_a_stream_that_is_there(library, device):
    other = torch.openreg.Stream(1 - device.index)
    before = torch.openreg.memory_allocated(device)
    for stream in (99999, -1, other.stream_id, other.native_handle):
        for size in (64, 0):
            with pytest.raises(ValueError, match=f"There is no stream {stream} of {device}"):
                torch.ops.wrap_memory.allocate(stream, device, size)
    stream = torch.openreg.Stream(device)
    for there in (0, stream.stream_id, stream.native_handle):
        torch.openreg.caching_allocator_delete(torch.ops.wrap_memory.allocate(there, device, 64))
    assert torch.openreg.memory_allocated(device) == before


def test_memory_is_released_behind_the_work_of_every_stream(library, python):
    python(
        f"""
        import torch, torch_openreg
        torch.ops.load_library({str(library)!r})
        for index in (1, 0):
            released = torch.ops.wrap_memory.released()
            owner = torch.ones(8, device=f"openreg:{{index}}")
            side = torch.openreg.Stream(index)
            side.wait_stream(torch.openreg.current_stream(index))
            x = torch.ops.wrap_memory.wrap(owner.data_ptr(), 8, owner)
            with torch.openreg.stream(side):
                y = x * 3
            del x
            torch.openreg.current_stream(index).synchronize()
            assert torch.ops.wrap_memory.released() == released
            torch.openreg.synchronize(1)
            torch.openreg.synchronize(0)
            assert torch.ops.wrap_memory.released() == released + 1 and y.tolist() == [3] * 8
        """,
        env={"OPENREG_SCHEDULE": "lazy"},
    )


@pytest.mark.parametrize("joined", [True, False], ids=["side stream", "origin only"])
def test_memory_that_goes_during_a_capture_is_released_after_it_and_leaves_the_capture_alone(library, python, joined):
    python(
        f"""
        import gc
        import torch, torch_openreg
        torch.ops.load_library({str(library)!r})
        owner, z = torch.ones(8, device="openreg"), torch.ones(4, device="openreg")
        z + 1
        origin, side = torch.openreg.Stream(), torch.openreg.Stream()
        x = torch.ops.wrap_memory.wrap(owner.data_ptr(), 8, owner)
        torch.openreg.synchronize()
        released = torch.ops.wrap_memory.released()
        with torch.openreg.stream(side):
            z + 1
        graph = torch.openreg.Graph()
        with torch.openreg.stream(origin):
            y = x * 3
            graph.capture_begin()
            if {joined}:
                side.wait_stream(origin)
                with torch.openreg.stream(side):
                    w = z + 1
                origin.wait_stream(side)
            else:
                w = z + 1
            del x
            for stream in (torch.openreg.default_stream(), *([] if {joined} else [side])):
                with torch.openreg.stream(stream):
                    z + 1  # not captured
            assert torch.ops.wrap_memory.released() == released
            graph.capture_end()
        assert torch.ops.wrap_memory.released() == released  # lazy: the multiplication has not run
        torch.openreg.synchronize()
        assert torch.ops.wrap_memory.released() == released + 1 and y.tolist() == [3] * 8
        graph.replay()
        assert w.tolist() == [2] * 4
        del graph
        torch.openreg.synchronize()
        assert torch.ops.wrap_memory.released() == released + 1
        """,
        env={"OPENREG_SCHEDULE": "lazy"},
    )
