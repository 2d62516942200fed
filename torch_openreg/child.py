"""Commands that run a module of this very installation in a new Python.

`python -m torch_openreg...` would find whatever lies in the working directory first: in a clone, sources that are not built.
Standard library only.
"""

import sys
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
