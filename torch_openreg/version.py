"""The one Python file that knows about versions: of this package, and of torch.

Whatever differs between the supported minors of torch (2.13, 2.14, 2.15) is asked here, by comparing
`torch_minor()`; csrc has the same rule with one header.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re

_BUILD_HINT = "build it with `pip install .` (or `pip install --no-build-isolation .` for the torch that is there)"


def minor(version: str) -> tuple[int, int]:
    """(2, 13) for "2.13.0", "2.13.1+cpu" or "2.13.0a0+git1234"."""
    match = re.match(r"(\d+)\.(\d+)", version)
    if match is None:
        raise ValueError(f"'{version}' is not a version of torch.")
    return int(match[1]), int(match[2])


def torch_minor() -> tuple[int, int]:
    """Major and minor version of the torch in this process."""
    import torch

    return minor(torch.__version__)


def package_version() -> str:
    """The version of this package, from the build, or from the installed metadata when it is not built."""
    try:
        return str(importlib.import_module("torch_openreg._build_info").VERSION)
    except ImportError:
        try:
            return importlib.metadata.version("torch_openreg")
        except importlib.metadata.PackageNotFoundError:
            return "0+unknown"


def check_torch(running: str) -> None:
    """Raises ImportError, in one sentence, when this build does not fit the torch version `running`.

    The extension uses torch's C++ interfaces, which change from minor to minor; without this check a
    wrong pair shows as an undefined symbol.
    """
    try:
        built = importlib.import_module("torch_openreg._build_info").TORCH_VERSION
    except ImportError as error:
        folder = os.path.dirname(os.path.abspath(__file__))
        raise ImportError(f"torch_openreg in {folder} has no compiled extension: {_BUILD_HINT}.") from error
    if minor(built) != minor(running):
        raise ImportError(
            f"torch_openreg {package_version()} was built against torch {built} and cannot be used with torch "
            f"{running}: install torch {'.'.join(map(str, minor(built)))}.*, or {_BUILD_HINT}."
        )
