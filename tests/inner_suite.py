"""pytest in a process of its own, with the project's settings and other variables from its beginning."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent


def inner_suite(*arguments, folder, env):
    """Runs pytest on files of the suite, or on the words given -> CompletedProcess. OPENREG_* variables are those of `env` only; folder: where it runs."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OPENREG_", "PYTEST_"))}
    command = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "-c", TESTS.parent / "pyproject.toml", "--rootdir", TESTS.parent, *arguments]
    return subprocess.run(command, env={**environment, **env}, cwd=folder, capture_output=True, text=True, timeout=300)
