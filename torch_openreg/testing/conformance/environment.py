"""The environment of a process that tests a device. Separate from device.py because the parent does not import torch."""

import os
from pathlib import Path

_OWN_TEST_CLASS = str(Path(__file__).resolve().parents[1] / "device_type.py")


def worker_environment(device: str) -> dict[str, str]:
    """This process's environment, changed so that the device under test is the one that gets loaded.

    PyTorch has one place for out-of-tree devices. openreg takes it when it is the device under test; for any other
    device nothing loads by itself, and --import names the module. Loading errors are kept, so that they can be told
    in one sentence. Everything else (OPENREG_SCHEDULE and the like) is inherited.
    """
    environment = dict(os.environ)
    environment["TORCH_OPENREG_DEFER_LOAD"] = "1"
    if device.partition(":")[0] != "openreg":
        environment["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"
        others = [path for path in environment.get("TORCH_TEST_DEVICES", "").split(":") if path and path != _OWN_TEST_CLASS]
        environment["TORCH_TEST_DEVICES"] = ":".join(others)  # that class is for openreg, and refuses to be without it
    environment.setdefault("OMP_NUM_THREADS", "1")
    return environment
