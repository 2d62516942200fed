"""Commands that run a module of this very installation in a new Python.

`python -m torch_openreg...` would find whatever lies in the working directory first: in a clone, sources that are not built.
Standard library only.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
# The package is loaded from its place, so that sys.path, and with it the torch that it finds, is the one of any program.
_CODE = """\
import importlib.util, runpy, sys
spec = importlib.util.spec_from_file_location("torch_openreg", {init!r}, submodule_search_locations=[{folder!r}])
package = sys.modules["torch_openreg"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(package)
runpy.run_module({module!r}, run_name="__main__", alter_sys=True)
"""


def command(module: str, *arguments: str) -> list[str]:
    """The words that run `module`, as in "torch_openreg.cli.doctor_probe", as a program with these arguments."""
    code = _CODE.format(init=str(_PACKAGE / "__init__.py"), folder=str(_PACKAGE), module=module)
    return [sys.executable, "-c", code, *arguments]


def run_program(module: str, *arguments: str, env: Mapping[str, str] | None = None) -> int:
    """Runs `command(...)` with this process's input and output, and returns its status as a shell has it. Ctrl-C is the program's to decide."""
    process = subprocess.Popen(command(module, *arguments), env=env)
    while True:
        try:
            status = process.wait()
            break
        except KeyboardInterrupt:  # the program has it, too
            continue
    return 128 - status if status < 0 else status


def end_with_parent(parent: int) -> None:
    """From now on this process is killed when its parent, the process `parent`, has ended in whatever way, also when it hangs then.

    Called by the child. The parent must have started it from a thread that lives as long as the parent. Linux only.
    """
    set_death_signal = 1  # PR_SET_PDEATHSIG
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
    if os.getppid() != parent:  # it was faster
        os.kill(os.getpid(), signal.SIGKILL)
