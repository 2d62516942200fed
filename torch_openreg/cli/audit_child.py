"""The program that `openreg audit` looks at: runs a script or a module as Python does, and writes down which lines named cuda.

`python -m torch_openreg.cli.audit_child JSON`, see audit.py.
"""

import json
import os
import runpy
import sys
import sysconfig
from pathlib import Path

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


def run(task, skips) -> int:
    """Runs the program, and returns its exit status."""
    sys.argv = [task["program"], *task["arguments"]]
    try:
        if task["module"] and task["program"] == "pytest":
            import pytest

            sys.path[0:1] = [os.getcwd()]
            return int(pytest.main(task["arguments"], plugins=[skips]))
        if task["module"]:
            sys.path[0:1] = [os.getcwd()]
            runpy.run_module(task["program"], run_name="__main__", alter_sys=True)
        else:
            sys.path[0:1] = [os.path.dirname(os.path.abspath(task["program"]))]
            runpy.run_path(task["program"], run_name="__main__")
        return 0
    except SystemExit as exit:
        if exit.code is None or isinstance(exit.code, int):
            return exit.code or 0
        print(exit.code, file=sys.stderr)
        return 1
    finally:
        task["skips"] = skips.reasons if skips is not None else {}


def main(task) -> int:
    import torch_openreg

    torch_openreg.load()
    os.environ.pop("TORCH_OPENREG_DEFER_LOAD", None)  # the command's; processes of the program shall load the device
    skips = _skips() if task["module"] and task["program"] == "pytest" else None  # imports pytest unwatched
    with CudaWatch(watched(task["only"])) as watch:
        try:
            status = run(task, skips)
        except BaseException:
            import traceback

            traceback.print_exc()
            status = 1
    places = [
        {"file": os.path.abspath(place.file), "line": place.line, "function": place.function, "source": place.source, "count": count}
        for place, count in watch.places.items()
    ]
    Path(task["out"]).write_text(json.dumps({"status": status, "places": places, "skips": task["skips"]}))
    return status


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
