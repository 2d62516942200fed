"""The module (L1): torch.<type>, the functions that torch's own code looks up by name."""

import contextlib

import torch

from . import check

# Name -> who in torch calls it.
CALLED = {
    "device_count": "torch.accelerator and torch.random.fork_rng",
    "is_available": "torch.accelerator and torch._utils",
    "current_device": "torch.load and FakeTensor",
    "is_initialized": "FakeTensor, and with it torch.compile and torch.export",
    "_is_in_bad_fork": "torch.manual_seed",
    "manual_seed_all": "torch.manual_seed",
    "get_rng_state": "torch.random.fork_rng and torch.utils.checkpoint",
    "set_rng_state": "torch.random.fork_rng and torch.utils.checkpoint",
    "get_amp_supported_dtype": "torch.autocast",
}
# The same of a device with streams and several devices.
CALLED_OF_MANY = {
    "set_device": "torch.distributed and launchers",
    "device": "torch.load and torch.utils.checkpoint",
    "synchronize": "torch.utils.benchmark and everybody who measures",
    "Stream": "torch.distributed and torch.compile",
    "Event": "torch.distributed and torch.compile",
    "stream": "torch.distributed.fsdp",
    "current_stream": "torch.distributed.fsdp",
}


def needs_module(probe):
    """torch.<type>. Ends the check for the CPU and meta."""
    probe.needs_accelerator()
    return probe.module


@check
def the_module_has_what_torch_calls(probe):
    "torch.<type> has every function that torch's own code looks up in it."
    module = needs_module(probe)
    probe.expect(module is not None, f"there is no torch.{probe.type}; torch._register_device_module makes it")
    for name, caller in CALLED.items():
        probe.expect(callable(getattr(module, name, None)), f"torch.{probe.type}.{name} is missing, which {caller} call")


@check
def the_module_has_what_libraries_call(probe):
    "torch.<type> has the names for devices and streams that torch's larger libraries look up in it."
    module = needs_module(probe)
    probe.needs_streams()
    for name, caller in CALLED_OF_MANY.items():
        probe.expect(callable(getattr(module, name, None)), f"torch.{probe.type}.{name} is missing, which {caller} use")


@check
def get_device_module_finds_the_module(probe):
    "torch.get_device_module gives torch.<type> for the device, its name, and without an argument."
    module = needs_module(probe)
    for argument in (probe.device, probe.type, None):
        found = torch.get_device_module(argument)
        probe.expect(found is module, f"torch.get_device_module({argument!r}) is {found!r}, expected torch.{probe.type}")


@check
def the_module_agrees_with_the_accelerator(probe):
    "torch.<type> and torch.accelerator say the same of count, availability, current device and current stream."
    module = needs_module(probe)
    accelerator = torch.accelerator
    pairs = {
        "device_count()": (module.device_count(), accelerator.device_count()),
        "is_available()": (module.is_available(), accelerator.is_available()),
        "current_device()": (module.current_device(), accelerator.current_device_index()),
    }
    if hasattr(module, "current_stream"):
        with probe.stream():
            pairs["current_stream()"] = (module.current_stream(), accelerator.current_stream())
    for name, (ours, generic) in pairs.items():
        probe.expect(ours == generic, f"torch.{probe.type}.{name} is {ours}, and torch.accelerator says {generic}")


@check
def the_modules_device_block_restores(probe):
    "torch.<type>.device(i) makes device i current inside and the one from before current after it; -1 and None change nothing."
    module = needs_module(probe)
    probe.needs(hasattr(module, "device"), f"torch.{probe.type} has no `device`, see the_module_has_what_libraries_call")
    before = module.current_device()
    last = module.device_count() - 1
    for index in (last, 0, torch.device(probe.type, last)):
        with contextlib.suppress(ZeroDivisionError), module.device(index):
            wanted = index if isinstance(index, int) else index.index
            probe.expect(module.current_device() == wanted, f"inside torch.{probe.type}.device({index!r}) the current device is {module.current_device()}")
            raise ZeroDivisionError
        found = module.current_device()
        probe.expect(found == before, f"after torch.{probe.type}.device({index!r}) the current device is {found}, it was {before}")


@check
def synchronize_takes_every_form_of_a_device(probe):
    "torch.<type>.synchronize takes a device, its name, its index and nothing."
    module = needs_module(probe)
    probe.needs(hasattr(module, "synchronize"), f"torch.{probe.type} has no `synchronize`")
    forms = (None, probe.device, probe.device.index or 0, str(probe.device))
    for form in forms:
        try:
            module.synchronize() if form is None else module.synchronize(form)
        except Exception as error:
            probe.expect(False, f"torch.{probe.type}.synchronize({form!r}) raises {type(error).__name__}: {str(error).splitlines()[0]}")


@check
def the_module_says_that_it_is_initialized(probe):
    "torch.<type>.is_initialized() is true once a tensor has been on the device: FakeTensor, and with it torch.compile, asks for it."
    module = needs_module(probe)
    probe.requires("is_initialized")
    torch.ones(1, device=probe.device)
    probe.expect(module.is_initialized(), f"torch.{probe.type}.is_initialized() is {module.is_initialized()!r} while there is a tensor on {probe.device}")


@check
def autocast_has_a_dtype(probe):
    "torch.<type>.get_amp_supported_dtype() lists at least one 16-bit dtype, and autocast's own dtype is among them."
    module = needs_module(probe)
    probe.requires("get_amp_supported_dtype")
    supported = module.get_amp_supported_dtype()
    default = torch.get_autocast_dtype(probe.type)
    probe.expect(default in supported, f"autocast on {probe.type} computes in {default}, and get_amp_supported_dtype() lists {supported}")


@check
def methods_by_the_devices_name(probe):
    "A tensor has .<type>() and .is_<type>, and a module .<type>(), as with cuda."
    needs_module(probe)
    reason = f"the backend made no method .{probe.type}(): it is optional, by torch.utils.generate_methods_for_privateuse1_backend"
    probe.needs(hasattr(torch.Tensor, probe.type), reason)
    moved = getattr(torch.ones(2), probe.type)()
    probe.expect(moved.device.type == probe.type, f".{probe.type}() gives a tensor on {moved.device}")
    probe.expect(getattr(moved, f"is_{probe.type}"), f".is_{probe.type} of a tensor on {moved.device} is False")
    probe.expect(not getattr(torch.ones(2), f"is_{probe.type}"), f".is_{probe.type} of a tensor on the CPU is True")
    weight = getattr(torch.nn.Linear(2, 2), probe.type)().weight
    probe.expect(weight.device.type == probe.type, f"nn.Linear's .{probe.type}() leaves its weight on {weight.device}")
