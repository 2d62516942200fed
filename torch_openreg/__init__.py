"""torch_openreg: an accelerator for PyTorch, device="openreg", whose hardware is simulated on the CPU.

Importing this package, or torch itself (entry point `torch.backends`), registers the device and
`torch.openreg`. The order of the two imports does not matter, and repeating them changes nothing.

Everything that the entry point needs stands above the first `import torch`, because torch calls
`_autoload` in the middle of its own import: see Note [Import order].

PYTEST_DONT_REWRITE: pytest marks the packages of its plugins, and this one is often imported before pytest runs.
"""

# Note [Import order]
# `import torch` ends by loading the entry point `torch_openreg:_autoload`. Two orders are possible:
#   import torch          -> entry point -> this file -> load() finds torch with its namespace complete;
#   import torch_openreg  -> this file -> load() -> import torch -> entry point -> _autoload() in this
#                            half-imported module. It returns at once: load() registers when torch is back.
# A failure in the second order therefore leaves torch itself importable.

from __future__ import annotations

import os
import sys

from torch_openreg.driver import configure

__version__: str
api_gaps: dict[str, str]  # public names of torch.xpu and torch.cuda that torch.openreg lacks -> why
api_names: dict[str, str]  # names that carry the other device's in them -> the names here

__all__ = ["api_gaps", "api_names", "configure", "get_include", "get_lib_dir", "load", "load_error"]

_loading = False
_loaded = False
_error: BaseException | None = None


def _autoload() -> None:
    """Entry point of group `torch.backends`: called by `import torch`.

    Raises ImportError with one sentence when the extension cannot be loaded. While loading is deferred
    (see `_deferred`) the failure is kept for `load_error` instead, so that torch stays usable.
    """
    if _loading:
        return
    if _deferred():
        load_error()
    else:
        load()


def load() -> None:
    """Registers the device and `torch.openreg`. Does nothing when that has happened.

    Raises ImportError with one sentence that names the cause; the same one again on later calls.
    """
    global _loading, _loaded, _error
    if _loaded or _loading:
        return
    if _error is not None:
        raise ImportError(str(_error)) from _error
    _loading = True
    try:
        import torch  # noqa: F401

        from torch_openreg import registration

        registration.register()
        _loaded = True
    except Exception as error:
        _error = error
        raise
    finally:
        _loading = False


def load_error() -> BaseException | None:
    """None when the device is registered, else the exception that prevents it. Loads first if nobody has."""
    try:
        load()
    except Exception as error:
        return _error or error
    return None


def get_include() -> str:
    """The folder of the public C++ headers, for the include path of a custom operator."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "include")


def get_lib_dir() -> str:
    """The folder of libtorch_openreg.so, which a custom operator links, and of the simulator library."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib")


def _deferred() -> bool:
    """Whether importing this package loads nothing, and a failure under `import torch` is kept, not raised.

    True under TORCH_OPENREG_DEFER_LOAD=1 and in the `openreg` command, whose `doctor` must run exactly when
    the extension cannot be loaded.
    """
    if os.environ.get("TORCH_OPENREG_DEFER_LOAD") == "1":
        return True
    program = sys.argv[0] if getattr(sys, "argv", None) else ""
    if os.path.basename(program) == "openreg":
        return True
    return program == "-m" and "torch_openreg" in sys.orig_argv[1:4]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from torch_openreg.version import package_version

        return package_version()
    if name in ("api_gaps", "api_names"):
        from torch_openreg import api

        return api.GAPS if name == "api_gaps" else api.NAMES
    raise AttributeError(f"module 'torch_openreg' has no attribute '{name}'")


if not _deferred():
    load()
