"""A pytest plugin: PyTorch's own test files, or any device-generic ones, with the kit's gap file.

    PYTORCH_TESTING_DEVICE_ONLY_FOR=mychip pytest -p torch_openreg.testing.conformance.pytest_gaps --device-gaps mychip.toml test_ops.py

A test that an entry is about may fail: with NotImplementedError if the entry is `unsupported`, in any way if it is an `expected_failure`.
An entry all of whose tests pass is out of date, and the run fails. Tests of the CPU and of meta are left alone.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from . import gaps
from .torch_tests import TorchTest, plain_name

_REFERENCES = ("cpu", "meta")
_PROPERTY = "device gaps"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("conformance").addoption("--device-gaps", type=Path, metavar="FILE", help="known failures of the device, a TOML file")


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("device_gaps")
    if path is not None:
        try:
            config.pluginmanager.register(_Gaps(path, gaps.read(path)), "device-gaps")
        except gaps.GapFileError as error:
            raise pytest.UsageError(str(error)) from error


class _Gaps:
    """Marks tests when they are collected, and keeps which entries were needed. Under xdist, reports carry to the controller which entries a
    test has."""

    def __init__(self, path: Path, entries: list[gaps.Gap]) -> None:
        self.path, self.entries = path, entries
        self.passed: dict[gaps.Gap, int] = {}
        self.failed: set[gaps.Gap] = set()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            test = _test_of(item)
            found = [number for number, entry in enumerate(self.entries) if test is not None and test.covered_by(entry)]
            if found:
                # An expected failure covers more, so its reason is the one to tell.
                entry = min((self.entries[number] for number in found), key=lambda entry: gaps.KINDS[::-1].index(entry.kind))
                raises = NotImplementedError if entry.kind == "unsupported" else None
                item.user_properties.append((_PROPERTY, found))
                item.add_marker(pytest.mark.xfail(reason=entry.reason, raises=raises, strict=False))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call":
            return
        for number in dict(report.user_properties).get(_PROPERTY, ()):
            entry = self.entries[number]
            if report.outcome == "passed":
                self.passed[entry] = self.passed.get(entry, 0) + 1
            else:
                self.failed.add(entry)

    def _stale(self) -> dict[gaps.Gap, int]:
        return {entry: count for entry, count in self.passed.items() if entry not in self.failed}

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._stale() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter) -> None:
        for entry, count in sorted(self._stale().items()):
            terminalreporter.write_line(f"unexpected pass: all {count} tests of {entry.test or entry.op} pass ({self.path} says: {entry.reason})", red=True)


def _test_of(item: pytest.Item) -> TorchTest | None:
    """None for what instantiate_device_type_tests has not made, and for the reference devices."""
    class_ = getattr(item, "cls", None)
    type_ = getattr(class_, "device_type", None)
    function = getattr(class_, item.name, None)
    if type_ in (None, *_REFERENCES) or function is None:
        return None
    types = (type_, "privateuse1")
    generic = plain_name(class_.__name__, function.__name__, types)
    parameters = next((value for value in function.__defaults__ or () if isinstance(value, dict)), {})
    return TorchTest(generic, plain_name(class_.__name__, item.name, types), _subject(parameters), str(parameters.get("dtype", "")).removeprefix("torch."))


def _subject(parameters: dict) -> str:
    """The row's name of the operator, module or optimizer that torch's decorator has put among the test's parameters."""
    for key, prefix in (("op", ""), ("module_info", "module."), ("optim_info", "optim.")):
        if (info := parameters.get(key)) is not None:
            return prefix + getattr(info, "full_name", info.name)
    return ""
