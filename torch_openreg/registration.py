"""Makes torch know the device: loads the extension, names the backend, registers `torch.openreg`.

Touches torch only through its own hooks for out-of-tree devices. Runs once per process.
"""

from __future__ import annotations

import sys
import types

BACKEND = "openreg"

_registered = False


def register() -> None:
    """Registers everything with the torch in this process; ImportError, in one sentence, when it cannot."""
    global _registered
    if _registered:
        return
    import torch

    from torch_openreg import version

    version.check_torch(torch.__version__)
    _check_backend_is_free(torch._C._get_privateuse1_backend_name())
    extension = _import_extension()

    torch.utils.rename_privateuse1_backend(BACKEND)
    from torch_openreg import driver, openreg, shutdown

    torch._register_device_module(BACKEND, openreg)
    for name in openreg._SUBMODULES:
        sys.modules[f"torch.{BACKEND}.{name}"] = sys.modules[f"{openreg.__name__}.{name}"]
    torch.utils.generate_methods_for_privateuse1_backend(
        for_tensor=True, for_module=True, for_packed_sequence=True, for_storage=True
    )
    sharing = sys.modules[f"{openreg.__name__}.sharing"]
    sharing.prepare()
    driver.prepare(extension)
    sanitizer = sys.modules[f"{openreg.__name__}.sanitizer"]
    sanitizer.prepare()
    host_function = sys.modules[f"{openreg.__name__}.host_function"]
    faults = sys.modules[f"{openreg.__name__}.faults"]
    shutdown.prepare(extension, [faults.finish, sanitizer.finish], [host_function.finish])
    _registered = True


def _check_backend_is_free(name: str) -> None:
    if name not in ("privateuseone", BACKEND):
        raise ImportError(
            f"torch_openreg cannot be loaded because torch has room for one out-of-tree backend per process and "
            f"'{name}' is already loaded (TORCH_DEVICE_BACKEND_AUTOLOAD=0 keeps torch from loading it by itself)."
        )


def _import_extension() -> types.ModuleType:
    try:
        from torch_openreg import _C
    except ImportError as error:
        from torch_openreg import _build_info

        raise ImportError(
            f"torch_openreg {_build_info.VERSION} (built for torch {_build_info.TORCH_VERSION}) cannot load its "
            f"compiled extension because of this error: {error}; `openreg doctor` shows more, and "
            f"TORCH_DEVICE_BACKEND_AUTOLOAD=0 lets `import torch` go on without the device."
        ) from error
    return _C
