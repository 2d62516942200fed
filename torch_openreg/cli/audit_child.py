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


class _Skips:
    """A pytest plugin: which tests were skipped, by reason."""

    def __init__(self) -> None:
        self.reasons: dict[str, list[str]] = {}

    def pytest_runtest_logreport(self, report) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.reasons.setdefault(reason.removeprefix("Skipped: "), []).append(report.nodeid)

    def pytest_collectreport(self, report) -> None:
        if report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.reasons.setdefault(reason.removeprefix("Skipped: "), []).append(report.nodeid)


def watched(only):
    """Says of a file whether it counts: not Python's own, not torch's, not this package's, and under `only` if that is given."""
    paths = sysconfig.get_paths()
    packages = tuple({paths["purelib"] + os.sep, paths["platlib"] + os.sep})
    standard = tuple({paths["stdlib"] + os.sep, paths["platstdlib"] + os.sep})
    torch = tuple(f"{folder}torch{os.sep}" for folder in packages)

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


def run(task) -> int:
    """Runs the program, and returns its exit status."""
    sys.argv = [task["program"], *task["arguments"]]
    skips = _Skips()
    try:
        if task["module"] and task["program"] == "pytest":
            import pytest

            serial = ["-n", "0"] if _has_xdist() else []  # tests of other processes would not be seen
            return int(pytest.main([*task["arguments"], *serial], plugins=[skips]))
        if task["module"]:
            sys.path.insert(0, os.getcwd())
            runpy.run_module(task["program"], run_name="__main__", alter_sys=True)
        else:
            sys.path.insert(0, str(Path(task["program"]).resolve().parent))
            runpy.run_path(task["program"], run_name="__main__")
        return 0
    except SystemExit as exit:
        if exit.code is None or isinstance(exit.code, int):
            return exit.code or 0
        print(exit.code, file=sys.stderr)
        return 1
    finally:
        task["skips"] = skips.reasons


def _has_xdist() -> bool:
    import importlib.util

    return importlib.util.find_spec("xdist") is not None


def main(task) -> int:
    import torch_openreg

    torch_openreg.load()
    os.environ.pop("TORCH_OPENREG_DEFER_LOAD", None)  # the command's; processes of the program shall load the device
    with CudaWatch(watched(task["only"])) as watch:
        try:
            status = run(task)
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
