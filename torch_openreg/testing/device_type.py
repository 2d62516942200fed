"""openreg for PyTorch's device-generic tests, stricter than the class that torch brings: TORCH_TEST_DEVICES loads this file.

`python -m torch_openreg.testing.device_type` prints the path. torch.testing runs the file while it imports
common_device_type, whose names it then finds as its own; TEST_CLASS takes the place of PrivateUse1TestBase in the list
of device types there, so that no test is made twice. Imported as a module, it offers OpenregTestBase and changes nothing.
"""

from __future__ import annotations

import os
import sys
from typing import Any

if __name__ == "__main__":
    print(os.path.abspath(__file__))
    sys.exit()

import torch

from torch_openreg.testing.device_check import DeviceCheck, discard_errors

_loaded_by_torch = "device_type_test_bases" in globals()

if _loaded_by_torch:
    _Base: Any = globals()["PrivateUse1TestBase"]
    _bases: list[Any] = globals()["device_type_test_bases"]
    if _Base not in _bases:
        raise ImportError(
            "torch.testing was imported before the device openreg was registered, so its tests would skip it: "
            "import torch_openreg first, or let `import torch` load it (TORCH_DEVICE_BACKEND_AUTOLOAD is not 0)."
        )
else:
    from torch.testing._internal.common_device_type import PrivateUse1TestBase as _Base

_FOR_CUSTOM = "PYTORCH_TESTING_DEVICE_FOR_CUSTOM"


class OpenregTestBase(_Base):
    """Tests for openreg whose classes end in OPENREG from the first one on.

    Every test runs in a DeviceCheck. OPENREG_TEST_LEAK_CHECK=0 leaves the memory out, and so do
    `_do_openreg_memory_leak_check = False` in a test class and torch's @skipCUDAMemoryLeakCheckIf(True) on a test.
    The primary device is the current one, or OPENREG_TEST_DEVICE (`openreg:1`), which does not become current.
    """

    device_type = "openreg"
    _do_openreg_memory_leak_check = True

    @classmethod
    def setUpClass(cls) -> None:
        cls.device_mod = torch.openreg
        cls.primary_device = _primary_device()

    def __init__(self, method_name: str = "runTest", methodName: str = "runTest") -> None:
        super().__init__(method_name, methodName)
        name = method_name if methodName == "runTest" else methodName
        test = getattr(self, name, None)
        if test is not None:
            memory = (
                self._do_openreg_memory_leak_check
                and getattr(test, "_do_cuda_memory_leak_check", True)
                and os.environ.get("OPENREG_TEST_LEAK_CHECK", "1") != "0"
            )
            self.wrap_with_policy(name, lambda: DeviceCheck(self.id(), memory=memory))

    def _should_stop_test_suite(self) -> bool:
        """Only when a device is lost, which its tests have not reset."""
        return not discard_errors()


def _primary_device() -> str:
    name = os.environ.get("OPENREG_TEST_DEVICE")
    if name is None:
        return f"openreg:{torch.openreg.current_device()}"
    try:
        device = torch.device("openreg", int(name)) if name.isdigit() else torch.device(name)
    except RuntimeError:
        device = torch.device("cpu")
    if device.type != "openreg" or device.index is None or device.index >= torch.openreg.device_count():
        raise ValueError(
            f"OPENREG_TEST_DEVICE is a device like openreg:1, not '{name}'; there are {torch.openreg.device_count()}."
        )
    return str(device)


def _take_the_place_of_the_stock_class() -> None:
    """In torch's own list, and in its variable for tests that are written for CUDA alone, where `privateuse1` may stand."""
    _bases.remove(_Base)
    names = os.environ.get(_FOR_CUSTOM, "").split(",")
    if "privateuse1" in names:
        os.environ[_FOR_CUSTOM] = ",".join("openreg" if name == "privateuse1" else name for name in names)


TEST_CLASS = OpenregTestBase

if _loaded_by_torch:
    _take_the_place_of_the_stock_class()
