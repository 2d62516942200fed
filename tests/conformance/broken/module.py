"""A wrong torch.openreg: names that are missing, answers that disagree with torch.accelerator."""

import types

import torch

from . import variant


@variant({"check.module.the_module_has_what_torch_calls": "torch.openreg.manual_seed_all is missing, which torch.manual_seed call"})
def no_manual_seed_all():
    "torch.openreg has no manual_seed_all, so that torch.manual_seed leaves the device out."
    del torch.openreg.manual_seed_all


@variant({"check.module.the_module_has_what_libraries_call": "torch.openreg.stream is missing"})
def no_stream_function():
    "torch.openreg has no `stream`."
    del torch.openreg.stream


@variant({"check.module.get_device_module_finds_the_module": "expected torch.openreg"})
def a_second_module():
    "torch.openreg is replaced after torch has looked it up."
    for argument in (torch.device("openreg", 0), "openreg", None):
        torch.get_device_module(argument)
    copy = types.ModuleType("openreg")
    copy.__dict__.update(torch.openreg.__dict__)
    torch.openreg = copy


@variant({"check.module.the_module_agrees_with_the_accelerator": "torch.openreg.current_stream() is"})
def the_modules_current_stream_is_the_default_one():
    "torch.openreg.current_stream() is always the default stream."
    torch.openreg.current_stream = torch.openreg.default_stream


@variant({"check.module.the_modules_device_block_restores": "after torch.openreg.device(1) the current device is 1, it was 0"})
def a_device_block_without_an_end():
    "torch.openreg.device does not restore the device from before."
    torch.openreg.device.__exit__ = lambda self, *error: False


@variant({"check.module.synchronize_takes_every_form_of_a_device": "torch.openreg.synchronize('openreg:0') raises TypeError"})
def synchronize_takes_no_name():
    "torch.openreg.synchronize takes an index only."
    synchronize = torch.openreg.synchronize

    def wrong(device=None):
        if isinstance(device, str):
            raise TypeError("an index is needed")
        synchronize(device)

    torch.openreg.synchronize = wrong


@variant({"check.module.autocast_has_a_dtype": "get_amp_supported_dtype() lists [torch.float64]"})
def autocast_to_float64_only():
    "torch.openreg.get_amp_supported_dtype() lists float64 only."
    torch.openreg.get_amp_supported_dtype = lambda: [torch.float64]


@variant({"check.module.methods_by_the_devices_name": ".is_openreg of a tensor on openreg:0 is False"})
def no_tensor_is_ours():
    "is_openreg is false for every tensor."
    torch.Tensor.is_openreg = property(lambda self: False)


@variant({"check.module.the_module_says_that_it_is_initialized": "torch.openreg.is_initialized() is False while there is a tensor on openreg:0"})
def never_initialized():
    "torch.openreg.is_initialized() is false for ever."
    torch.openreg.is_initialized = lambda: False
