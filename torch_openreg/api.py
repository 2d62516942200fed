"""How torch.openreg's names relate to those of torch.xpu and torch.cuda: which stand for which, and which do not exist and why.

`torch_openreg.api_names` and `torch_openreg.api_gaps` are the two tables, by full name; docs/api.md is made from them. A test walks over torch's
own modules: every public name is in torch.openreg with the same parameters, or in one of the tables. Needs no torch.
"""

from __future__ import annotations

# Names that carry the device in them, and what they are called here.
NAMES: dict[str, str] = {
    "torch.xpu.XPUGraph": "torch.openreg.Graph",
    "torch.cuda.CUDAGraph": "torch.openreg.Graph",
    "torch.cuda.CudaError": "torch.AcceleratorError",
    "torch.cuda.DeferredCudaCallError": "RuntimeError",
}

_PLUGGABLE = "The allocator is replaced below it, by the driver behind the HAL (OPENREG_DRIVER), not by a pair of functions."
_SENSOR = "The HAL has no sensors, and the simulated chip has neither a temperature nor a power supply."
_BANDWIDTH = "Nobody counts the bytes that kernels move. `utilization` has the time, and a trace the bytes of copies."
_LEGACY_TYPE = "A class of torch's legacy tensor types, which core makes for its own devices only. Use the dtype and `device=`."
_CUDA_LIBRARY = "A library of CUDA, which is not behind this device."

# Names that do not exist, and why.
GAPS: dict[str, str] = {
    "torch.xpu.XPUPluggableAllocator": _PLUGGABLE,
    "torch.xpu.change_current_allocator": _PLUGGABLE,
    "torch.xpu.power_draw": _SENSOR,
    "torch.xpu.temperature": _SENSOR,
    "torch.xpu.memory_usage": _BANDWIDTH,
    "torch.cuda.memory_usage": _BANDWIDTH,
    "torch.cuda.CUDAPluggableAllocator": _PLUGGABLE,
    "torch.cuda.change_current_allocator": _PLUGGABLE,
    "torch.cuda.power_draw": _SENSOR,
    "torch.cuda.temperature": _SENSOR,
    "torch.cuda.GreenContext": "A part of a chip with compute units of its own. The simulated chip is not divided; OPENREG_DEVICES makes more of them.",
    "torch.cuda.amp.amp_definitely_not_available": "A leftover inside of torch.cuda.amp.",
    "torch.cuda.check_error": "Checks a code of the CUDA runtime. Errors of this device are raised where they happen, as torch.AcceleratorError.",
    "torch.cuda.cudaStatus": "The codes of the CUDA runtime. `torch.AcceleratorError.error_code` has those of the HAL.",
    "torch.cuda.cudart": _CUDA_LIBRARY,
    "torch.cuda.current_blas_handle": _CUDA_LIBRARY,
    "torch.cuda.current_solver_handle": _CUDA_LIBRARY,
    "torch.cuda.has_half": "A leftover: torch.cuda has it always true. `torch.openreg.amp.get_amp_supported_dtype()` tells.",
    "torch.cuda.has_magma": _CUDA_LIBRARY,
    "torch.cuda.jiterator": "Compiles CUDA C++ while the program runs.",
    "torch.cuda.nccl": _CUDA_LIBRARY,
    "torch.cuda.nvtx": "Marks ranges for NVIDIA's profilers. `torch.profiler.record_function` marks them for torch's.",
    "torch.cuda.sparse": "An empty module, kept for old pickles.",
    "torch.cuda.tunable": "Chooses among the matrix kernels of AMD's and NVIDIA's libraries.",
    **{
        f"torch.cuda.{name}{kind}": _LEGACY_TYPE
        for name in ("BFloat16", "Bool", "Byte", "Char", "Double", "Float", "Half", "Int", "Long", "Short")
        for kind in ("Storage", "Tensor")
    },
    "torch.cuda.ComplexDoubleStorage": _LEGACY_TYPE,
    "torch.cuda.ComplexFloatStorage": _LEGACY_TYPE,
}
