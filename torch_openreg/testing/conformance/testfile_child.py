"""Runs the device-generic tests of a file for one device and records what becomes of each, for `testfile`.

The record has a line [test, outcome, message] when a test starts and when it ends; tests that are in it already are left out. Names are
the file's own, without the device that torch adds.
"""

import faulthandler
import fnmatch
import importlib.util
import json
import os
import sys
import unittest
from pathlib import Path

from torch_openreg.testing.conformance.torch_tests import plain_name


class Recorder(unittest.TestResult):
    """Writes the record while tests run, and ends the process when one takes too long."""

    def __init__(self, record, types, timeout):
        super().__init__()
        self.record, self.types, self.timeout = record, types, timeout

    def write(self, test, outcome, message=""):
        known = isinstance(test, unittest.TestCase)
        name = plain_name(type(test).__name__, test._testMethodName, self.types) if known else str(test)
        self.record.write(json.dumps([name, outcome, message]) + "\n")
        self.record.flush()

    def startTest(self, test):
        super().startTest(test)
        self.write(test, "started")
        faulthandler.dump_traceback_later(self.timeout, exit=True)

    def stopTest(self, test):
        faulthandler.cancel_dump_traceback_later()
        super().stopTest(test)

    def addSuccess(self, test):
        self.write(test, "passed")

    def addFailure(self, test, error):
        self.write(test, "failed", self.sentence(error))

    addError = addFailure

    def addSubTest(self, test, subtest, error):
        if error is not None:
            self.addFailure(test, error)

    def addSkip(self, test, reason):
        self.write(test, "skipped", reason)

    def addExpectedFailure(self, test, error):
        self.write(test, "skipped", "expected to fail")

    def addUnexpectedSuccess(self, test):
        self.write(test, "failed", "passes, and is expected to fail")

    @staticmethod
    def sentence(error) -> str:
        lines = str(error[1]).strip().splitlines()
        return f"{error[0].__name__}: {lines[0] if lines else ''}"


def choose_device(name: str, module: str) -> tuple[str, ...]:
    """Makes torch's test machinery instantiate tests for one device; returns the words for it in names."""
    from torch_openreg.testing.conformance.device import DeviceUnderTest

    device = DeviceUnderTest(name, module).device
    os.environ["PYTORCH_TESTING_DEVICE_ONLY_FOR"] = device.type
    if device.type == "cpu":
        return ("cpu",)
    if device.type == "openreg":
        os.environ["TORCH_TEST_DEVICES"] = str(Path(__file__).parents[1] / "device_type.py")
        os.environ["OPENREG_TEST_DEVICE"] = str(device)
        os.environ.setdefault("OPENREG_TEST_LEAK_CHECK", "0")
    elif device.index:
        import torch

        torch.accelerator.set_device_index(device.index)
    return (device.type, "privateuse1")


def load(file: Path):
    sys.path.insert(0, str(file.parent))
    sys.argv = [str(file)]
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tests_of(suite):
    for test in suite:
        yield from tests_of(test) if isinstance(test, unittest.TestSuite) else [test]


def main() -> int:
    config = json.loads(sys.argv[1])
    faulthandler.enable()
    import torch

    from torch_openreg.testing.conformance.device import UnusableDevice
    from torch_openreg.testing.conformance.testfile import read

    torch.set_num_threads(1)
    try:
        types = choose_device(config["device"], config["module"])
    except UnusableDevice as error:
        print(error, file=sys.stderr)
        return 2
    done = read(Path(config["record"]))
    chosen = unittest.TestSuite()
    for test in tests_of(unittest.defaultTestLoader.loadTestsFromModule(load(Path(config["file"]).resolve()))):
        name = plain_name(type(test).__name__, test._testMethodName, types)
        fits = not config["tests"] or any(fnmatch.fnmatchcase(name, pattern) for pattern in config["tests"])
        if hasattr(test, "device_type") and fits and name not in done:
            chosen.addTest(test)
    with open(config["record"], "a") as record:
        chosen.run(Recorder(record, types, config["timeout"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
