"""The hooks (L1): what torch asks of a backend apart from devices and streams: pinned memory, generators, storages, forks."""

import os
import select
import signal

import torch

from . import check

CHILD_S = 20  # a forked child that has said nothing by then hangs


@check
def the_accelerator_is_available(probe):
    "torch.accelerator names this device type as the process's accelerator and says that it is available."
    probe.needs_accelerator()
    probe.expect(torch.accelerator.is_available(), f"torch.accelerator.is_available() is False, while tensors can be made on {probe.device}")


@check
def pinned_memory_knows_that_it_is_pinned(probe):
    "pin_memory() gives host memory that is_pinned() knows, with the same values; other memory is not pinned."
    probe.needs_accelerator()
    plain = torch.arange(1000.0)
    pinned = plain.pin_memory()
    probe.expect(pinned.is_pinned(), "a tensor from pin_memory() says that it is not pinned")
    probe.expect(pinned.device.type == "cpu", f"a tensor from pin_memory() is on {pinned.device}, and pinned memory is memory of the host")
    probe.expect(torch.equal(plain, pinned), "pin_memory() changes the values")
    probe.expect(not plain.is_pinned(), "a tensor in ordinary memory says that it is pinned")
    made = torch.empty(10, pin_memory=True)
    probe.expect(made.is_pinned(), "torch.empty(pin_memory=True) makes memory that is not pinned")


@check
def pinned_views_are_pinned(probe):
    "A view into the middle of pinned memory is pinned, too."
    probe.needs_accelerator()
    view = torch.empty(1000).pin_memory()[500:]
    probe.expect(view.is_pinned(), "a view that begins inside of pinned memory says that it is not pinned")


@check
def pinned_memory_copies_both_ways(probe):
    "Values go from pinned memory to the device and back into pinned memory without a change."
    probe.needs_accelerator()
    source = torch.arange(5000.0).pin_memory()
    back = torch.zeros(5000).pin_memory()
    back.copy_(source.to(probe.device))
    probe.expect(torch.equal(back, source), f"values from pinned memory come back as {back[:4].tolist()}..., expected {source[:4].tolist()}...")


@check
def a_generator_belongs_to_its_device(probe):
    "torch.Generator(device) is of that device and keeps the seed that it is given."
    probe.needs(probe.type != "meta", "meta has no random numbers")
    generator = torch.Generator(device=probe.device)
    probe.expect(generator.device.type == probe.type, f"torch.Generator({str(probe.device)!r}) is of {generator.device}")
    generator.manual_seed(123456789)
    found = generator.initial_seed()
    probe.expect(found == 123456789, f"initial_seed() is {found} after manual_seed(123456789)")


@check
def a_storage_grows_and_keeps_its_bytes(probe):
    "untyped_storage().resize_() to more bytes keeps what was there."
    probe.needs(probe.type != "meta", "meta tensors have no values")
    tensor = torch.arange(6.0, device=probe.device)
    tensor.untyped_storage().resize_(4096)
    size = tensor.untyped_storage().nbytes()
    probe.expect(size == 4096, f"a storage resized to 4096 bytes has {size}")
    probe.expect(tensor.cpu().tolist() == [0, 1, 2, 3, 4, 5], f"after its storage grew, a tensor of 0 to 5 reads {tensor.cpu().tolist()}")


@check
def a_storage_shrinks_to_nothing_and_comes_back(probe):
    "untyped_storage().resize_(0) is possible, and memory of the size from before takes new values: what sharded training does."
    probe.needs(probe.type != "meta", "meta tensors have no values")
    tensor = torch.ones(1000, device=probe.device)
    tensor.untyped_storage().resize_(0)
    probe.expect(tensor.untyped_storage().nbytes() == 0, f"a storage resized to 0 has {tensor.untyped_storage().nbytes()} bytes")
    tensor.untyped_storage().resize_(4000)
    tensor.fill_(7)
    probe.expect(tensor.sum().item() == 7000, f"a storage that came back and was filled with 7 adds up to {tensor.sum().item()}, expected 7000")


@check
def a_forked_child_is_told(probe):
    "In a forked child of a process that has used the device, using it raises RuntimeError; it neither hangs nor crashes."
    probe.needs_accelerator()
    probe.needs(hasattr(os, "fork"), "this system has no fork")
    torch.ones(1, device=probe.device)
    probe.synchronize()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _use_in_a_fork(probe.device, writer)
    os.close(writer)
    said = b""
    while select.select([reader], [], [], CHILD_S)[0] and (part := os.read(reader, 4096)):
        said += part
    os.close(reader)
    os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    crashed = f"ends by signal {-status}" if status < 0 and status != -signal.SIGKILL else "says nothing for 20 seconds"
    probe.expect(said, f"a forked child that uses the device {crashed}, instead of raising RuntimeError")
    probe.expect(said.startswith((b"RuntimeError", b"AcceleratorError", b"works")), f"a forked child that uses the device: {said.decode(errors='replace')}")


def _use_in_a_fork(device, writer) -> None:
    """Says on the pipe what a tensor on the device gives, and ends the process."""
    try:
        tensor = torch.ones(2, device=device) + 1
        said = "works" if tensor.cpu().tolist() == [2, 2] else f"raises nothing, and 1 + 1 is {tensor.cpu().tolist()}"
    except BaseException as error:  # whatever it is, the parent judges it
        said = f"{type(error).__name__}: {error}"
    os.write(writer, said.encode()[:4000])
    os._exit(0)
