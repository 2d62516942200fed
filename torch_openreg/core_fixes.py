"""What released torch does wrong for an out-of-tree device, and fixes for those who want them.

Importing torch_openreg changes no function of torch. `apply()` does, and only on request; every change holds for tensors of openreg alone. GAPS is
the list, and docs/core-gaps.md is made of it: `python -m torch_openreg.core_fixes > docs/core-gaps.md`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from torch_openreg import version

_DEVICE = "openreg"


@dataclass(frozen=True)
class Gap:
    """One thing that core does not do for a renamed PrivateUse1 device.

    `first` and `last` are the torch minors that have it, as far as is known. `exists` looks whether the torch of this process still has it, with the
    fixes off. `fix` mends it and returns how to take that back; None where only the `advice` helps.
    """

    name: str
    first: tuple[int, int]
    last: tuple[int, int]
    symptom: str
    cause: str
    advice: str
    exists: Callable[[], bool]
    fix: Callable[[], Callable[[], None]] | None = None


_applied: dict[str, Callable[[], None]] = {}


def apply(*names: str) -> list[str]:
    """Applies the fixes with these names, all of them by default, and returns the names of those that are in effect.

    A fix is left out when the torch of this process is outside the versions that it is known for, or has no need of it. Applying twice changes
    nothing. ValueError for a name that is no fix.
    """
    fixes = {gap.name: gap for gap in GAPS if gap.fix is not None}
    for name in names:
        if name not in fixes:
            raise ValueError(f"'{name}' is no fix of torch_openreg.core_fixes: it has {', '.join(fixes)}.")
    for name in names or fixes:
        gap = fixes[name]
        if name not in _applied and gap.first <= version.torch_minor() <= gap.last and gap.exists():
            _applied[name] = gap.fix()
    return [name for name in fixes if name in _applied]


def revert() -> None:
    """Takes back what apply() has done."""
    while _applied:
        _applied.popitem()[1]()


def page() -> str:
    """docs/core-gaps.md."""
    lines = [
        "# Gaps of core",
        "",
        "What the released torch does not do for an out-of-tree device, as far as torch_openreg meets it. Importing torch_openreg patches nothing. Where a",
        "fix exists, a program may ask for it:",
        "",
        "```python",
        "import torch_openreg.core_fixes",
        "",
        "print(torch_openreg.core_fixes.apply())  # the names of the fixes that are in effect",
        "torch_openreg.core_fixes.revert()",
        "```",
        "",
        "A fix changes torch for tensors of this device only, in the versions that it names, and only while core needs it. A test for each line",
        "fails when the torch under test no longer has the gap. This page is made by `python -m torch_openreg.core_fixes`.",
        "",
        "| gap | torch | what happens | why | fix or advice |",
        "|---|---|---|---|---|",
    ]
    for gap in GAPS:
        versions = f"{gap.first[0]}.{gap.first[1]} to {gap.last[0]}.{gap.last[1]}"
        help_ = f"`core_fixes.apply(\"{gap.name}\")`. {gap.advice}" if gap.fix else gap.advice
        lines.append(f"| {gap.name} | {versions} | {gap.symptom} | {gap.cause} | {help_} |")
    return "\n".join([*lines, "", "Next: [sharing](sharing.md).", ""])


def _replace(owner: object, name: str, replacement: object) -> Callable[[], None]:
    """Puts an attribute in the place of another, and returns how to take that back."""
    inherited, before = name not in vars(owner), getattr(owner, name)
    setattr(owner, name, replacement)

    def undo() -> None:
        if inherited:
            delattr(owner, name)
        else:
            setattr(owner, name, before)

    return undo


def _dlpack_device_is_refused() -> bool:
    import torch

    try:
        torch.empty(0, device=_DEVICE).__dlpack_device__()
    except ValueError:
        return True
    return False


def _fix_dlpack_device() -> Callable[[], None]:
    import torch
    from torch.utils.dlpack import DLDeviceType

    core = torch.Tensor.__dlpack_device__

    @functools.wraps(core)
    def __dlpack_device__(self: torch.Tensor) -> tuple[object, int]:
        if self.device.type == _DEVICE and not torch.overrides.has_torch_function_unary(self):
            return DLDeviceType.kDLExtDev, self.device.index
        return core(self)

    return _replace(torch.Tensor, "__dlpack_device__", __dlpack_device__)


def _fix_dlpack_stream() -> Callable[[], None]:
    import torch

    core = torch.Tensor.__dlpack__

    @functools.wraps(core)
    def __dlpack__(self: torch.Tensor, *, stream: object = -1, **kwargs: object) -> object:
        ours = self.device.type == _DEVICE and not torch.overrides.has_torch_function_unary(self)
        if ours and (stream is None or (type(stream) is int and stream != -1)):
            capsule = core(self, stream=-1, **kwargs)  # type: ignore[arg-type]
            _let_stream_wait(self.device, stream)
            return capsule
        return core(self, stream=stream, **kwargs)  # type: ignore[arg-type]

    return _replace(torch.Tensor, "__dlpack__", __dlpack__)


def _let_stream_wait(device: object, stream: object) -> None:
    """Lets the device's stream with this id, None for the default one, wait for the device's current stream."""
    import torch

    if stream is None:
        consumer = torch.openreg.default_stream(device)
    else:
        device_type = int(torch._C._autograd.DeviceType.PrivateUse1)
        consumer = torch.openreg.Stream(stream_id=stream, device_index=device.index, device_type=device_type)  # type: ignore[attr-defined]
    consumer.wait_stream(torch.openreg.current_stream(device))


def _accelerator_snapshot_is_cudas() -> bool:
    import torch

    try:
        torch.accelerator.memory._snapshot()
    except Exception:
        return True
    return False


def _fix_accelerator_snapshot() -> Callable[[], None]:
    import torch

    memory = torch.accelerator.memory
    core = memory._snapshot

    @functools.wraps(core)
    def _snapshot(device: object = None, augment_with_fx_traces: bool = False) -> object:
        if torch.accelerator.current_accelerator() == torch.device(_DEVICE):
            return torch.openreg.memory._snapshot(device, augment_with_fx_traces)
        return core(device, augment_with_fx_traces)

    return _replace(memory, "_snapshot", _snapshot)


def _byteswap_touches_device_memory() -> bool:
    import torch

    try:
        torch.UntypedStorage(0, device=_DEVICE).byteswap(torch.int16)  # of no bytes: with some the process would end
    except Exception:
        return False
    return True


def _fix_storage_byteswap() -> Callable[[], None]:
    import torch

    core = torch.UntypedStorage.byteswap

    @functools.wraps(core)
    def byteswap(self: torch.UntypedStorage, dtype: torch.dtype) -> None:
        if self.device.type == _DEVICE:
            raise NotImplementedError(f"byteswap runs on the host, which cannot reach memory of {self.device}: use storage.cpu(), and copy back.")
        core(self, dtype)

    return _replace(torch.UntypedStorage, "byteswap", byteswap)


def _module_replaces_parameters() -> bool:
    import torch

    module = torch.nn.Linear(1, 1)
    before = module.weight
    return module.to(_DEVICE).weight is not before


def _lazy_parameter_is_lost() -> bool:
    import torch

    return not torch.nn.parameter.is_lazy(torch.nn.LazyLinear(1).to(_DEVICE).weight)


def _data_parallel_fails() -> bool:
    import torch

    try:
        torch.nn.DataParallel(torch.nn.Identity(), [0])(torch.empty(1, device=_DEVICE))
    except Exception:
        return True
    return False


def _opcheck_knows_other_devices_only() -> bool:
    import torch
    from torch.testing._internal.optests.autograd_registration import autograd_registration_check

    try:
        autograd_registration_check(torch.ops.aten.sin.default, (torch.empty(1, device=_DEVICE, requires_grad=True),), {})
    except NotImplementedError:
        return True
    return False


def _dlpack_ignores_streams() -> bool:
    import torch

    try:
        torch.empty(0, device=_DEVICE).__dlpack__(stream=12345)
    except Exception:
        return False
    return True


GAPS = (
    Gap(
        name="dlpack-device",
        first=(2, 13),
        last=(2, 15),
        symptom="`torch.from_dlpack(tensor)` and `tensor.__dlpack_device__()` raise `ValueError: Unknown device type openreg for Dlpack`",
        cause="`Tensor.__dlpack_device__` compares the device type with the literal `privateuse1`, which a renamed device no longer has",
        advice="Without it, pass capsules: `torch.from_dlpack(tensor.__dlpack__())`.",
        exists=_dlpack_device_is_refused,
        fix=_fix_dlpack_device,
    ),
    Gap(
        name="dlpack-stream",
        first=(2, 13),
        last=(2, 15),
        symptom="`tensor.__dlpack__(stream=...)` takes any number and orders nothing",
        cause="`Tensor.__dlpack__` orders streams for cuda only",
        advice="With it, `stream` is the `stream_id` of the consumer's stream, or None for the default stream, and that stream waits for the exporting "
        "one. Without it, exchange tensors on one stream, or synchronise the exporting stream first.",
        exists=_dlpack_ignores_streams,
        fix=_fix_dlpack_stream,
    ),
    Gap(
        name="accelerator-snapshot",
        first=(2, 13),
        last=(2, 15),
        symptom="`torch.accelerator.memory._snapshot()` raises `AssertionError: Torch not compiled with CUDA enabled`, or answers for cuda",
        cause="it asks `torch.xpu` when the accelerator is an xpu, and `torch.cuda` for every other one",
        advice="Without it, call `torch.openreg.memory._snapshot()`.",
        exists=_accelerator_snapshot_is_cudas,
        fix=_fix_accelerator_snapshot,
    ),
    Gap(
        name="storage-byteswap",
        first=(2, 13),
        last=(2, 15),
        symptom="`untyped_storage().byteswap(dtype)` of device memory ends the process with SIGSEGV",
        cause="`StorageImpl`'s `_byteswap` writes through the data pointer on the host whatever the device is, also on cuda",
        advice="With it, the call raises `NotImplementedError`. Swap the bytes of `storage.cpu()` and copy them back.",
        exists=_byteswap_touches_device_memory,
        fix=_fix_storage_byteswap,
    ),
    Gap(
        name="module-to",
        first=(2, 13),
        last=(2, 15),
        symptom="`module.to(\"openreg\")` makes new parameters: an optimizer that was built before keeps the old ones on the CPU, and a parameter that modules share becomes one of each (weights tied by transformers come apart)",
        cause="`TensorImpl::has_compatible_shallow_copy_type` leaves PrivateUse1 out of the dense backends whose tensors may take each other's place",
        advice="`torch.__future__.set_swap_module_params_on_conversion(True)` before the move, or build the optimizer after it.",
        exists=_module_replaces_parameters,
    ),
    Gap(
        name="lazy-module-to",
        first=(2, 13),
        last=(2, 15),
        symptom="a lazy module that moves before its first call has empty, ordinary parameters, and its first call fails",
        cause="as module-to: the new parameter that `Module.to` makes is no `UninitializedParameter`",
        advice="Make it on the device, `LazyLinear(4, device=\"openreg\")`, or call it once before it moves.",
        exists=_lazy_parameter_is_lost,
    ),
    Gap(
        name="data-parallel",
        first=(2, 13),
        last=(2, 15),
        symptom="`torch.nn.DataParallel(module)(x)` raises `AttributeError: module 'torch._C' has no attribute '_scatter'`, on one device too",
        cause="scatter, broadcast and gather of `torch.nn.parallel` are functions of CUDA builds, and `DataParallel` takes any accelerator for one of theirs",
        advice="Call the module itself on one device, or a copy of it on each device with a part of the batch.",
        exists=_data_parallel_fails,
    ),
    Gap(
        name="opcheck-autograd",
        first=(2, 13),
        last=(2, 15),
        symptom="`torch.library.opcheck` with inputs of the device that require gradients fails in `test_autograd_registration`: `NYI devices other than CPU/CUDA/XPU`",
        cause="the check finds the autograd key of the device in a table of three",
        advice="`opcheck(op, args, test_utils=(\"test_schema\", \"test_faketensor\", \"test_aot_dispatch_dynamic\"))`, and the whole check with inputs of the CPU.",
        exists=_opcheck_knows_other_devices_only,
    ),
)

if __name__ == "__main__":
    print(page(), end="")
