"""Runs the `openreg` command in a process of its own, with the Python-only device `fakechip` importable, and long work on a short stack."""

import importlib.util
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture
def on_a_short_stack():
    """on_a_short_stack(call) -> its result, from a thread of its own: whenever torch draws samples or sets a seed, it formats
    the caller's whole stack, and pytest's frames make that take longer than the samples."""

    def run(call):
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(call).result()

    return run


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
