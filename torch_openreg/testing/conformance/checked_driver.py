"""The HAL driver under test, for the checks of L0: loaded once in a process, started for each check, and never taken from torch."""

import contextlib
import functools
import os
import shutil
import tempfile
from pathlib import Path

from torch_openreg.driver import read_settings

from . import hal
from .calls import NotApplicable
from .compare import Mismatch

SHUTDOWN_NS = 5 * 10**9
LIMIT_NS = 20 * 10**9  # a wait that takes longer hangs


class CheckedDriver(hal.Driver):
    """A driver whose shorthands raise Mismatch with the entry's name, and NotApplicable for an entry that it leaves out by right."""

    def __init__(self, path):
        super().__init__(path)
        self.called = ""

    def __getattr__(self, entry):
        if entry not in dict(hal.ENTRIES):
            raise AttributeError(entry)
        function = getattr(self.table, entry) if self.has(entry) else None
        if not function:
            if entry in hal.OPTIONAL:
                raise NotApplicable(f"the driver {self.name!r} has no {entry}, which is optional")
            raise Mismatch(f"the driver {self.name!r} has no {entry}, which is required")

        def call(*arguments):
            if entry != "last_message":
                self.called = entry
            return function(*arguments)

        return call

    def has(self, entry: str) -> bool:
        """Whether the driver's table is long enough for the entry, and the entry is not null."""
        field = getattr(hal.DriverTable, entry)
        return field.offset + field.size <= self.table.struct_size and bool(getattr(self.table, entry))

    def ok(self, status) -> None:
        if status == hal.UNSUPPORTED and self.called in hal.OPTIONAL:
            raise NotApplicable(f"the driver {self.name!r} does not support {self.called}, which is optional")
        if status != hal.OK:
            raise Mismatch(f"{self.called} returns {name_of(status)}: {self.message()}")

    def refuses(self, status, wanted, what: str) -> None:
        """Raises Mismatch unless the last entry returned `wanted`. what: the arguments, in words."""
        if status != wanted:
            raise Mismatch(f"{self.called} with {what} returns {name_of(status)}, expected {name_of(wanted)}")

    def finish(self, stream) -> None:
        """Waits for the stream; raises Mismatch when it failed or hangs."""
        self.ok(self.sync(stream, LIMIT_NS)[0])


def name_of(status: int) -> str:
    return hal.STATUS[status] if 0 <= status < len(hal.STATUS) else f"the unknown status {status}"


@functools.cache
def _load(path: str) -> CheckedDriver:
    """A copy of the library: a library has one table, a table starts once, and the runtime of this process may have started the one at the path.
    The library itself where a copy cannot be loaded, because it looks for others beside it. Raises Mismatch when it is no driver."""
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(OSError):
            return CheckedDriver(shutil.copyfile(path, Path(folder) / os.path.basename(path)))
        return CheckedDriver(path)
    except (OSError, AttributeError) as error:  # not a library, or one without openreg_get_driver
        reason = str(error).removeprefix(f"{path}: ")
        raise Mismatch(f"{path} cannot be loaded as a driver: {reason}") from error
    except hal.Refused as error:
        raise Mismatch(str(error)) from error


def loaded(probe) -> CheckedDriver:
    """The driver under test, not started. Ends the check for a device without one."""
    if probe.type != "openreg":
        raise NotApplicable(f"{probe.type} has no driver with openreg's HAL")
    return _load(read_settings().driver)


@contextlib.contextmanager
def started(probe):
    """The driver under test, started with the settings that torch would give it; stopped afterwards."""
    driver = loaded(probe)
    pairs = (hal.Option * max(1, len(options())))(*[(key.encode(), value.encode()) for key, value in options().items()])
    driver.ok(driver.init(pairs, len(options())))
    try:
        yield driver
    finally:
        driver.table.shutdown(SHUTDOWN_NS)
        driver.keep.clear()


def options() -> dict[str, str]:
    """The options of init that the environment asks for, without files that the runtime writes itself."""
    return {key: value for key, value in read_settings().options.items() if key != "schedule_log"}
