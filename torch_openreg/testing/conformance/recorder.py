"""Records the operator calls of a program as the device sees them: below autograd, in forward and backward.

    with Recorder(torch.device("cpu")) as recorder:
        model(x).sum().backward()
    pack.write(recorder.pack("mine", "what it was made from"), path)

Calls of this thread and of the backward passes that it starts are recorded; those of other threads are not. Values are not kept: only the
range of integers, whether floats are never negative, and what all elements of a mask are. Fused attention kernels differ from device to
device, so a call of one is written as the call of scaled_dot_product_attention that it comes from, and its backward is left out.
"""

import json
import math
import re

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from . import pack as packs
from .samples import tensors

ALIGNMENT = 16  # elements: of an offset into memory that nothing else in the call shares, only the remainder matters
MARKS = 3  # so few negative values among others are marks, as -100 for labels to ignore, and no part of the range
_ATTENTION = re.compile(r"aten\._scaled_dot_product_\w*attention\w*\.\w+")


class _CannotHold(Exception):
    """A pack has no way to write the call; the message is the reason."""


class Recorder(TorchDispatchMode):
    """Records calls with a tensor on the device, or a result there. `calls` grows as the program runs."""

    def __init__(self, device: torch.device):
        super().__init__()
        self.device = device
        self.recorded = 0
        self.left_out: dict[str, int] = {}
        self.elsewhere: dict[str, int] = {}  # device type -> COUNT of calls that have nothing on the device
        self._calls: dict[str, tuple[dict, int, list[dict]]] = {}  # key -> the call, how often, what is known of its tensors' values

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        form = self._form(function, args, kwargs)
        result = function(*args, **kwargs)
        self._add(form, list(tensors((args, kwargs))), list(tensors(result)))
        return result

    def pack(self, name: str, made_from: str) -> packs.Pack:
        """What has been recorded so far."""
        calls = []
        for call, count, known in self._calls.values():
            values = iter(known)
            args = _with_values(call["args"], values)
            calls.append({"op": call["op"], "count": count, "args": args, "kwargs": {key: _with_values(arg, values) for key, arg in call["kwargs"].items()}})
        calls.sort(key=lambda call: json.dumps(call, separators=(",", ":")))
        return packs.Pack(name, torch.__version__.partition("+")[0], made_from, calls, self.recorded, self.left_out)

    def _form(self, function, args, kwargs):
        """The call before it runs, because in-place operators change it: (call, what is known of its values), or the reason why not."""
        try:
            name = str(function)
            if _ATTENTION.fullmatch(name):
                name, args, kwargs = _attention(function, args, kwargs)
            writer = _Writer(self.device, name.startswith("aten.as_strided"))
            writer.count((args, kwargs))
            call = {"op": name, "args": [writer.value(arg) for arg in args], "kwargs": {key: writer.value(kwargs[key]) for key in sorted(kwargs)}}
            return call, writer.known
        except _CannotHold as error:
            return str(error)

    def _add(self, form, given, made) -> None:
        devices = {tensor.device.type for tensor in (*given, *made)}
        if self.device.type not in devices:
            for name in devices:
                self.elsewhere[name] = self.elsewhere.get(name, 0) + 1
            return
        self.recorded += 1
        if not isinstance(form, str) and any(tensor.device.type != self.device.type for tensor in made):
            form = "it copies to another device"
        if isinstance(form, str):
            self.left_out[form] = self.left_out.get(form, 0) + 1
            return
        call, known = form
        key = json.dumps(call)
        _, count, before = self._calls.get(key, (call, 0, known))
        self._calls[key] = call, count + 1, [_common(old, new) for old, new in zip(before, known)]


def _attention(function, args, kwargs):
    """The call of scaled_dot_product_attention that a fused kernel's call comes from."""
    if "backward" in str(function):
        raise _CannotHold("the backward of a fused attention kernel is the device's own")
    names = [argument.name for argument in function._schema.arguments]
    given = {argument.name: argument.default_value for argument in function._schema.arguments if argument.has_default_value()}
    given |= dict(zip(names, args)) | kwargs
    bias = given.get("attn_bias", given.get("attn_mask"))
    form = (given["query"], given["key"], given["value"], bias, given.get("dropout_p", 0.0), given.get("is_causal", False))
    grouped = given["query"].dim() == 4 and given["query"].shape[1] != given["key"].shape[1]
    return "aten.scaled_dot_product_attention.default", form, {"scale": given.get("scale"), "enable_gqa": grouped}


