"""Runs the `openreg` command in a process of its own, with the Python-only device `fakechip` importable."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def openreg(tmp_path_factory):
    """openreg("conformance", "run", ..., env={...}) -> CompletedProcess with text output and `.folder`, its working directory."""
    root = str(Path(importlib.util.find_spec("torch_openreg").origin).parent.parent)

    def run(*arguments, env=None, timeout=120):
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("OPENREG_", "FAKECHIP_"))}
        environment["PYTHONPATH"] = os.pathsep.join([root, str(HERE), environment.get("PYTHONPATH", "")])
        environment.update(env or {})
        folder = tmp_path_factory.mktemp("run")
        result = subprocess.run(
            [sys.executable, "-m", "torch_openreg", *map(str, arguments)],
            env=environment, cwd=folder, capture_output=True, text=True, timeout=timeout,
        )
        result.folder = folder
        return result

    return run
