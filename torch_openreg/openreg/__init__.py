"""The module that becomes `torch.openreg`: devices, streams, events, memory, random numbers.

The names and signatures are torch.cuda's and torch.xpu's. Nothing starts at import: the driver starts with the
first use of a device.

`device`, `faults`, `graph`, `schedule` and `trace` are context managers and `stream` is a function, as in torch.cuda; the files behind them are reached
by their full names, such as `torch_openreg.openreg.device`, in import statements only.
"""

from __future__ import annotations

import types

from torch_openreg import api as _api

from . import amp, graphs, memory, profiler, random, sanitizer, streams
from .amp import get_amp_supported_dtype
from .attention import flex_attention
from .device import (
    DeviceProperties,
    _exchange_device,
    _get_device_index,
    _index_in_file,
    _maybe_exchange_device,
    _sleep,
    can_device_access_peer,
    current_device,
    device,
    device_count,
    device_of,
    get_arch_list,
    get_device_capability,
    get_device_name,
    get_device_properties,
    get_gencode_flags,
    is_available,
    is_bf16_supported,
    is_tf32_supported,
    set_device,
    synchronize,
)
from .event import Event
from .faults import Fault, FaultReport, faults
from .graph import Graph, graph, graph_pool_handle, is_current_stream_capturing, make_graphed_callables
from .initialization import _is_in_bad_fork, _lazy_call, _lazy_init, init, is_initialized
from .memory import (
    MemPool,
    caching_allocator_alloc,
    caching_allocator_delete,
    caching_allocator_disabled,
    caching_allocator_enable,
    empty_cache,
    get_allocator_backend,
    get_per_process_memory_fraction,
    host_memory_stats,
    host_memory_stats_as_nested_dict,
    list_gpu_processes,
    max_memory_allocated,
    max_memory_cached,
    max_memory_reserved,
    mem_get_info,
    memory_allocated,
    memory_cached,
    memory_reserved,
    memory_snapshot,
    memory_stats,
    memory_stats_as_nested_dict,
    memory_summary,
    reset_accumulated_host_memory_stats,
    reset_accumulated_memory_stats,
    reset_max_memory_allocated,
    reset_max_memory_cached,
    reset_peak_host_memory_stats,
    reset_peak_memory_stats,
    set_per_process_memory_fraction,
    use_mem_pool,
)
from .op_stats import op_stats, reset_op_stats
from .random import (
    _get_generator,
    _get_rng_state_offset,
    _set_rng_state_offset,
    default_generators,
    get_rng_state,
    get_rng_state_all,
    initial_seed,
    manual_seed,
    manual_seed_all,
    seed,
    seed_all,
    set_rng_state,
    set_rng_state_all,
)
from .recovery import abandon, is_lost, reset
from .sanitizer import SanitizerError
from .schedule import current_schedule, schedule
from .sharing import ipc_collect
from .stream import (
    ExternalStream,
    Stream,
    StreamContext,
    current_stream,
    default_stream,
    get_stream_from_external,
    set_stream,
    stream,
)
from .sync_debug import get_sync_debug_mode, set_sync_debug_mode
from .trace import TraceEvent, trace
from .usage import clock_rate, device_memory_used, utilization

__all__ = [
    "DeviceProperties",
    "Event",
    "ExternalStream",
    "Fault",
    "FaultReport",
    "Graph",
    "MemPool",
    "SanitizerError",
    "Stream",
    "StreamContext",
    "TraceEvent",
    "abandon",
    "amp",
    "caching_allocator_alloc",
    "caching_allocator_delete",
    "caching_allocator_disabled",
    "caching_allocator_enable",
    "can_device_access_peer",
    "clock_rate",
    "current_device",
    "current_schedule",
    "current_stream",
    "default_generators",
    "default_stream",
    "device",
    "device_count",
    "device_memory_used",
    "device_of",
    "empty_cache",
    "faults",
    "flex_attention",
    "get_allocator_backend",
    "get_amp_supported_dtype",
    "get_arch_list",
    "get_device_capability",
    "get_device_name",
    "get_device_properties",
    "get_gencode_flags",
    "get_per_process_memory_fraction",
    "get_rng_state",
    "get_rng_state_all",
    "get_stream_from_external",
    "get_sync_debug_mode",
    "graph",
    "graph_pool_handle",
    "graphs",
    "host_memory_stats",
    "host_memory_stats_as_nested_dict",
    "init",
    "initial_seed",
    "ipc_collect",
    "is_available",
    "is_bf16_supported",
    "is_current_stream_capturing",
    "is_initialized",
    "is_lost",
    "is_tf32_supported",
    "list_gpu_processes",
    "make_graphed_callables",
    "manual_seed",
    "manual_seed_all",
    "max_memory_allocated",
    "max_memory_cached",
    "max_memory_reserved",
    "mem_get_info",
    "memory",
    "memory_allocated",
    "memory_cached",
    "memory_reserved",
    "memory_snapshot",
    "memory_stats",
    "memory_stats_as_nested_dict",
    "memory_summary",
    "op_stats",
    "profiler",
    "random",
    "reset",
    "reset_accumulated_host_memory_stats",
    "reset_accumulated_memory_stats",
    "reset_max_memory_allocated",
    "reset_max_memory_cached",
    "reset_op_stats",
    "reset_peak_host_memory_stats",
    "reset_peak_memory_stats",
    "sanitizer",
    "schedule",
    "seed",
    "seed_all",
    "set_device",
    "set_per_process_memory_fraction",
    "set_rng_state",
    "set_rng_state_all",
    "set_stream",
    "set_sync_debug_mode",
    "stream",
    "streams",
    "synchronize",
    "trace",
    "use_mem_pool",
    "utilization",
]

# Submodules that are also reachable as torch.openreg.<name>, in import statements too.
_SUBMODULES = ("amp", "graphs", "memory", "profiler", "random", "sanitizer", "streams")

# torch.load resolves the places of a file and map_location="openreg" through this name.
_utils = types.SimpleNamespace(_get_device_index=_index_in_file)

_initialized: bool


def __getattr__(name: str) -> object:
    # torch.utils.checkpoint saves the device's random state only while this is true.
    if name == "_initialized":
        return is_initialized()
    reason = _api.GAPS.get(f"torch.cuda.{name}") or _api.GAPS.get(f"torch.xpu.{name}")
    raise AttributeError(f"module 'torch.openreg' has no attribute '{name}'{f': {reason}' if reason else ''}")
