"""Wrong compilation: operators that read values, code for another device, half a code generator."""

import torch

from . import variant
from .replacement import replaced


@variant({
    "check.compile.dynamo_captures_calls": "ata-dependent",
    "check.compile.autograd_is_traced": "ata-dependent",
})  # fmt: skip
def an_operator_that_reads_values():
    "relu reads its input on the host, so that it cannot be called on tensors without values."

    def relu(x):
        return x.clamp(min=0) if x.max().item() > 0 else x * 0

    return replaced("relu", relu, "AutogradPrivateUse1")


@variant({"check.compile.another_device_compiles_again": "with a tensor on openreg:0 the compiled function returns one on cpu"})
def code_for_the_first_device():
    "A compiled function runs on the device of its first call."

    def compile(function, **options):
        devices = []

        def call(x):
            devices.append(x.device)
            return function(x.to(devices[0]))

        return call

    torch.compile = compile


@variant({"check.compile.generated_code_agrees": "KeyError: 'openreg'"})
def half_a_code_generator():
    "Inductor finds a code generator, and neither the device's operators nor its interface."
    from torch._inductor.codegen import common

    common.init_backend_registration()
    common.register_backend_for_device("openreg", common.get_scheduling_for_device("cpu"), common.get_wrapper_codegen_for_device("cpu"))
