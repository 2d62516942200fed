"""The program that `openreg audit` looks at: runs a script or a module as Python does, and writes down which lines named cuda.

`python -m torch_openreg.cli.audit_child JSON`, see audit.py.
"""

import json
import os
import sys
import sysconfig
from pathlib import Path

from torch_openreg.cli import program
from torch_openreg.testing.cuda_watch import CudaWatch

_PACKAGE = str(Path(__file__).resolve().parents[1])


def _skips():
    """A pytest plugin: keeps all tests in this process, and notes which were skipped, by reason. None without pytest."""
    try:
        import pytest
    except ImportError:
        return None

    class _Skips:
        def __init__(self) -> None:
            self.reasons: dict[str, list[str]] = {}

        @pytest.hookimpl(tryfirst=True)
        def pytest_cmdline_main(self, config) -> None:
            if hasattr(config.option, "numprocesses"):  # pytest-xdist: lines of other processes would not be seen
                config.option.numprocesses, config.option.dist = None, "no"

        def pytest_runtest_logreport(self, report) -> None:
            if report.skipped and not hasattr(report, "wasxfail"):
                reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
                self.reasons.setdefault(reason.removeprefix("Skipped: "), []).append(report.nodeid)

        def pytest_collectreport(self, report) -> None:
            if report.skipped:
                reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
                self.reasons.setdefault(reason.removeprefix("Skipped: "), []).append(report.nodeid)

    return _Skips()


def watched(only):
    """Says of a file whether it counts: not Python's own, not torch's, not this package's, and under `only` if that is given."""
    paths = sysconfig.get_paths()
    packages = tuple({paths["purelib"] + os.sep, paths["platlib"] + os.sep})
    standard = tuple({paths["stdlib"] + os.sep, paths["platstdlib"] + os.sep})
    torch = os.path.dirname(os.path.abspath(sys.modules["torch"].__file__)) + os.sep

    def watches(file: str) -> bool:
        if file.startswith("<"):
            return False
        file = os.path.abspath(file)
        if file.startswith(torch) or file.startswith(_PACKAGE + os.sep):
            return False
        if only:
            return any(file == path or file.startswith(path + os.sep) for path in only)
        return file.startswith(packages) or not file.startswith(standard)

    return watches


def run(task, skips) -> object:
    """Runs the program, and returns what sys.exit would get."""
    if skips is None:
        return program.run(task["program"], task["arguments"], module=task["module"])
    import pytest

    sys.argv = [task["program"], *task["arguments"]]
    sys.path[0:1] = [os.getcwd()]
    return int(pytest.main(task["arguments"], plugins=[skips]))


def main(task) -> object:
    import torch_openreg

    torch_openreg.load()
    os.environ.pop("TORCH_OPENREG_DEFER_LOAD", None)  # the command's; processes of the program shall load the device
    skips = _skips() if task["module"] and task["program"] == "pytest" else None  # imports pytest unwatched
    with CudaWatch(watched(task["only"])) as watch:
        status = run(task, skips)
    places = [
        {"file": os.path.abspath(place.file), "line": place.line, "function": place.function, "source": place.source, "count": count}
        for place, count in watch.places.items()
    ]
    Path(task["out"]).write_text(json.dumps({"status": status, "places": places, "skips": skips.reasons if skips is not None else {}}))
    return status


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
