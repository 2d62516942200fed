"""A small device in Python alone, with faults on demand: what the kit's own tests run against.

Its tensors have no storage; the values lie in a CPU tensor at `.raw`, and every operator runs there. Operators that view memory
are missing. FAKECHIP_FAULTS="aten::cos=value;aten::tan=abort" breaks operators, see FAULTS.
"""

import os
import threading
import time

import torch
from torch.utils import backend_registration
from torch.utils._pytree import tree_map

NAME = "fakechip"
state = {"late": "", "lost": False, "calls": 0, "full": False}
lock = threading.Lock()  # held by every operator that falls back


class Module:
    def is_available(self):
        return True

    def is_initialized(self):
        return True

    def device_count(self):
        return 1

    def current_device(self):
        return 0

    def _is_in_bad_fork(self):
        return False

    def manual_seed_all(self, seed):
        pass

    def get_rng_state(self, device=None):
        return torch.zeros(8, dtype=torch.uint8)

    def set_rng_state(self, new_state, device=None):
        pass

    def synchronize(self, device=None):
        message, state["late"] = state["late"], ""
        if message:
            raise RuntimeError(message)


backend_registration._setup_privateuseone_for_python_backend(NAME, Module())
library = torch.library.Library("aten", "IMPL")
fallback = torch.library.Library("_", "IMPL")


def wrap(value):
    tensor = torch._C._acc.create_empty_tensor(tuple(value.shape), value.dtype)
    tensor.raw = value
    return tensor


def is_ours(value):
    return isinstance(value, torch.Tensor) and value.device.type == NAME


def run_on_cpu(op, *args, **kwargs):
    """Runs an operator on the raw tensors; a result that is one of them is the argument it came from."""
    if state["lost"]:
        raise RuntimeError("the chip is lost")
    owners = {}

    def unwrap(value):
        if is_ours(value):
            owners[id(value.raw)] = value
            return value.raw
        return torch.device("cpu") if isinstance(value, torch.device) else value

    if state["full"] and op.overloadpacket not in (torch.ops.aten.add, torch.ops.aten.fill_):
        raise torch.OutOfMemoryError("the chip is full")
    with torch.no_grad(), lock:
        result = op(*tree_map(unwrap, args), **tree_map(unwrap, kwargs))

    def rewrap(value):
        if not isinstance(value, torch.Tensor):
            return value
        return owners[id(value)] if id(value) in owners else wrap(value)

    return tree_map(rewrap, result)


def empty(size, *, dtype=None, **_):
    return wrap(torch.empty(size, dtype=dtype or torch.get_default_dtype()))


def empty_strided(size, stride, *, dtype=None, **_):
    return wrap(torch.empty(size, dtype=dtype or torch.get_default_dtype()))


def copy_from(source, destination, non_blocking=False):
    (destination.raw if is_ours(destination) else destination).copy_(source.raw if is_ours(source) else source)
    return destination


library.impl("empty.memory_format", empty, "PrivateUse1")
library.impl("empty_strided", empty_strided, "PrivateUse1")
library.impl("_copy_from", copy_from, "PrivateUse1")
library.impl("detach", lambda tensor: wrap(tensor.raw), "PrivateUse1")
fallback.fallback(run_on_cpu, "PrivateUse1")


def late(tensor):
    state["late"] = "the chip reports late that something went wrong"
    return wrap(tensor.raw.clone())


def lose(tensor):
    state["lost"] = True
    raise RuntimeError("the chip falls over")


def raise_(error):
    raise error


def acos_once(tensor):
    state["calls"] += 1
    if state["calls"] > 1:
        os.abort()
    return wrap(tensor.raw.acos())


def erf_and_lock(tensor):
    lock.acquire(blocking=False)
    return wrap(tensor.raw.erf())


def fill_chip(tensor):
    state["full"] = True
    raise torch.OutOfMemoryError("the chip is full")


FAULTS = {
    "value": lambda tensor: wrap(tensor.raw + 1),
    "dtype": lambda tensor: wrap(tensor.raw.double()),
    "shape": lambda tensor: wrap(tensor.raw[None].clone()),
    "silent cpu": lambda tensor: tensor.raw.clone(),
    "unsupported": lambda tensor: raise_(NotImplementedError("the chip has no such kernel")),
    "error": lambda tensor: raise_(ValueError("the chip does not like 17 of these")),
    "abort": lambda tensor: os.abort(),
    "acos once, then abort": acos_once,
    "exit": lambda tensor: os._exit(3),
    "hang": lambda tensor: time.sleep(600),
    "late": late,
    "lose": lose,
    "erf and a leaked lock": erf_and_lock,
    "fill the chip": fill_chip,
}

for entry in filter(None, os.environ.get("FAKECHIP_FAULTS", "").split(";")):
    operator, fault = entry.split("=")
    library.impl(operator.removeprefix("aten::"), FAULTS[fault], "PrivateUse1")
