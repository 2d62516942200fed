"""The device (L1): how many there are, how tensors name them, which one work is done on."""

import torch

from . import check


@check
def every_counted_device_takes_a_tensor(probe):
    "device_count() says how many devices take tensors, and a tensor knows the one it is on."
    probe.needs_accelerator()
    count = torch.accelerator.device_count()
    probe.expect(isinstance(count, int) and count >= 1, f"torch.accelerator.device_count() is {count!r}")
    for index in range(count):
        device = torch.device(probe.type, index)
        try:
            tensor = torch.ones(3, device=device)
        except Exception as error:
            probe.expect(False, f"device_count() is {count}, and a tensor on {device} raises {type(error).__name__}: {str(error).splitlines()[0]}")
        probe.expect(tensor.device == device, f"a tensor made on {device} says that it is on {tensor.device}")
        probe.expect(tensor.cpu().tolist() == [1, 1, 1], f"ones made on {device} are {tensor.cpu().tolist()}")


@check
def an_index_beyond_the_last_is_refused(probe):
    "A tensor on a device that does not exist raises RuntimeError, and the next one on a device that does works."
    probe.needs_accelerator()
    beyond = torch.device(probe.type, torch.accelerator.device_count())
    said = f"torch.ones(1, device={str(beyond)!r}) does not raise RuntimeError, although there is no such device"
    probe.expect_raises(lambda: torch.ones(1, device=beyond), said, (RuntimeError,))
    probe.expect(torch.ones(1, device=probe.device).item() == 1, f"after a refused device {probe.device} does not work")


@check
def a_device_without_index_is_the_current_one(probe):
    "A tensor on the device type without an index is on the current device."
    probe.needs_two_devices()
    before = torch.accelerator.current_device_index()
    try:
        for index in (1, 0):
            torch.accelerator.set_device_index(index)
            found = torch.ones(1, device=probe.type).device.index
            probe.expect(found == index, f"while {probe.type}:{index} is current, a tensor on {probe.type!r} is on {probe.type}:{found}")
    finally:
        torch.accelerator.set_device_index(before)


@check
def results_stay_on_the_device_of_their_inputs(probe):
    "An operator runs on the device of its tensors, whichever device is current."
    other = probe.needs_two_devices()
    for device in (probe.device, other):
        result = torch.arange(4.0, device=device) * 2 + 1
        probe.expect(result.device == device, f"arithmetic on tensors of {device} gives a tensor on {result.device}")
        probe.expect(result.cpu().tolist() == [1, 3, 5, 7], f"arithmetic on {device} gives {result.cpu().tolist()}, expected [1, 3, 5, 7]")


@check
def a_copy_to_another_device_has_memory_of_its_own(probe):
    "to(another device) copies the values, and neither tensor sees later changes of the other."
    other = probe.needs_two_devices()
    source = torch.arange(1000.0, device=probe.device)
    copy = source.to(other)
    probe.expect(copy.device == other, f"to({other}) gives a tensor on {copy.device}")
    source.zero_()
    found = copy.cpu()
    probe.expect(torch.equal(found, torch.arange(1000.0)), f"values copied from {probe.device} to {other} differ, from {found[:4].tolist()} on")


@check
def to_the_same_device_is_the_tensor_itself(probe):
    "to(device) returns the tensor itself when it is there already, and a copy with copy=True."
    tensor = torch.ones(3, device=probe.device)
    probe.expect(tensor.to(probe.device) is tensor, f"to({probe.device}) of a tensor on {tensor.device} makes another tensor")
    copy = tensor.to(probe.device, copy=True)
    probe.needs(probe.type != "meta", "meta tensors have no values")
    copy.zero_()
    probe.expect(tensor.cpu().tolist() == [1, 1, 1], "to(device, copy=True) shares its memory with the tensor it copied")


@check
def the_default_device_takes_factories(probe):
    "Inside `with torch.device(d)` a factory without a device makes tensors on d, and outside it does not."
    with torch.device(probe.device):
        found = [torch.zeros(2).device, torch.arange(3).device, torch.tensor([1.0]).device, torch.full((2,), 1.0).device]
    probe.expect(set(found) == {probe.device}, f"inside `with torch.device({str(probe.device)!r})` factories make tensors on {', '.join(map(str, found))}")
    outside = torch.zeros(2).device
    probe.expect(outside.type == "cpu", f"after the block a factory makes tensors on {outside}")


@check
def tensors_of_two_devices_do_not_mix(probe):
    "An operator on tensors of the CPU and the device raises RuntimeError that names both, and runs on neither."
    probe.needs(probe.type != "cpu", "the CPU itself")
    here, there = torch.ones(3, device=probe.device), torch.ones(3)
    said = f"adding a tensor on {probe.device} and one on the CPU does not raise RuntimeError"
    text = str(probe.expect_raises(lambda: here + there, said, (RuntimeError,)))
    probe.expect("cpu" in text and probe.type in text, f"the error of mixed devices does not name both: {text.splitlines()[0]}")


@check
def the_capability_names_dtypes_that_work(probe):
    "Every dtype that get_device_capability() lists can be copied to the device and back."
    probe.needs_accelerator()
    try:
        supported = torch.accelerator.get_device_capability(probe.device)["supported_dtypes"]
    except RuntimeError as error:
        probe.needs("support" not in str(error), f"no capabilities: {str(error).splitlines()[0]}")
        raise
    plain = [dtype for dtype in supported if not str(dtype).startswith(("torch.q", "torch.bits")) and torch.empty(0, dtype=dtype).element_size()]
    probe.expect(torch.float32 in plain, f"get_device_capability() does not list torch.float32 but {sorted(map(str, supported))}")
    for dtype in plain:
        raw = torch.arange(16, dtype=torch.uint8)
        wanted = (raw % 2).to(torch.bool) if dtype == torch.bool else raw.view(dtype)
        found = wanted.to(probe.device).cpu()
        probe.expect(torch.equal(found.view(torch.uint8), wanted.view(torch.uint8)), f"{dtype}, which the capability lists, is not the same after a round trip")