class _Writer:
    """Writes one call's arguments. `known`: what is known of the values of each tensor, in order."""

    def __init__(self, device: torch.device, exact: bool):
        self.device, self.exact = device, exact
        self.known: list[dict] = []
        self.users: dict[int, list[torch.Tensor]] = {}
        self.groups: dict[int, int] = {}

    def count(self, value) -> None:
        for tensor in tensors(value):
            if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
                raise _CannotHold(f"an argument is a {type(tensor).__name__}")
            if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized:
                raise _CannotHold("a tensor is not strided")
            self.users.setdefault(tensor.untyped_storage()._cdata, []).append(tensor)
        for sharing in self.users.values():
            if len({tensor.dtype for tensor in sharing}) > 1:
                raise _CannotHold("tensors of different dtypes share memory")

    def value(self, value):
        if value is None or isinstance(value, (bool, int, str)):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else {"float": str(value)}
        if isinstance(value, complex):
            return {"complex": [value.real, value.imag]}
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]
        if isinstance(value, torch.Tensor):
            return self.tensor(value)
        for kind in (torch.dtype, torch.layout, torch.memory_format):
            if isinstance(value, kind):
                return {kind.__name__: str(value).removeprefix("torch.")}
        if isinstance(value, torch.device):
            if value.type != self.device.type:
                raise _CannotHold("it names another device")
            return {"device": True}
        raise _CannotHold(f"an argument is a {type(value).__name__}")

    def tensor(self, tensor: torch.Tensor) -> dict:
        found = {"tensor": str(tensor.dtype).removeprefix("torch."), "size": list(tensor.shape)}
        if not tensor.is_contiguous():
            found["stride"] = list(tensor.stride())
        storage, offset = tensor.untyped_storage()._cdata, tensor.storage_offset()
        sharing = self.users[storage]
        if not self.exact:
            first = min(other.storage_offset() for other in sharing)
            offset += first % ALIGNMENT - first
        if offset:
            found["offset"] = offset
        if self.exact:
            found["storage"] = tensor.untyped_storage().nbytes() // tensor.element_size()
        if len(sharing) > 1:
            found["memory"] = self.groups.setdefault(storage, len(self.groups))
        if tensor.device.type != self.device.type:
            if tensor.dim():
                raise _CannotHold("a tensor is on another device")
            found["host"] = True
        self.known.append(_known(tensor))
        return found


def _known(tensor: torch.Tensor) -> dict:
    """What a pack says of a tensor's values."""
    if not tensor.numel() or tensor.is_complex() or tensor.device.type == "meta":
        return {}
    plain = tensor.detach()
    if tensor.dtype == torch.bool:
        return {"all": True} if bool(plain.all()) else {"all": False} if not bool(plain.any()) else {}
    if tensor.is_floating_point():
        return {"low": 0} if bool((plain.float() >= 0).all()) else {}
    flat = plain.cpu().flatten().to(torch.int64)
    negative, others = flat[flat < 0].unique(), flat[flat >= 0]
    if others.numel() and 0 < negative.numel() <= MARKS:
        return {"low": int(others.min()), "high": int(others.max()), "besides": negative.tolist()}
    found = {"low": int(flat.min()), "high": int(flat.max())}
    if found["low"] < found["high"]:
        if bool((flat.diff() >= 0).all()):
            found["ascending"] = True
        if flat.unique().numel() == flat.numel():
            found["distinct"] = True
    return found


def _common(left: dict, right: dict) -> dict:
    """What holds for both."""
    found = {key: left[key] for key in ("all", "ascending", "distinct") if key in left and left[key] == right.get(key)}
    if "low" in left and "low" in right:
        found["low"] = min(left["low"], right["low"])
    if "high" in left and "high" in right:
        found["high"] = max(left["high"], right["high"])
    if marks := {*left.get("besides", ()), *right.get("besides", ())}:
        found["besides"] = sorted(marks)
    return found


def _with_values(value, known):
    """A written argument with what is known of each tensor's values beside its size."""
    if isinstance(value, list):
        return [_with_values(item, known) for item in value]
    if isinstance(value, dict) and "tensor" in value:
        return {**value, **next(known)}
    return value
