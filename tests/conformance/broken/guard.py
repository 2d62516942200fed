"""Wrong device guards: what torch asks of a device when it changes devices."""

from . import variant
from .libraries import break_guard


@variant({"check.guard.set_device_index_changes_the_current_device": "after set_device_index(1) the current device is 0"})
def set_device_ignored():
    "setDevice does nothing."
    return break_guard("set_device_ignored")
